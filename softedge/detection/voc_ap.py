"""Average precision as Pascal VOC defines it: the 11-point one of 2007 and the area under the curve since 2010.

Everingham et al. 2010 (IJCV 88), section 4.2, and the devkit's VOCevaldet: boxes are whole pixels, a detection belongs
to the object it overlaps most, difficult objects count neither way, a second detection of an object is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from softedge.detection.detections import Detections
from softedge.detection.scenes import Scenes

Rule = Literal["11-point", "area"]


def voc_ap(scenes: Scenes, predictions: Sequence[Detections]) -> dict[str, Any]:
    """voc07_AP50 and voc12_AP50 (11-point, area), and the 11-point AP and AP75 over IoU .50:.05:.95.

    The last two are what Detectron2 prints for VOC 2007, hence what MoCo, SEED and Light-MoCo report on VOC.
    """
    thresholds = np.arange(50, 100, 5) / 100
    eleven, area = [], []
    for label in range(len(scenes.classes)):
        curves = [precision_recall(scenes, predictions, label, threshold) for threshold in thresholds]
        if curves[0] is None:  # no object of this class to find
            continue
        eleven.append([average_precision(*curve, "11-point") for curve in curves if curve is not None])
        area.append(average_precision(*curves[0], "area"))
    if not eleven:
        return {}
    table = np.array(eleven)
    return {
        "voc07_AP": float(table.mean()),
        "voc07_AP50": float(table[:, 0].mean()),
        "voc07_AP75": float(table[:, 5].mean()),
        "voc12_AP50": float(np.mean(area)),
    }


def precision_recall(
    scenes: Scenes, predictions: Sequence[Detections], label: int, threshold: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Precision and recall after each detection of a class, best score first; None without an object to find."""
    positives = 0
    rows: list[tuple[float, int, NDArray[np.float32]]] = []
    for number, (scene, detections) in enumerate(zip(scenes.scenes, predictions, strict=True)):
        positives += int(((scene.labels == label) & ~scene.difficult & ~scene.crowd).sum())
        chosen = detections.labels == label
        rows += [(float(s), number, b) for s, b in zip(detections.scores[chosen], detections.boxes[chosen])]
    if not positives:
        return None
    rows.sort(key=lambda row: -row[0])
    taken: set[tuple[int, int]] = set()
    hit, wrong = np.zeros(len(rows)), np.zeros(len(rows))
    for place, (_, number, box) in enumerate(rows):
        scene = scenes.scenes[number]
        own = np.flatnonzero(scene.labels == label)
        overlaps = overlap(box, scene.boxes[own])
        best = int(overlaps.argmax()) if len(own) else -1
        if best < 0 or overlaps[best] < threshold:
            wrong[place] = 1
        elif scene.difficult[own[best]] or scene.crowd[own[best]]:
            continue
        elif (number, best) in taken:
            wrong[place] = 1
        else:
            hit[place] = 1
            taken.add((number, best))
    hits, misses = hit.cumsum(), wrong.cumsum()
    return hits / np.maximum(hits + misses, np.finfo(np.float64).eps), hits / positives


def overlap(box: NDArray[np.floating[Any]], others: NDArray[np.float32]) -> NDArray[np.float64]:
    """Intersection over union of one box with (n, 4).

    The devkit counts whole pixels, x2 − x1 + 1 of inclusive corners; those are x2 − x1 in the corner coordinates here.
    """
    others = others.astype(np.float64)
    corner = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    common = np.maximum(corner, 0).prod(1)
    own = float((box[2:] - box[:2]).prod())
    return common / np.maximum(own + (others[:, 2:] - others[:, :2]).prod(1) - common, 1e-12)


def average_precision(precision: NDArray[np.float64], recall: NDArray[np.float64], rule: Rule) -> float:
    """11-point: mean over recall 0, .1, ..., 1 of the best precision from there on.  area: under the envelope."""
    if rule == "11-point":
        levels = np.arange(0, 11) / 10
        best = [precision[recall >= level].max() if (recall >= level).any() else 0.0 for level in levels]
        return float(np.mean(best))
    envelope = np.maximum.accumulate(np.append(precision, 0.0)[::-1])[::-1]
    steps = np.diff(np.concatenate([[0.0], recall]))
    return float((steps * envelope[:-1]).sum())
