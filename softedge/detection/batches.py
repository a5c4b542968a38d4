"""Scenes as training batches for torchvision's detectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from softedge.detection.masks import decode
from softedge.detection.pictures import planes
from softedge.detection.scenes import Scene, Scenes
from softedge.errors import UserError, leave_signals

Target = dict[str, Tensor]
_SEEDS = 1 << 32


class Batches:
    """Shuffled batches without end, a pure function of (seed, iteration): a resumed run sees what it would have seen.

    Scenes without a trainable object are left out, as Detectron2 does.  crop: SSD's random crops (Liu et al. 2016).
    """

    def __init__(self, scenes: Scenes, batch: int, seed: int, *, masks: bool, crop: bool, workers: int):
        usable = [scene for scene in scenes.scenes if len(scene.trainable()[1])]
        if not usable:
            raise UserError("no training image holds an object to learn from (crowds and empty boxes do not count)")
        self.n_scenes = len(usable)
        self._items, self._batch = _Items(usable, seed, masks, crop), batch
        self._seed, self._workers = seed, workers

    def from_iteration(self, start: int, stop: int) -> Iterator[tuple[list[Tensor], list[Target]]]:
        """Batches ``start`` to ``stop`` - 1."""
        keys: Any = _Keys(self._seed, self.n_scenes, self._batch, start, stop)
        loader: Any = DataLoader(
            self._items, batch_sampler=keys, num_workers=self._workers, collate_fn=_lists, worker_init_fn=leave_signals
        )
        yield from loader


@dataclass(frozen=True)
class _Keys:
    """(position, scene) of each example of each batch; every epoch is a permutation of its own."""

    seed: int
    n_scenes: int
    batch: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        known, order = -1, np.empty(0, np.int64)
        keys = []
        for position in range(self.start * self.batch, self.stop * self.batch):
            epoch, place = divmod(position, self.n_scenes)
            if epoch != known:
                known, order = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.n_scenes)
            keys.append((position, int(order[place])))
            if len(keys) == self.batch:
                yield keys
                keys = []


class _Items(Dataset[tuple[Tensor, Target]]):
    def __init__(self, scenes: list[Scene], seed: int, masks: bool, crop: bool):
        from torchvision.transforms import v2

        self.scenes, self.seed, self.masks = scenes, seed, masks
        flip = v2.RandomHorizontalFlip(0.5)
        self.change = v2.Compose([v2.RandomIoUCrop(), v2.SanitizeBoundingBoxes(), flip]) if crop else flip

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Target]:  # type: ignore[override]
        from torchvision import tv_tensors

        position, index = key
        scene = self.scenes[index]
        boxes, keep = scene.trainable()
        shape: Any = (scene.height, scene.width)
        target: dict[str, Any] = {
            "boxes": tv_tensors.BoundingBoxes(torch.from_numpy(boxes[keep]), format="XYXY", canvas_size=shape),  # type: ignore[call-overload]
            "labels": torch.from_numpy(scene.labels[keep] + 1),
        }
        if self.masks:
            maps = np.stack([decode(scene.masks[i], scene.height, scene.width) for i in keep])
            target["masks"] = tv_tensors.Mask(torch.from_numpy(maps))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(hash((self.seed, position)) % _SEEDS)
            image, target = self.change(tv_tensors.Image(planes(scene)), target)
        return image.as_subclass(Tensor), {k: v.as_subclass(Tensor) for k, v in target.items()}  # type: ignore[arg-type]


def _lists(items: list[tuple[Tensor, Target]]) -> tuple[list[Tensor], list[Target]]:
    return [image for image, _ in items], [target for _, target in items]
