"""Pictures with objects on them, whatever format their boxes and masks came in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softedge.progress import say

Segmentation = list[list[float]] | dict[str, Any] | None
"""Polygons [[x, y, x, y, ...], ...], a run-length code {"size": [h, w], "counts": ...}, or no mask."""

_SHOWN = 3


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


class Notices:
    """Collects oddities by kind and words each kind as one line."""

    def __init__(self, where: str):
        self.where = where
        self._found: dict[str, list[str]] = {}

    def add(self, kind: str, what: str) -> None:
        self._found.setdefault(kind, []).append(what)

    def lines(self) -> tuple[str, ...]:
        return tuple(f"{self.where}: {len(what)} {kind} ({shortened(what)})" for kind, what in self._found.items())


def shortened(items: Sequence[str]) -> str:
    """The first few of many."""
    more = len(items) - _SHOWN
    return ", ".join(items[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def compare_splits(train: Scenes, test: Scenes) -> list[str]:
    """Lines on classes that a detector cannot learn or that cannot be measured."""
    learnt, asked = train.per_class(), test.per_class()
    lines = []
    if only_test := [c for c in test.classes if asked[c] and not learnt[c]]:
        lines.append(f"no training object of {shortened(only_test)}: they count in the mean with what is found")
    if only_train := [c for c in test.classes if learnt[c] and not asked[c]]:
        lines.append(f"no test object of {shortened(only_train)}: they are left out of the mean")
    return lines


def tell(lines: Iterable[str]) -> None:
    for line in lines:
        say(f"data: {line}")
