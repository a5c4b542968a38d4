"""Whether the boxes of a COCO file are what the format says: left, top, width, height.

Corners or centres in their place are the usual mistake of a program that converts annotations, and most of such boxes
lie within the picture.  The masks and the areas of the same file tell.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from softedge.detection.notices import Notices
from softedge.detection.scenes import Segmentation
from softedge.errors import UserError

_FITS = 0.75  # intersection over union of a box and what its mask covers
_EQUAL = 0.01  # of an area
_MOST = 0.9  # share of the objects that must agree
_READINGS = {
    "left, top, right, bottom": lambda a, b, c, d: (a, b, c - a, d - b),
    "top, left, height, width": lambda a, b, c, d: (b, a, d, c),
    "centre, width, height": lambda a, b, c, d: (a - c / 2, b - d / 2, c, d),
}


def compare(path: Path, objects: Iterable[tuple[Mapping[str, Any], Segmentation]], notices: Notices) -> None:
    """A notice for boxes that do not surround their masks; UserError where nearly all boxes contradict their masks, or
    without masks their areas, and do not when they are read in another way."""
    votes: Counter[str] = Counter()
    apart: list[str] = []
    count = 0
    for annotation, mask in objects:
        box = tuple(map(float, annotation["bbox"]))
        covered, area = _extent(mask), annotation.get("area")
        if min(box[2:]) <= 0 or (covered is not None and min(covered[2:]) <= 0):
            continue  # without area: told where boxes are looked at
        if covered is not None:
            count += 1
            if _overlap(box, covered) < _FITS:
                apart.append(f"object {annotation.get('id')}")
                votes.update(name for name, read in _READINGS.items() if _overlap(read(*box), covered) >= _FITS)
        elif isinstance(area, int | float) and area > 0 and mask is None:
            count += 1
            a, b, c, d = box
            if not math.isclose(c * d, area, rel_tol=_EQUAL):
                votes.update(["left, top, right, bottom"] * math.isclose((c - a) * (d - b), area, rel_tol=_EQUAL))
    for name, agree in votes.most_common(1):
        if agree >= _MOST * count:
            raise UserError(
                f"{path}: the boxes of {agree} of {count} objects are {name}, as their masks or areas show; COCO has "
                "left, top, width, height: write them so"
            )
    for name in apart:
        notices.add("boxes are not those around their masks: both are used as they are", name)


def _extent(mask: Segmentation) -> tuple[float, ...] | None:
    """Left, top, width and height of polygons; None for anything else."""
    if not isinstance(mask, list):
        return None
    points = np.concatenate([np.asarray(polygon, float).reshape(-1, 2) for polygon in mask])
    return (*points.min(0).tolist(), *np.ptp(points, 0).tolist())


def _overlap(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """Intersection over union of two boxes as left, top, width, height."""
    sides = [
        max(0.0, min(first[i] + first[i + 2], second[i] + second[i + 2]) - max(first[i], second[i])) for i in (0, 1)
    ]
    inside = sides[0] * sides[1]
    union = max(0.0, first[2]) * max(0.0, first[3]) + second[2] * second[3] - inside
    return inside / union if union > 0 else 0.0
