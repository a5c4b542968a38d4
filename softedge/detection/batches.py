"""Scenes as training batches for torchvision's detectors, and detections read off their outputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from softedge.data.decoding import BadImage, decode
from softedge.detection.coco import to_bitmap
from softedge.detection.coco_ap import Detections
from softedge.detection.objects import Scene, Scenes
from softedge.errors import UserError
from softedge.progress import track

Target = dict[str, Tensor]
_FIRST_ON_SEVERAL = 1 << 32


def picture(scene: Scene) -> Tensor:
    """float32 (3, H, W) in 0..1; UserError when the file does not fit its annotation."""
    try:
        image = decode(scene.path)
    except BadImage as error:
        raise UserError(f"{scene.path}: {error}; mend it, or take it off the list of images") from error
    if image.shape[:2] != (scene.height, scene.width):
        raise UserError(
            f"{scene.path} has {image.shape[1]} x {image.shape[0]} pixels, its annotation says {scene.width} x "
            f"{scene.height}; boxes would be misplaced"
        )
    return torch.from_numpy(image.copy()).permute(2, 0, 1).float().div_(255)


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
        loader: Any = DataLoader(self._items, batch_sampler=keys, num_workers=self._workers, collate_fn=_lists)
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
            maps = np.stack([to_bitmap(scene.masks[i], scene.height, scene.width) for i in keep])
            target["masks"] = tv_tensors.Mask(torch.from_numpy(maps))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(hash((self.seed, position)) % _FIRST_ON_SEVERAL)
            image, target = self.change(tv_tensors.Image(picture(scene)), target)
        return image.as_subclass(Tensor), {k: v.as_subclass(Tensor) for k, v in target.items()}  # type: ignore[arg-type]


def _lists(items: list[tuple[Tensor, Target]]) -> tuple[list[Tensor], list[Target]]:
    return [image for image, _ in items], [target for _, target in items]


@torch.inference_mode()
def detect(model: nn.Module, scenes: Scenes, what: str = "detect") -> list[Detections]:
    """Run a detector over every scene, one at a time, in eval mode; the mode is given back as it was."""
    place, was_training = next(model.parameters()).device, model.training
    model.eval()
    found = []
    try:
        for scene in track(scenes.scenes, what):
            (output,) = model([picture(scene).to(place)])
            found.append(to_detections({k: v.cpu() for k, v in output.items()}))
    finally:
        model.train(was_training)
    return found


def to_detections(output: Target) -> Detections:
    """torchvision's output for one image; label 1 is class 0, a mask is where its probability is above a half."""
    masks: tuple[dict[str, Any], ...] = ()
    if "masks" in output:
        from faster_coco_eval import mask as codec

        maps = (output["masks"][:, 0] > 0.5).numpy().astype(np.uint8)
        masks = tuple(codec.encode(np.asfortranarray(one)) for one in maps)
    return Detections(
        output["boxes"].float().numpy(),
        output["scores"].float().numpy(),
        output["labels"].numpy().astype(np.int64) - 1,
        masks,
    )
