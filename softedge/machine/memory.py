"""Settings of the C library that speed up everything that makes and drops large arrays."""

from __future__ import annotations

import contextlib
import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_KEEP = 1 << 30


def keep_freed() -> bool:
    """Let this process keep freed memory for its next arrays, instead of giving it back to the system.

    By default glibc takes an array above 32 MB (at first, above 128 KB) from the system and returns it when it is
    freed, so that the next one is paid for with a page fault for each 4 KB: at 224 pixels that is a third of a training
    step (``benchmarks/training_memory.py``). Here all come from the heap, and what is free at its end
    is given back beyond 1 GB. Returns whether the setting was taken: only glibc has it.
    """
    if not sys.platform.startswith("linux"):
        return False
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        accepted = library.mallopt(_M_MMAP_MAX, 0)
        return bool(accepted and library.mallopt(_M_TRIM_THRESHOLD, _KEEP))
    return False


def give_back() -> None:
    """Return to the system what ``keep_freed`` has kept, where the C library can: after a training."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
