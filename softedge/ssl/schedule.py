"""Schedules as functions of progress, the share of training that is done: resuming needs nothing but the step."""

from __future__ import annotations

import math


def learning_rate(progress: float, warmup: float) -> float:
    """Factor on the learning rate: linear from 0 over the share ``warmup`` of training, then a cosine to 0."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / max(1 - warmup, 1e-12)))


def cosine(start: float, end: float, progress: float) -> float:
    """From ``start`` to ``end`` along half a cosine.

    BYOL's momentum (Grill et al. 2020, arXiv 2006.07733, section 3.2) is ``cosine(m, 1, progress)``;
    SoftNCE's incremental smoothing (arXiv 2212.07158, III.B.3) is ``cosine(1, bound, progress)``.
    """
    return end - (end - start) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
