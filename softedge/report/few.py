"""What few test images can show."""

from __future__ import annotations

import math

from softedge.report import words

FEW_IMAGES = 200


def interval(fraction: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a measured fraction (Wilson 1927)."""
    z = 1.96
    centre = (fraction + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(fraction * (1 - fraction) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def known_to(fraction: float, n: int) -> str:
    """Half the width of that interval in points, without a sign: ``5.2``."""
    low, high = interval(fraction, n)
    return words.points((high - low) / 2).lstrip("+")


def clearly_above(higher: float, lower: float, n: int) -> bool:
    """Whether two accuracies on the same n images differ by more than noise.

    Which images each got right is not known here: the 95 % interval of two independent samples (Newcombe 1998) has to
    exclude zero, and so has a sign test in the clearest case, where the worse was right on no image alone.
    """
    (low, _), (_, high) = interval(higher, n), interval(lower, n)
    apart = higher - lower > math.hypot(higher - low, high - lower)
    return apart and 2 * 0.5 ** round((higher - lower) * n) < 0.05
