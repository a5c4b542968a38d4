"""Decoded, shrunk images on disk: training on photos decodes each of them once, not once an epoch.

A store is a folder of two files that only grow. ``pixels`` holds uint8 RGB images one after the other; all loader
processes and ranks map it into memory, so that they share the system's page cache. ``rows`` holds one record an image:
the sha256 of its file, where its pixels start, height and width. Records are written after the pixels they point to
have reached the disk, so a store that was cut off at any instant is valid and the next build continues it.

Images are looked up by the hash of their file: what has changed is not found and is decoded again, and runs with other
splits of the same folder share a store. ``SOFTEDGE_CACHE_GB`` limits all stores together (50 by default; 0 turns them
off); the least recently used ones are deleted first.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from softedge.data.decoding import BadImage, decode_smaller
from softedge.data.images import EncodedImages, Uint8
from softedge.errors import UserError
from softedge.files import cache_folder
from softedge.machine.threads import cores
from softedge.progress import say, track
from softedge.run import write_json

LIMIT = "SOFTEDGE_CACHE_GB"
_DEFAULT_GB = 50.0
_VERSION = 1  # of the format, and of how images are decoded and shrunk
_RECORD = np.dtype([("sha256", "V32"), ("start", "<i8"), ("height", "<i4"), ("width", "<i4")])
_CHUNK = 64  # images between two writes of records
_UNUSED_DAYS = 30  # a store that nothing opened for so long is deleted
_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)


class PixelStore:
    """Images of a store by position.  places: int64 (N, 3), start in the file, height, width; height 0: not stored."""

    def __init__(self, path: Path, places: NDArray[np.int64]):
        self.path, self.places = path, places
        self._map: mmap.mmap | None = None

    def get(self, index: int) -> Uint8 | None:
        """The image, or None when it is not in the store: too large for its limit, or unreadable."""
        start, height, width = self.places[index].tolist()
        if not height:
            return None
        if self._map is None:
            try:
                self._map = _mapped(self.path)
            except OSError:  # deleted to make room for others: from here on images are decoded
                self.places = np.zeros_like(self.places)
                return None
        return np.frombuffer(self._map, np.uint8, height * width * 3, start).reshape(height, width, 3)

    def __len__(self) -> int:
        """How many of the images are stored."""
        return int(np.count_nonzero(self.places[:, 1]))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_map": None}  # another process maps the file itself


def _mapped(path: Path) -> mmap.mmap:
    """Copy on write: arrays are writable, as torch requires, and the file still cannot be changed by mistake."""
    with open(path, "rb") as file:
        if os.name == "nt":
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        # Without NORESERVE the system would ask for as much free memory as the file is large.
        flags, protection = mmap.MAP_PRIVATE | _NORESERVE, mmap.PROT_READ | mmap.PROT_WRITE
        return mmap.mmap(file.fileno(), 0, flags=flags, prot=protection)


def open_store(images: EncodedImages, side: int) -> PixelStore | None:
    """The store of these images with a shorter side of at most ``side`` pixels, completed as far as the limit allows.

    None when stores are turned off, the images' hashes are not known, or the folder cannot be written.
    Processes that ask at the same time wait for the one that is building.
    """
    if not images.hashes or limit_bytes() == 0:
        return None
    root = cache_folder() / "pixels"
    about = {"source": images.place, "side": side, "white": dict(images.white or {}), "version": _VERSION}
    folder = root / hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:20]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            if not (folder / "about.json").exists():
                write_json(folder / "about.json", about)
            os.utime(folder / "about.json")
            _delete_unused(root, folder)
            known = _complete(root, folder, images, side)
    except OSError as error:
        say(f"data: decoded images are not kept on disk: {folder}: {error.strerror or error}")
        return None
    record_of = {sha: row for row, sha in enumerate(_hashes(known))}
    rows = np.array([record_of.get(sha, -1) for sha in images.hashes], np.int64)
    places = np.zeros((len(images), 3), np.int64)
    for column, name in enumerate(("start", "height", "width")):
        places[rows >= 0, column] = known[name][rows[rows >= 0]]
    return PixelStore(folder / "pixels", places)


def limit_bytes() -> int:
    """``SOFTEDGE_CACHE_GB`` in bytes; UserError when it is not a number."""
    text = os.environ.get(LIMIT, "")
    try:
        gigabytes = float(text or _DEFAULT_GB)
    except ValueError:
        gigabytes = -1.0
    if not 0 <= gigabytes < 1e9:
        raise UserError(f"{LIMIT}={text} is not a size in gigabytes; give a number, or 0 to keep no decoded images")
    return int(gigabytes * 1e9)


@contextlib.contextmanager
def _locked(folder: Path, wait: bool = True) -> Iterator[None]:
    """Hold a store; BlockingIOError when another process does and ``wait`` is False."""
    try:
        import fcntl
    except ImportError:  # Windows: one process at a time
        yield
        return
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def _hashes(records: NDArray[Any]) -> list[str]:
    """In hexadecimal, as an index has them."""
    joined = np.ascontiguousarray(records["sha256"]).tobytes().hex()
    return [joined[at : at + 64] for at in range(0, len(joined), 64)]


def _records(folder: Path) -> NDArray[Any]:
    """The records whose pixels are complete."""
    rows, pixels = folder / "rows", folder / "pixels"
    if not rows.exists() or not pixels.exists():
        return np.empty(0, _RECORD)
    size = rows.stat().st_size // _RECORD.itemsize
    known = np.fromfile(rows, _RECORD, size)
    ends = known["start"] + known["height"].astype(np.int64) * known["width"] * 3
    inside = (known["start"] >= 0) & (known["height"] > 0) & (known["width"] > 0) & (ends <= pixels.stat().st_size)
    return known[: int(np.argmin(inside))] if not inside.all() else known


def _complete(root: Path, folder: Path, images: EncodedImages, side: int) -> NDArray[Any]:
    """Add what is missing; returns all records."""
    known = _records(folder)
    have, wanted = set(_hashes(known)), images.hashes
    missing = [index for index, sha in enumerate(wanted) if sha not in have]
    if missing and len(have.difference(wanted)) > len(wanted):  # mostly images that are not there any more: start anew
        for name in ("rows", "pixels"):
            (folder / name).unlink(missing_ok=True)
        known, missing = _records(folder), list(range(len(wanted)))
    if not missing:
        return known
    end = int((known["start"] + known["height"].astype(np.int64) * known["width"] * 3).max(initial=0))
    need = _estimate(images, missing, side)
    budget = _make_room(root, folder, end + need) - end
    if budget <= 0:
        return known
    share = "" if need <= budget else f", about {100 * budget / need:.0f} % of them; the others are decoded every epoch"
    say(
        f"data: decoding {len(missing):,} images once into {folder} (up to {min(need, budget) / 1e9:.1f} GB{share}; "
        f"{LIMIT} sets the limit, 0 turns this off)"
    )
    try:
        _append(folder, known, images, missing, side, end, end + budget)
    except OSError as error:
        say(f"data: the rest of the images is decoded every epoch: {folder}: {error.strerror or error}")
    return _records(folder)


def _append(
    folder: Path,
    known: NDArray[Any],
    images: EncodedImages,
    missing: Sequence[int],
    side: int,
    end: int,
    limit: int,
) -> None:
    """Write the missing images and their records behind the last valid ones, whatever a killed build left there."""
    with open(folder / "pixels", "r+b" if (folder / "pixels").exists() else "w+b") as pixels:
        pixels.truncate(end)
        pixels.seek(end)
        with open(folder / "rows", "r+b" if (folder / "rows").exists() else "w+b") as rows:
            rows.truncate(len(known) * _RECORD.itemsize)
            rows.seek(0, os.SEEK_END)
            _write(pixels, rows, images, missing, side, limit)


def _write(
    pixels: BinaryIO, rows: BinaryIO, images: EncodedImages, missing: Sequence[int], side: int, limit: int
) -> None:
    def smaller(index: int) -> Uint8 | None:
        try:
            data = images.read(index)
            if hashlib.sha256(data).hexdigest() != images.hashes[index]:
                return None  # changed since it was looked at: whoever needs it decodes the current file
            return decode_smaller(data, side, images.white)
        except BadImage:
            return None

    chunks = [missing[at : at + _CHUNK] for at in range(0, len(missing), _CHUNK)]
    written: set[str] = set()
    with ThreadPoolExecutor(cores()) as pool:
        for chunk in track(chunks, "decoding", total=len(chunks)):
            added = []
            for index, image in zip(chunk, pool.map(smaller, chunk)):
                start, sha = pixels.tell(), images.hashes[index]
                if image is None or sha in written or start + image.nbytes > limit:
                    continue
                pixels.write(image.data)
                written.add(sha)
                added.append((bytes.fromhex(sha), start, *image.shape[:2]))
            pixels.flush()
            os.fsync(pixels.fileno())
            rows.write(np.array(added, _RECORD).tobytes())
            rows.flush()
    os.fsync(rows.fileno())


def _estimate(images: EncodedImages, missing: Sequence[int], side: int) -> int:
    """Bytes that the missing images will take, from a sample of 16."""
    chosen = np.linspace(0, len(missing) - 1, min(16, len(missing))).astype(int)
    sizes = []
    for at in chosen.tolist():
        with contextlib.suppress(BadImage):
            sizes.append(images.decode_smaller(missing[at], side).nbytes)
    return int(np.mean(sizes) * len(missing) * 1.02) if sizes else 0


def _make_room(root: Path, own: Path, wanted: int) -> int:
    """How large the store ``own`` may become; other stores are deleted, least recently used first, as long as it is
    too little. Half of the free disk is left to others."""
    on_disk = sum(file.stat().st_size for file in own.iterdir())
    others = sorted((_used(store), store) for store in root.iterdir() if store.is_dir() and store != own)
    sizes = {store: sum(file.stat().st_size for file in store.iterdir()) for _, store in others}
    while True:
        room = min(limit_bytes() - sum(sizes.values()), on_disk + shutil.disk_usage(root).free // 2)
        oldest = next((store for _, store in others if store in sizes), None)
        if room >= wanted or oldest is None:
            return max(0, room)
        if _delete(oldest):
            del sizes[oldest]
        else:  # somebody is building it: its size counts
            others = [(used, store) for used, store in others if store != oldest]


def _used(store: Path) -> float:
    """When a store was last opened, seconds since the epoch; 0 for a folder that is none."""
    try:
        return (store / "about.json").stat().st_mtime
    except OSError:
        return 0.0


def _delete_unused(root: Path, own: Path) -> None:
    for store in root.iterdir():
        if store.is_dir() and store != own and 0 < _used(store) < time.time() - _UNUSED_DAYS * 86400:
            _delete(store)


def _delete(store: Path) -> bool:
    """Delete a store, unless a process is building it. One that has it mapped keeps it until it ends."""
    try:
        with _locked(store, wait=False):
            shutil.rmtree(store, ignore_errors=True)
    except OSError:
        return False
    return True
