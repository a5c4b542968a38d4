"""Copies of the test images in the run: a finished model can be checked and benched when the photos are gone."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path, PurePosixPath

from softedge.data.decoding import BadImage
from softedge.data.images import EncodedImages, FileImages
from softedge.run import write_bytes

FOLDER = "test"
LIMIT_BYTES = 1_000_000_000  # of all copies of a run


def keep(images: EncodedImages, folder: Path) -> int:
    """Keep the files of ``images`` in ``folder`` by their hashes, as far as the limit allows; returns how many.

    A file on the same disk is linked, which takes no room; one that is edited in place later is noticed by its hash.
    """
    kept = size = 0
    for index in range(len(images)):
        target = folder / (images.hashes[index] + PurePosixPath(images.names[index]).suffix.lower())
        with contextlib.suppress(BadImage):
            data = images.read(index)
            size += len(data)
            if size > LIMIT_BYTES:
                break
            if not (isinstance(images, FileImages) and _linked(images.path(index), target)):
                write_bytes(target, data)
            kept += 1
    return kept


def _linked(source: Path, target: Path) -> bool:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except FileExistsError:
        return True
    except OSError:  # another disk, or a file system without links
        return False
    return True
