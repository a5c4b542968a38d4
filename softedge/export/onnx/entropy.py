"""Ranges by entropy: those whose 8-bit distribution differs least from the float one, as in TensorRT's calibration.

Migacz 2017, 8-bit inference with TensorRT (GTC): of the ranges that clip a histogram, the one whose quantized
distribution Q is nearest to the clipped P by KL(P || Q).  Here for two ends, since activations have an offset.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEVELS = 256
SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)  # of each end that are tried


def least_divergence(counts: NDArray[np.int64], low: float, high: float) -> tuple[float, float]:
    """The (low, high) of least divergence for a histogram (B,) over [low, high]; 0 stays inside."""
    best, chosen = np.inf, (low, high)
    if not high > low:  # one value everywhere, as behind a dead ReLU
        return chosen
    counts = without_zeros(counts, low, high)
    for a in SHARES if low < 0 else (1.0,):
        for b in SHARES if high > 0 else (1.0,):
            ends = (low * a if low < 0 else low), (high * b if high > 0 else high)
            value = divergence(counts, low, high, *ends)
            if value < best:
                best, chosen = value, ends
    return chosen


def without_zeros(counts: NDArray[np.int64], low: float, high: float) -> NDArray[np.int64]:
    """A histogram (B,) over [low, high] with as much in the bin of 0 as in the fuller of its neighbours, at most.

    Most of what a ReLU gives are zeros, which every range holds exactly. Spread over the level around them they would
    count as the worst error of all, and the narrowest range would win.
    """
    zero = int(np.clip((0.0 - low) * len(counts) / (high - low), 0, len(counts) - 1))
    beside = counts[max(zero - 1, 0) : zero + 2].copy()
    beside[min(zero, 1)] = 0
    if not low <= 0 <= high or not beside.any():
        return counts
    counts = counts.copy()
    counts[zero] = min(counts[zero], beside.max())
    return counts


def divergence(counts: NDArray[np.int64], low: float, high: float, start: float, end: float) -> float:
    """KL(P || Q) in nats when [start, end] of a histogram (B,) over [low, high] is kept, infinite when nothing is.

    P: the bins inside, what is clipped added to the first and the last.  Q: the bins inside, averaged over those that
    hold anything within each of the 256 levels; by that it lacks what was clipped.
    """
    width = (high - low) / len(counts)
    first = int(np.clip(round((start - low) / width), 0, len(counts) - 1))
    last = int(np.clip(round((end - low) / width), first + 1, len(counts)))
    inside = counts[first:last].astype(np.float64)
    clipped = inside.copy()
    clipped[0] += counts[:first].sum()
    clipped[-1] += counts[last:].sum()
    level = np.arange(len(inside)) * LEVELS // max(len(inside), LEVELS)
    held = inside > 0
    total = np.bincount(level, inside)
    number = np.maximum(np.bincount(level, held), 1)
    spread = np.where(held, (total / number)[level], 0.0)
    if not inside.sum():
        return np.inf
    p, q = clipped / clipped.sum(), spread / spread.sum()
    known = p > 0
    # A bin that holds clipped values alone has no share in Q: as if it had a ten-thousandth of P's.
    return float((p[known] * np.log(p[known] / np.maximum(q[known], 1e-4 * p[known]))).sum())
