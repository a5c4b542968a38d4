"""Augmented views of every image, batch by batch: a pure function of (seed, epoch, step).

Small images live in memory and are augmented as whole batches; on a GPU they stay there. Large ones are decoded and
augmented by worker processes; with a GPU the workers only crop, and the rest is done there in batches.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from softedge.data import batch_views, small_views
from softedge.data.decoding import BadImage
from softedge.data.draws import Draws, Ints, View, draw, uniforms
from softedge.data.images import ArrayImages, FileImages, Images
from softedge.data.loading import CACHE_BYTES, Chunk, ViewMaker, Workers, free_bytes
from softedge.data.shards import TarImages
from softedge.errors import UserError
from softedge.machine.threads import cores
from softedge.progress import plural, say

SMALL = 64  # pixels: up to here whole-batch augmentation is faster than one image at a time on a CPU
_ON_DEVICE_BYTES = 8 << 30  # arrays up to this live on the GPU
_ORDER_KEY, _BLOCKS_KEY = 2**40, 2**41  # set the shuffling apart from the views, which use the epoch itself
_WINDOW = 16  # blocks of a tar shard that are read at the same time

Batch = tuple[list[Tensor], Tensor]  # the views of some images, and which images they are


class ViewLoader:
    """Yields (views, index): uint8 (B, size, size, 3) on ``device`` for each of ``views``, and int64 (B,), in the order
    of an epoch's permutation of ``images``.

    batch: images of this rank in a step. With ``world`` ranks a step covers ``batch * world`` consecutive images of the
    permutation, rank r the r-th part of them, and an image's views do not depend on the rank that makes them.
    workers: processes for images in files; -1: chosen from the cores; 0: this process.
    batched: augment whole batches with tensor operations, as on a GPU; None: on a GPU only.
    """

    def __init__(
        self,
        images: Images,
        views: Sequence[View],
        batch: int,
        seed: int,
        workers: int = -1,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = True,
        device: str | torch.device = "cpu",
        batched: bool | None = None,
    ):
        self.views, self.batch, self.seed = tuple(views), batch, seed
        self.rank, self.world = rank, world
        self.device = torch.device(device)
        images = _in_memory(images)
        self.images, self.count = images, len(images)
        whole, rest = divmod(self.count, batch * world)
        self.steps_per_epoch = whole if drop_last else whole + (rest > 0)
        if self.steps_per_epoch == 0:
            raise UserError(
                f"{plural(self.count, 'image is', 'images are')} fewer than one batch of {batch * world}; "
                f"use a smaller one, for example --set ssl.batch={_power_of_two_below(self.count)}"
            )
        self.bad: dict[str, str] = {}  # name -> reason, of images found unreadable on the way
        self.batched = self.device.type != "cpu" if batched is None else batched
        self.rows: Tensor | None = None  # (N, H, 3, W) on the device
        self.workers: Workers | None = None
        self.small = isinstance(images, ArrayImages) and max(images.array.shape[1:3]) <= SMALL and not self.batched
        if self.batched and isinstance(images, ArrayImages) and images.array.nbytes <= _ON_DEVICE_BYTES:
            self.rows = batch_views.to_rows(torch.from_numpy(np.ascontiguousarray(images.array)).to(self.device))
        elif not self.small:
            self.workers = self._hire(workers)

    def _hire(self, workers: int) -> Workers:
        maker = ViewMaker(self.images, self.views, self.seed, crops_only=self.batched)
        count = _choose_workers(workers, self.batched)
        forked = count == 0 or multiprocessing.get_start_method() == "fork"  # then workers share this memory
        maker.fill_cache(min(CACHE_BYTES, free_bytes() // 4) if forked else 0, disk_first=self.world > 1)
        self._note(list(maker.unreadable.items()))
        return Workers(maker, count)

    def order(self, epoch: int) -> Ints:
        """The permutation of this epoch, int64 (N,); of tar shards, of blocks and then within a few of them."""
        keys = uniforms(self.seed, _ORDER_KEY + epoch, np.arange(self.count), 1)[:, 0]
        if not isinstance(self.images, TarImages):
            return np.argsort(keys, kind="stable")
        blocks = self.images.blocks()
        shuffled = np.argsort(uniforms(self.seed, _BLOCKS_KEY + epoch, np.arange(len(blocks)), 1)[:, 0], kind="stable")
        windows = [shuffled[at : at + _WINDOW] for at in range(0, len(blocks), _WINDOW)]
        members = [np.concatenate([blocks[block] for block in window]) for window in windows]
        return np.concatenate([part[np.argsort(keys[part], kind="stable")] for part in members])

    def indices(self, epoch: int) -> list[Ints]:
        """The images of every step of this rank."""
        order, width = self.order(epoch), self.batch * self.world
        steps = [order[at : at + width] for at in range(0, self.steps_per_epoch * width, width)]
        return [np.array_split(step, self.world)[self.rank] for step in steps]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The steps of an epoch from step ``start`` on."""
        batches = self.indices(epoch)[start:]
        if self.workers is not None:
            for index, chunks in zip(batches, self.workers.run(epoch, batches)):
                self._note([bad for chunk in chunks for bad in chunk.bad])
                yield self._gathered(chunks, epoch, index)
        for index in batches if self.workers is None else ():
            yield self._on_device(epoch, index) if self.rows is not None else self._in_process(epoch, index)

    def _in_process(self, epoch: int, index: Ints) -> Batch:
        """Small images on a CPU."""
        assert isinstance(self.images, ArrayImages)
        images = self.images.array[index]
        draws = draw(self.seed, epoch, index, self.views)
        views = [small_views.views(images, each, view.size) for each, view in zip(draws, self.views)]
        return [torch.from_numpy(view) for view in views], torch.from_numpy(index)

    def _on_device(self, epoch: int, index: Ints) -> Batch:
        """Images that live where training runs: only the parameters of the views go there."""
        assert self.rows is not None
        chosen = torch.from_numpy(index)
        images = self.rows[chosen.to(self.device, non_blocking=True)]
        draws = draw(self.seed, epoch, index, self.views)
        return [batch_views.views(images, each, view.size) for each, view in zip(draws, self.views)], chosen

    def _gathered(self, chunks: list[Chunk], epoch: int, index: Ints) -> Batch:
        """What the workers made, as one batch; with a GPU they only cropped, and the rest is done here."""
        views = [torch.cat(parts) for parts in zip(*(chunk.views for chunk in chunks))]
        shown = torch.cat([chunk.index for chunk in chunks])
        if self.batched:
            draws = draw(self.seed, epoch, index, self.views)
            views = [self._coloured(view, each) for view, each in zip(views, draws)]
        return views, shown

    def _coloured(self, crops: Tensor, draws: Draws) -> Tensor:
        if self.device.type == "cuda":
            crops = crops.pin_memory().to(self.device, non_blocking=True)
        rows = batch_views.to_rows(crops.to(self.device)).float()
        return batch_views.to_uint8(batch_views.colour(rows, draws))

    def _note(self, unreadable: list[tuple[int, str]]) -> None:
        """Remember and say once what cannot be read: every worker finds out for itself."""
        for index, reason in unreadable:
            name = self.images.names[index]
            if name not in self.bad:
                self.bad[name] = reason
                say(f"data: {name} cannot be read and is replaced by another image: {reason}")


def _choose_workers(workers: int, all_cores: bool) -> int:
    """On a CPU half of the cores augment and the other half trains; with a GPU all of them augment."""
    if workers >= 0:
        return workers
    available = cores()
    return min(16, available) if all_cores else max(1, available // 2)


def _power_of_two_below(count: int) -> int:
    return 1 << max(1, count.bit_length() - 1)


def _in_memory(images: Images) -> Images:
    """Files that all hold images of one small size become an array: decoding once costs less than an epoch."""
    if not isinstance(images, FileImages) or len(images) == 0:
        return images
    try:
        shape = images.decode(0).shape
    except BadImage:
        return images
    if max(shape) > SMALL:
        return images

    def same_shape(index: int) -> np.ndarray | None:
        try:
            image = images.decode(index)
        except BadImage:
            return None
        return image if image.shape == shape else None

    array = np.empty((len(images), *shape), np.uint8)
    with ThreadPoolExecutor(cores()) as pool:
        for index, image in enumerate(pool.map(same_shape, range(len(images)))):
            if image is None:
                return images
            array[index] = image
    return ArrayImages(array, images.labels, images.names)
