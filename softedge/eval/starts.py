"""Whether pretraining on from starting weights paid: the features before and after it, on labelled training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from softedge.backbones import Backbone
from softedge.data.images import Images
from softedge.eval import linear
from softedge.eval.features import extract
from softedge.eval.validation import LEAST
from softedge.records import InputSpec

MOST = 10_000  # images that are used: the standard error of an accuracy is half a point then


@dataclass(frozen=True)
class Comparison:
    """before, after: top-1 of a linear layer on the features of ``n`` training images, each answered while held out."""

    before: float
    after: float
    n: int

    @property
    def paid(self) -> bool:
        return self.after > self.before


def compare(
    before: Backbone, after: Backbone, images: Images, spec: InputSpec, weight_decays: Sequence[float], seed: int
) -> Comparison | None:
    """The same images, folds and weight decays for both; None with fewer than ``LEAST`` images, or one class.

    images: with labels (N,), all of them >= 0.
    """
    kept = np.sort(np.random.default_rng(seed).permutation(len(images.every))[:MOST])
    some = images.subset(images.left(kept))
    if len(some) < LEAST or len(np.unique(some.labels)) < 2:
        return None
    classes = int(some.labels.max()) + 1
    first, second = (
        linear.held_out_top1(extract(backbone, some, spec), some.labels, classes, weight_decays, seed)
        for backbone in (before, after)
    )
    return None if first is None or second is None else Comparison(first, second, len(some))
