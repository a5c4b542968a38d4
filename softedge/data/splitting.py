"""Which images are tested on: decided by the content of the files, before any training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from softedge.errors import UserError


def hold_out(
    hashes: Sequence[str], labels: Sequence[int], classes: Sequence[str], fraction: float, seed: int
) -> NDArray[np.bool_]:
    """Choose the test images of each class: True (N,) where an image is held out.

    Within a class the images are ranked by sha256(seed + content) and the first ``round(fraction * n)`` are held out,
    at least one and never all. The choice does not depend on names or order, and an added image moves at most one other
    across the line. UserError when a class has too few images to split.
    """
    held = np.zeros(len(hashes), bool)
    keys = [hashlib.sha256(f"{seed}:{content}".encode()).digest() for content in hashes]
    of_class: dict[int, list[int]] = {number: [] for number in range(len(classes))}
    for index, label in enumerate(labels):
        of_class[label].append(index)
    for number, members in of_class.items():
        if len(members) < 2:
            raise UserError(
                f"class '{classes[number]}' has {len(members)} readable images, too few to train on one and test on"
                " another; add images, remove the class, or give a test/ folder"
            )
        chosen = min(max(1, round(fraction * len(members))), len(members) - 1)
        ranked = sorted(members, key=lambda index: keys[index])
        held[ranked[:chosen]] = True
    return held


def leaks(hashes: Sequence[str], tested: set[str]) -> NDArray[np.bool_]:
    """True (N,) where a training image has the same bytes as a test image."""
    return np.array([content in tested for content in hashes], bool)
