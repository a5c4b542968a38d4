"""One picture under several names: whether the objects that the names are annotated with agree."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from softedge.detection.scenes import Scene

_SAME = 0.5  # intersection over union of two boxes around one object, as AP50 has it


def difference(first: Scene, second: Scene, classes: Sequence[str]) -> str:
    """What two annotations of one picture say differently, by the pictures' names; "" where they agree.

    They agree when each object of one has its own in the other, of its class and with boxes that mostly overlap: two
    people do not draw the same pixels.
    """
    kinds = [Counter(classes[label] for label in scene.labels.tolist()) for scene in (first, second)]
    if kinds[0] != kinds[1]:
        counted = [", ".join(f"{n} {name}" for name, n in sorted(kind.items())) or "no object" for kind in kinds]
    elif all(
        _paired(first.boxes[first.labels == label], second.boxes[second.labels == label])
        for label in set(first.labels.tolist())
    ):
        return ""
    else:
        counted = [", ".join(f"{n} {name}" for name, n in sorted(kinds[0].items())), "the same in other places"]
    return f"{first.path.name}: {counted[0]}; {second.path.name}: {counted[1]}"


def _paired(first: NDArray[np.float32], second: NDArray[np.float32]) -> bool:
    """Whether each of the boxes (n, 4) overlaps one of its own among as many others; the best pairs come first."""
    overlaps = _overlaps(first, second)
    for _ in range(len(first)):
        row, column = np.unravel_index(overlaps.argmax(), overlaps.shape)
        if overlaps[row, column] < _SAME:
            return False
        overlaps[row, :], overlaps[:, column] = -1, -1
    return True


def _overlaps(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """Intersection over union (n, m); 1 for equal boxes without area."""
    a, b = first[:, None].astype(np.float64), second[None].astype(np.float64)
    inside = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None).prod(-1)
    areas = [np.clip(box[..., 2:] - box[..., :2], 0, None).prod(-1) for box in (a, b)]
    union = areas[0] + areas[1] - inside
    shared = np.divide(inside, union, out=np.zeros_like(inside), where=union > 0)
    return np.maximum(shared, (a == b).all(-1))


def groups(contents: Sequence[str]) -> list[list[int]]:
    """The positions of each content that stands there more than once; "" is none."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, content in enumerate(contents):
        if content:
            places[content].append(place)
    return [group for group in places.values() if len(group) > 1]
