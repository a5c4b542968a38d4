"""Few labels: what they reach over neighbouring features, and a linear layer on the same, as much of each as fits.

With ten labels a class the linear layer only disturbs, with 25 both together are better than either: the weight that
makes the labels of held-out folds most likely follows that (benchmarks/results/few-labels.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softedge.eval import linear
from softedge.eval.features import softmax
from softedge.eval.spreading import LEAST, likelihood, spread_over

WEIGHTS = (1.0, 0.75, 0.5)  # of what spreads; the linear layer has the rest

Probabilities = NDArray[np.floating]


@dataclass(frozen=True)
class Answers:
    """probabilities: (N, C) for all images.  weight: of what spread.  top1: cross-validated over the labelled images,
    of both together and of each alone.  graphs: weights of those that it spread over (``spreading.WORDS``).
    """

    probabilities: Probabilities
    weight: float
    top1: float
    spread_top1: float
    linear_top1: float
    graphs: tuple[float, ...]


def answer(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    n_classes: int,
    folds: NDArray[np.int64],
    weight_decays: Sequence[float],
    seed: int = 0,
    words: NDArray[np.float32] | None = None,
) -> Answers:
    """Answers for all images from the labels of a few.

    features: (N, D).  labels: (N,), negative where there is none.  folds: (L,), of the labelled images in their order.
    weight_decays: of the linear layer, the best by cross-validation is taken.  words: (N, W), to spread over besides.
    """
    found = spread_over(features, labels, n_classes, folds, words)
    own, truth = features[found.rows], found.labels
    decays = weight_decays
    if len(np.unique(truth)) > 1:
        decays = (linear.fit(own, truth, n_classes, weight_decays, seed).weight_decay,)

    def layer(used: NDArray[np.bool_], asked: NDArray[np.float32]) -> Probabilities:
        if len(np.unique(truth[used])) < 2:
            return np.full((len(asked), n_classes), 1 / n_classes)
        return softmax(linear.fit(own[used], truth[used], n_classes, decays, seed)(asked))

    linear_held = np.empty((len(truth), n_classes))
    for fold in np.unique(folds):
        linear_held[folds == fold] = layer(folds != fold, own[folds == fold])
    weight = max(WEIGHTS, key=lambda one: likelihood(_mixed(found.held, linear_held, one), truth))

    def right(held: Probabilities) -> float:
        return float((held.argmax(1) == truth).mean())

    return Answers(
        _mixed(found.probabilities, layer(np.ones(len(truth), bool), features), weight),
        weight,
        right(_mixed(found.held, linear_held, weight)),
        found.top1,
        right(linear_held),
        found.weights,
    )


def _mixed(spread: Probabilities, layer: Probabilities, weight: float) -> Probabilities:
    """The weighted geometric mean, normalised."""
    product = np.maximum(spread, LEAST) ** weight * np.maximum(layer, LEAST) ** (1 - weight)
    return product / product.sum(1, keepdims=True)
