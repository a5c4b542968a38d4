"""Checkpoint files that end in a checksum: torch verifies no byte of what it reads, and a damaged weight looks sound.

The file is ``torch.save``'s with one line after it, which zip readers pass over: ``torch.load`` reads it as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from softedge.run import atomic_path

_MARK = b"softedge sha256 "
_LENGTH = len(_MARK) + 64 + 1


class Damaged(Exception):
    """A checkpoint whose bytes are not those that were written; the message is the reason, for a person."""


def write(path: Path, content: Any, before: Callable[[], None] = lambda: None) -> None:
    """Write ``content`` to ``path`` atomically; ``before`` is called when all is written, before the rename."""
    with atomic_path(path) as temporary:
        with open(temporary, "wb") as file:  # torch's own writer hides why it failed: a full disk is a RuntimeError
            try:
                torch.save(content, file)
            except RuntimeError as error:  # so it is here when torch closes its archive after the write that failed
                raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
        digest = _digest(temporary, temporary.stat().st_size)
        with open(temporary, "ab") as file:
            file.write(_MARK + digest.encode() + b"\n")
        before()


def read(path: Path) -> Any:
    """What ``write`` wrote, on the CPU and without unpickling code. Raises ``Damaged`` for any other bytes."""
    try:
        size = path.stat().st_size - _LENGTH
        with open(path, "rb") as file:
            file.seek(max(size, 0))
            line = file.read()
        if size < 0 or not line.startswith(_MARK):
            raise Damaged("it ends without a checksum: cut short, or written by an earlier version")
        if line != _MARK + _digest(path, size).encode() + b"\n":
            raise Damaged("its bytes do not match the checksum at its end")
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise Damaged(error.strerror or "it cannot be read") from error


def _digest(path: Path, size: int) -> str:
    """SHA-256 of the first ``size`` bytes of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while size > 0 and (block := file.read(min(size, 1 << 20))):
            digest.update(block)
            size -= len(block)
    return digest.hexdigest()


def not_finite(named: Iterable[tuple[str, Tensor]]) -> str:
    """The name of the first tensor that holds NaN or an infinity, "" when all are finite. Waits for the device once."""
    floats = [(name, value) for name, value in named if value.is_floating_point()]
    finite = torch.stack([value.isfinite().all() for _, value in floats]).tolist() if floats else []
    return next((name for (name, _), good in zip(floats, finite) if not good), "")
