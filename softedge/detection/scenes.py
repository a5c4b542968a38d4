"""Pictures with objects on them, whatever format their boxes and masks came in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softedge.data import decoding
from softedge.data.spelling import bare
from softedge.errors import UserError

Segmentation = list[list[float]] | dict[str, Any] | None
"""Polygons [[x, y, x, y, ...], ...], a run-length code {"size": [h, w], "counts": ...}, or no mask."""


@dataclass(frozen=True)
class Scene:
    """One picture and its objects, as annotated: nothing is clipped or left out, because evaluation counts it all.

    boxes: float32 (n, 4), x1 y1 x2 y2 in pixels, the corner of the picture is (0, 0).  labels: int64 (n,) into
    ``Scenes.classes``.  area: float32 (n,), of the mask where there is one.
    crowd: bool (n,), a group that no detector need tell apart (COCO).  difficult: bool (n,), not counted (VOC).
    """

    id: int
    path: Path
    width: int
    height: int
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    area: NDArray[np.float32]
    crowd: NDArray[np.bool_]
    difficult: NDArray[np.bool_]
    masks: tuple[Segmentation, ...] = ()

    def read(self) -> bytes:
        """The bytes of the picture's file; ``decoding.BadImage`` when they cannot be had."""
        return decoding.read(self.path)

    def repeated(self) -> int:
        """How many objects have the class and the box of another one before them."""
        return len(self.labels) - len({(*box.tolist(), label) for box, label in zip(self.boxes, self.labels.tolist())})

    def ambiguous(self) -> bool:
        """Whether two objects have one box and different classes."""
        boxes = [tuple(box) for box in self.boxes.tolist()]
        return len(set(boxes)) < len({*zip(boxes, self.labels.tolist())})

    def trainable(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Boxes clipped to the picture, and the indices of the objects to learn from.

        Left out: crowds, and what has no area inside the picture.  Difficult objects are learnt, as in Detectron2.
        """
        limit = np.array([self.width, self.height, self.width, self.height], np.float32)
        clipped = np.clip(self.boxes, 0, limit)
        sides = clipped[:, 2:] - clipped[:, :2]
        keep = np.flatnonzero(~self.crowd & (sides >= 1e-3).all(1))
        return clipped[keep], keep


@dataclass(frozen=True)
class Scenes:
    """One split. notices: what was odd about it and how it was handled, one line each."""

    classes: tuple[str, ...]
    scenes: tuple[Scene, ...]
    notices: tuple[str, ...] = field(default=())
    masks: bool = False

    def __len__(self) -> int:
        return len(self.scenes)

    def per_class(self) -> dict[str, int]:
        """Objects of each class, crowds and difficult ones included."""
        counts = np.zeros(len(self.classes), np.int64)
        for scene in self.scenes:
            counts += np.bincount(scene.labels, minlength=len(self.classes))
        return dict(zip(self.classes, counts.tolist()))


def fingerprint(*splits: Scenes) -> str:
    """A hash of the names and annotations of all scenes."""
    digest = hashlib.sha256()
    for scenes in splits:
        digest.update(repr((scenes.classes, len(scenes), scenes.masks)).encode())
        for scene in scenes.scenes:
            digest.update(repr((scene.path.name, scene.width, scene.height)).encode())
            for array in (scene.boxes, scene.labels, scene.crowd, scene.difficult):
                digest.update(array.tobytes())
    return digest.hexdigest()


def refuse_two_spellings(folder: str | Path, classes: Iterable[str]) -> None:
    """UserError for classes that differ in spelling alone, see ``spelling.bare``.

    A detector would learn one of them and be asked for the other.
    """
    spelt: dict[str, str] = {}
    for name in classes:
        other = spelt.setdefault(bare(name), name)
        if other != name:
            raise UserError(
                f"{folder} has the classes {other!r} and {name!r}, one name in two spellings; use one of them"
            )
