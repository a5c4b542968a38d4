"""Copies of images in the run: a finished model can be exported, checked and benched when the photos are gone.

Kept are the test images, and those that calibrate int8.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from softedge.data.decoding import BadImage
from softedge.data.images import EncodedImages, FileImages, copy_name
from softedge.run import write_bytes

LIMIT_BYTES = 1_000_000_000  # of all copies of a run
_FOLDER = "images"
_EARLIER = "test"  # of runs made when only test images were kept


def folder(data: Path) -> Path:
    """Where the copies of a run lie.  data: its folder ``data``."""
    earlier = data / _EARLIER
    return earlier if earlier.is_dir() else data / _FOLDER


def keep(images: EncodedImages, folder: Path, room: int = LIMIT_BYTES) -> tuple[int, int]:
    """Keep the files of ``images`` in ``folder`` by their hashes, as far as ``room`` in bytes allows.

    Returns how many were kept and the bytes they take.
    """
    kept = size = 0
    for index in range(len(images)):
        with contextlib.suppress(BadImage):
            data = images.read(index)
            if size + len(data) > room:
                break
            source = images.path(index) if isinstance(images, FileImages) else None
            put(data, folder / copy_name(images.hashes[index], images.names[index]), source)
            size += len(data)
            kept += 1
    return kept, size


def put(data: bytes, target: Path, source: Path | None) -> None:
    """Make ``target`` a copy of a file.  data: its content.  source: the file, where it is one of its own.

    A file on the same disk is linked, which takes no room; one that is edited in place later is noticed by its hash.
    """
    if source is None or not _linked(source, target):
        write_bytes(target, data)


def _linked(source: Path, target: Path) -> bool:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except FileExistsError:
        return True
    except OSError:  # another disk, or a file system without links
        return False
    return True
