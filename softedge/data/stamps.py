"""The content hash of every file, read again only where the file may have changed.

A file is taken for unchanged when device, inode, size and the times of its last change of content and status (in
nanoseconds) are those of its stamp, as git does. What changed within two seconds of being read gets no stamp: the clock
of a file system is coarse, and a second change could leave the same times.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from softedge.data.decoding import BadImage
from softedge.data.images import ArrayImages, EncodedImages, Images
from softedge.machine.threads import cores
from softedge.progress import track
from softedge.run import read_json, write_json

FILE = ".stamps.json"  # in the run folder
_FRESH_NS = 2_000_000_000
_MISSING = "unreadable"

Stamp = list[int]


def content_hashes(splits: Mapping[str, Images], stamps: Path | None = None) -> dict[str, list[str]]:
    """Split -> the sha256 of every image's file (of its pixels, in memory), "unreadable" where there is none.

    stamps: a file that remembers hashes; read and written again.
    """
    known = remembered(stamps)
    kept: dict[str, Any] = {}
    hashes = {}
    for split, images in splits.items():
        if isinstance(images, ArrayImages):
            hashes[split] = [hashlib.sha256(image.tobytes()).hexdigest() for image in images.array]
        elif isinstance(images, EncodedImages):
            hashes[split] = _of_files(images, known, kept)
        else:
            raise TypeError(f"images of an unknown kind: {type(images).__name__}")
    if stamps is not None and kept != known:
        write_json(stamps, kept)
    return hashes


def _of_files(images: EncodedImages, known: Mapping[str, Any], kept: dict[str, Any]) -> list[str]:
    def one(index: int) -> tuple[str, Stamp | None]:
        return hashed(images.file(index), lambda: images.read(index), known.get(images.names[index]))

    with ThreadPoolExecutor(cores()) as pool:
        answers = list(track(pool.map(one, range(len(images))), "comparing files", total=len(images)))
    kept.update({name: [stamp, digest] for name, (digest, stamp) in zip(images.names, answers) if stamp is not None})
    return [digest for digest, _ in answers]


def hashed(file: Path, read: Callable[[], bytes], known: Any = None) -> tuple[str, Stamp | None]:
    """The sha256 of a file's bytes, "unreadable" where ``read`` raises BadImage; and its stamp, where that is reliable.

    known: [stamp, sha256] of before; the file is not read where it still has this stamp.
    """
    stamp = _stamp(file)
    if stamp is not None and known is not None and known[0] == stamp:
        return str(known[1]), stamp
    began = time.time_ns()
    try:
        digest = hashlib.sha256(read()).hexdigest()
    except BadImage:
        return _MISSING, None
    fresh = stamp is not None and max(stamp[-2:]) > began - _FRESH_NS
    return digest, None if fresh else stamp


def _stamp(path: Path) -> Stamp | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def remembered(stamps: Path | None) -> dict[str, Any]:
    """The stamps, or none where they cannot be read: they only save time."""
    if stamps is None or not stamps.exists():
        return {}
    try:
        values = read_json(stamps)
    except Exception:
        return {}
    right = isinstance(values, dict) and all(isinstance(v, list) and len(v) == 2 for v in values.values())
    return values if right else {}
