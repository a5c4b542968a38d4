"""Augmented views of images in files (or of large ones in memory), made by worker processes in parallel.

Workers get (epoch, indices) and return uint8; every random choice follows from (seed, epoch, index), so which worker
makes a view, and when, does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from softedge.data import image_views, shared_memory
from softedge.data.decoding import BadImage
from softedge.data.draws import Draws, Ints, View, draw
from softedge.data.images import EncodedImages, Images, Uint8
from softedge.data.pixel_store import PixelStore, open_store
from softedge.errors import leave_signals
from softedge.machine.memory import keep_freed
from softedge.machine.threads import cores
from softedge.progress import say

CACHE_BYTES = 4 << 30  # decoded images are kept in memory up to this and a quarter of what is free
_CHUNK = 32  # images per message from a worker
_PREFETCH = 4  # messages that a worker makes ahead

Key = tuple[int, Ints]  # epoch, indices


@dataclass(frozen=True)
class Chunk:
    """Views of some images, uint8 (n, S, S, 3) each.  index: the images really shown.  bad: (index, reason) of those
    that could not be read and were replaced."""

    views: list[Tensor]
    index: Tensor
    bad: list[tuple[int, str]]

    def taken_out(self) -> Chunk:
        """A copy in this process's own memory."""
        return Chunk([view.clone() for view in self.views], self.index.clone(), self.bad)


def pixels_needed(size: int, min_area: float) -> int:
    """Pixels of the shorter side beyond which no crop changes: the smallest crop is still not enlarged."""
    return math.ceil(size / math.sqrt(max(min_area, 0.01) * 0.75))


class ViewMaker(Dataset[Chunk]):
    """(epoch, indices) -> ``Chunk``. ``crops_only`` leaves jitter, greyscale and blur to a GPU."""

    def __init__(self, images: Images, views: Sequence[View], seed: int, crops_only: bool = False):
        self.images, self.views, self.seed, self.crops_only = images, tuple(views), seed, crops_only
        self.cache: list[Uint8] | None = None  # all images, in memory
        self.store: PixelStore | None = None  # as many as there is room for, on disk
        self.unreadable: dict[int, str] = {}

    @property
    def bytes_per_image(self) -> int:
        """Of the views of one image."""
        return sum(3 * view.size**2 for view in self.views)

    @property
    def at_least(self) -> int:
        """Pixels of the shorter side that a decoded image keeps."""
        return max(pixels_needed(view.size, view.augment.min_area) for view in self.views)

    def decode(self, index: int) -> Uint8:
        """The image, shrunk when it is larger than any crop needs."""
        if self.cache is not None:
            return self.cache[index]
        if self.store is not None and (stored := self.store.get(index)) is not None:
            return stored
        if isinstance(self.images, EncodedImages):
            return self.images.decode_smaller(index, self.at_least)
        return self.images.decode(index)

    def make(self, index: int, draws: Sequence[Draws], row: int, to: Sequence[Uint8]) -> None:
        """The views of an image into ``to``, uint8 (size, size, 3) each."""
        image = self.decode(index)
        for view, each in zip(to, draws):
            cropped = image_views.crop(image, each, row, len(view))
            view[:] = cropped if self.crops_only else image_views.colour(cropped, each, row)

    def make_readable(self, index: int, draws: Sequence[Draws], row: int, to: Sequence[Uint8]) -> int:
        """``make`` of the image, or of the next one that can be read: the same replacement in every process.

        Returns which one it was.
        """
        for step in range(len(self.images)):
            candidate = (index + step) % len(self.images)
            if candidate in self.unreadable:
                continue
            try:
                self.make(candidate, draws, row, to)
                return candidate
            except BadImage as error:
                self.unreadable[candidate] = str(error)
        raise BadImage("no image can be read any more")

    def __getitem__(self, key: Key) -> Chunk:
        epoch, indices = key
        draws = draw(self.seed, epoch, indices, self.views)
        views = _empty([(len(indices), view.size, view.size, 3) for view in self.views])
        arrays = [each.numpy() for each in views]
        shown = np.empty(len(indices), np.int64)
        before = len(self.unreadable)
        for row, index in enumerate(indices.tolist()):
            shown[row] = self.make_readable(index, draws, row, [each[row] for each in arrays])
        unreadable = list(self.unreadable.items())[before:]
        return Chunk(views, torch.from_numpy(shown), unreadable)

    def fill_cache(self, budget: int, disk_first: bool = False) -> bool:
        """Decode everything once: into memory when that fits into ``budget`` bytes, else into a store on disk.

        disk_first: several ranks share a store, but not their memory.
        Returns whether there is a cache now.  The views are the same with and without one.
        """
        if not isinstance(self.images, EncodedImages) or self.cache is not None:
            return self.cache is not None
        if disk_first:
            self.store = open_store(self.images, self.at_least)
        if self.store is None and not self._fill_memory(budget) and not disk_first:
            self.store = open_store(self.images, self.at_least)
        return self.cache is not None or self.store is not None

    def _fill_memory(self, budget: int) -> bool:
        if budget <= 0:
            return False
        sample = np.linspace(0, len(self.images) - 1, min(16, len(self.images))).astype(int)
        first = [image for image in map(self._decode_or_none, sample.tolist()) if image is not None]
        if sum(image.nbytes for image in first) / max(1, len(first)) * len(self.images) > budget:
            return False
        with ThreadPoolExecutor(cores()) as pool:
            decoded = list(pool.map(self._decode_or_none, range(len(self.images))))
        nothing = np.zeros((1, 1, 3), np.uint8)
        self.cache = [nothing if image is None else image for image in decoded]
        return True

    def _decode_or_none(self, index: int) -> Uint8 | None:
        try:
            return self.decode(index)
        except BadImage as error:
            self.unreadable[index] = str(error)
            return None


