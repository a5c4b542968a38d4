"""The one ``openvino.Core`` of this process.

Its plugin for the CPU gives the thread that loads it a stack for signal handlers and takes it away with the plugin.
Where two plugins end in the order in which they began, the thread is left with the first one's stack, which is unmapped
by then: the next signal that has a handler in Python (Ctrl-C, SIGTERM, the end of a child process while PyTorch has
loader processes) ends the process with a segmentation fault.  Seen in OpenVINO 2026.4.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any


@functools.cache
def core() -> Any:
    """The ``openvino.Core`` that reads and compiles everything here; it lives as long as the process."""
    import openvino

    return openvino.Core()


@contextlib.contextmanager
def shared() -> Iterator[None]:
    """While it is open, other packages (NNCF) that ask OpenVINO for a core get this one."""
    import openvino

    before = openvino.Core, openvino.compile_model
    the_core = core()
    openvino.Core = lambda: the_core  # type: ignore[assignment,misc]
    openvino.compile_model = the_core.compile_model  # type: ignore[assignment]
    try:
        yield
    finally:
        openvino.Core, openvino.compile_model = before  # type: ignore[misc]
