"""What a transfer task is: how its folder is read, how long it is trained, how it is scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softedge.detection import coco, voc
from softedge.detection.coco_ap import coco_ap
from softedge.detection.detections import Detections
from softedge.detection.scenes import Scenes
from softedge.detection.voc_ap import voc_ap

USELESS = 0.005  # AP; below it a detector is as good as none

Score = Callable[[Scenes, Sequence[Detections], bool], dict[str, Any]]


@dataclass(frozen=True)
class Task:
    """read: folder -> (train, test).  score: (scenes, detections, with masks) -> metrics and "AP50_per_class".

    iterations (for a data set of ``pictures``), milestones (fractions of them, where the rate falls tenfold) and
    short_sides are MoCo's.
    """

    name: str
    read: Callable[[Path], tuple[Scenes, Scenes]]
    score: Score
    iterations: int
    pictures: int
    milestones: tuple[float, float]
    short_sides: tuple[int, ...]


def _score_voc(scenes: Scenes, predictions: Sequence[Detections], masks: bool) -> dict[str, Any]:
    return {**_score_coco(scenes, predictions, masks), **voc_ap(scenes, predictions)}


def _score_coco(scenes: Scenes, predictions: Sequence[Detections], masks: bool) -> dict[str, Any]:
    values = coco_ap(scenes, predictions, "bbox")
    if masks:
        of_masks = coco_ap(scenes, predictions, "segm")
        of_masks.pop("AP50_per_class")
        values |= {f"mask_{name}": value for name, value in of_masks.items()}
    return values


VOC = Task("voc", voc.read, _score_voc, 24_000, 16_551, (3 / 4, 11 / 12), tuple(range(480, 801, 32)))
COCO = Task("coco", coco.read, _score_coco, 90_000, 117_266, (2 / 3, 8 / 9), tuple(range(640, 801, 32)))