def _empty(shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """uint8 tensors to fill, in one piece; in a worker it is shared memory, or all would be copied on its way out."""
    sizes = [math.prod(shape) for shape in shapes]
    if get_worker_info() is None:
        flat = torch.empty(sum(sizes), dtype=torch.uint8)
    else:
        storage = torch.UntypedStorage._new_shared(sum(sizes))  # as torch's own collate function does
        flat = torch.empty(0, dtype=torch.uint8).set_(storage)
    return [part.view(shape) for part, shape in zip(flat.split(sizes), shapes)]


class _Keys(Sampler[Key]):
    """The keys of the next pass; exchanged between passes, so that workers can live on."""

    def __init__(self) -> None:
        self.keys: list[Key] = []

    def __iter__(self) -> Iterator[Key]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


class Workers:
    """Runs a ``ViewMaker`` in processes that live as long as this object; in this process when ``count`` is 0."""

    def __init__(self, maker: ViewMaker, count: int):
        self.shares = shares = shared_memory.fitting(
            count, maker.bytes_per_image, shared_memory.free_bytes(), _CHUNK, _PREFETCH
        )
        if shares.workers < count or shares.chunk < _CHUNK or shares.prefetch < _PREFETCH:
            say(
                f"data: {shared_memory.FOLDER} has little room: {shares.workers} loader processes send {shares.chunk} "
                "images at a time; start the container with more (docker run --shm-size=2g) for full speed"
            )
        self.maker, self.count = maker, shares.workers
        self.sampler = _Keys()
        self.loader: DataLoader[Chunk] | None = None
        if self.count > 0:
            self.loader = DataLoader(
                maker,
                sampler=self.sampler,
                batch_size=None,
                num_workers=self.count,
                collate_fn=_as_it_is,
                prefetch_factor=shares.prefetch,
                persistent_workers=True,
                worker_init_fn=_quiet,
                generator=torch.Generator(),  # else every pass would draw from the global state that training saves
            )

    def run(self, epoch: int, batches: list[Ints]) -> Iterator[list[Chunk]]:
        """The chunks of each batch, in order."""
        size = self.shares.chunk
        parts = [[(epoch, b[at : at + size]) for at in range(0, len(b), size)] for b in batches]
        if self.loader is None:
            for part in parts:
                yield [self.maker[key] for key in part]
            return
        self.sampler.keys = [key for part in parts for key in part]
        arriving = iter(self.loader)
        for part in parts:
            yield [next(arriving).taken_out() if self.shares.taken_out else next(arriving) for _ in part]


def _as_it_is(chunk: Any) -> Any:
    return chunk


def _quiet(worker: int) -> None:
    leave_signals(worker)
    import cv2

    cv2.setNumThreads(0)
    keep_freed()


def free_bytes() -> int:
    """Memory that is free for use (Linux; elsewhere a careful guess)."""
    try:
        with open("/proc/meminfo") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return 4 << 30
