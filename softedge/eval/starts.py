"""Whether pretraining on from starting weights paid: the features before and after it, on labelled training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from softedge.backbones import Backbone
from softedge.data.images import Images
from softedge.eval import linear
from softedge.eval.bootstrap import Difference, paired
from softedge.eval.features import extract
from softedge.eval.validation import LEAST
from softedge.records import InputSpec

MOST = 5000  # images that are used, and all of them asked: the standard error of an accuracy is half a point then


@dataclass(frozen=True)
class Comparison:
    """before, after: top-1 of a linear layer on the features of ``n`` training images, each answered while held out.

    gain: after - before, with the interval of a paired bootstrap over these images.
    """

    before: float
    after: float
    gain: Difference
    n: int

    @property
    def paid(self) -> bool:
        """Whether the features are clearly better: the whole interval is above zero.

        Where chance could explain the difference, the starting weights are the ones known to be good.
        """
        return self.gain.low > 0


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
        linear.held_out_right(extract(backbone, some, spec), some.labels, classes, weight_decays, seed)
        for backbone in (before, after)
    )
    if not len(first):
        return None
    return Comparison(float(first.mean()), float(second.mean()), paired(second, first), len(first))
