"""What the doctor chooses on: unlabelled images apart from calibration and test, and how sure such a choice is."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from softedge.config import Check
from softedge.eval.measures import Float32

CHOSEN = 768  # images to choose on, at most
POOL = 3  # candidates for each of them
SURE = 1.28  # standard errors below a measured agreement: nine times in ten the test images agree at least as often


def margins(fp32: Float32) -> NDArray[np.float64]:
    """Distance (N,) between the logits of the best and the second best class, from probabilities (N, C)."""
    if fp32.shape[1] < 2:
        return np.zeros(len(fp32))
    best = np.partition(fp32.astype(np.float64), -2, axis=1)[:, -2:]
    return np.diff(np.log(np.maximum(best, 1e-12)), axis=1)[:, 0]


def alike(pool: Float32, test: Float32, count: int) -> NDArray[np.int64]:
    """Indices, ascending, of ``count`` images of the pool that fp32 finds as hard as the test images.

    pool, test: probabilities of fp32.  A network is surer of images that it was trained on: chosen blindly among those,
    a file would agree more often than on images it has never seen.  So every quantile of the test images' margins gets
    the free image with the nearest margin.  Of the test images only fp32's margins are used, no label, no int8 answer.
    """
    have = margins(pool)
    order = np.argsort(have, kind="stable")
    sorted_margins, free = have[order], np.ones(len(order), bool)
    wanted = np.quantile(margins(test), (np.arange(count) + 0.5) / count)
    for target in np.random.default_rng(0).permutation(wanted):  # in random order, so that no end gets the leftovers
        gaps = np.where(free, np.abs(sorted_margins - target), np.inf)
        free[int(gaps.argmin())] = False
    return np.sort(order[~free])


def doubts(measures: Mapping[str, float | int], gates: Check, n_test: int) -> list[str]:
    """Why agreement on the selection images does not promise that of ``n_test`` test images; empty when it does.

        a - z sqrt(g (1 - g) (1/n + 1/n_test)) >= g,   a: agreement on n images, g: the gate

    Both samples are finite, so both widen the margin (normal approximation at the gate).
    """
    if "agreement" not in measures:
        return []
    gate, n = gates.min_agreement, int(measures["n"])
    margin = SURE * math.sqrt(gate * (1 - gate) * (1 / n + 1 / max(n_test, 1)))
    lower = float(measures["agreement"]) - margin
    if lower >= gate:
        return []
    return [
        f"agreement {measures['agreement']:.3f} on {n} images apart, less {margin:.3f} for chance, is below {gate:g}"
    ]
