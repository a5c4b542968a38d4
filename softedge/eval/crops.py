"""Training batches for supervised evaluation: random resized crop and flip, the same at every start of a seed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from softedge.data.images import Images, Uint8
from softedge.errors import leave_signals
from softedge.records import InputSpec

_KEEP_BYTES = 2 << 30  # decoded images stay in memory up to here; beyond it workers decode them again every epoch
_RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def random_resized_crop(
    image: Uint8,
    size: int,
    min_area: float,
    rng: np.random.Generator,
    interpolation: str = "bilinear",
) -> Uint8:
    """uint8 (H, W, 3) -> (size, size, 3): a crop of ``min_area``..1 of the area and aspect 3/4..4/3 (Szegedy 2015).

    Ten draws that must fit inside the image, then the centre: the rule of torchvision's RandomResizedCrop.
    """
    height, width = image.shape[:2]
    for _ in range(10):
        area = height * width * rng.uniform(min_area, 1.0)
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
            break
    else:
        w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
        top, left = (height - h) // 2, (width - w) // 2
    crop = Image.fromarray(image[top : top + h, left : left + w])
    return np.asarray(crop.resize((size, size), _RESAMPLE[interpolation]))


class Crops:
    """Shuffled batches of augmented images, a pure function of (seed, epoch).

    batch: at most the number of images; the last, smaller batch of an epoch is left out.
    workers: processes that decode; only used when the decoded images do not fit into memory.
    """

    def __init__(
        self,
        images: Images,
        spec: InputSpec,
        batch: int,
        seed: int,
        *,
        min_area: float = 0.08,
        flip: float = 0.5,
        workers: int = 0,
    ):
        self.batch = min(batch, len(images))
        self.steps_per_epoch = len(images) // self.batch
        self._count, self._seed = len(images), seed
        self._items = _Items(images, spec, seed, min_area, flip)
        self._workers = 0 if self._items.in_memory else workers

    @property
    def in_memory(self) -> bool:
        """Whether batches are cut in this process, from decoded images that it keeps."""
        return self._items.in_memory

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (uint8 (B, S, S, 3), int64 labels (B,)) from the batch ``start`` on."""
        order = np.random.default_rng([self._seed, epoch]).permutation(self._count)
        chosen = order[: self.steps_per_epoch * self.batch].reshape(-1, self.batch)
        batches = [[(epoch, int(index)) for index in row] for row in chosen[start:]]
        loader: Any = DataLoader(
            self._items,
            batch_sampler=batches,
            num_workers=self._workers,
            collate_fn=_stack,
            worker_init_fn=leave_signals,
        )
        yield from loader

    def forever(self, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches epoch after epoch, without end, from the batch ``start`` on."""
        epoch, done = divmod(start, self.steps_per_epoch)
        while True:
            yield from self.epoch(epoch, done)
            epoch, done = epoch + 1, 0


class _Items(Dataset[tuple[Uint8, int]]):
    def __init__(self, images: Images, spec: InputSpec, seed: int, min_area: float, flip: float):
        self.images, self.spec, self.seed, self.min_area, self.flip = images, spec, seed, min_area, flip
        self.kept: list[Uint8] = []
        if len(images):
            first = self._shrunk(0)
            self.in_memory = first.nbytes * 1.5 * len(images) < _KEEP_BYTES
            if self.in_memory:
                self.kept = [first, *(self._shrunk(i) for i in range(1, len(images)))]

    def _shrunk(self, index: int) -> Uint8:
        """Shorter side at most twice the resize of the spec: a crop of a quarter of the area keeps full detail."""
        image = self.images.needed(index)
        height, width = image.shape[:2]
        scale = 2 * self.spec.resize / min(height, width)
        if scale >= 1:
            return image
        shape = max(1, round(width * scale)), max(1, round(height * scale))
        return np.asarray(Image.fromarray(image).resize(shape, Image.Resampling.BOX, reducing_gap=2.0))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Uint8, int]:  # type: ignore[override]
        epoch, index = key
        rng = np.random.default_rng([self.seed, epoch, index])
        image = self.kept[index] if self.kept else self.images.needed(index)
        crop = random_resized_crop(image, self.spec.size, self.min_area, rng, self.spec.interpolation)
        if rng.random() < self.flip:
            crop = crop[:, ::-1]
        return crop, int(self.images.labels[index])


def _stack(items: list[tuple[Uint8, int]]) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(np.stack([image for image, _ in items]))
    labels = torch.from_numpy(cast(NDArray[np.int64], np.array([label for _, label in items], np.int64)))
    return images, labels
