"""The fast linear probe: logistic regression on cached features, its weight decay chosen without test data."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SMALL = 10_000_000  # numbers below which further BLAS threads only wait for each other (measured: 7 s became 49 s)
_MANY = 5000  # above it one held-out fifth chooses the weight decay, below it 3-fold cross-validation does


@dataclass(frozen=True)
class Linear:
    """weight float32 (classes, D) and bias (classes,) that act on raw features."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    weight_decay: float
    validation_top1: float | None = None  # on the held-out parts that chose the weight decay

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (N, classes) of features (N, D)."""
        return features @ self.weight.T + self.bias


def fit(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    n_classes: int,
    weight_decays: Sequence[float],
    seed: int = 0,
) -> Linear:
    """Fit min_W 1/N Σ CE(W z_i, y_i) + λ/2 ‖W‖² on standardised features z, then fold the standardisation into W.

    λ is the best of ``weight_decays`` on held-out parts of the training set; the fit is then repeated on all of it.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1 if features.size < _SMALL else None):
        return _fit(features, labels, n_classes, weight_decays, seed)


def _fit(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    n_classes: int,
    weight_decays: Sequence[float],
    seed: int,
) -> Linear:
    standard, mean, std = _standardised(features)
    decay, held_out = weight_decays[0], None
    if len(weight_decays) > 1:
        decay, right = _choose(standard, labels, n_classes, weight_decays, seed)
        held_out = float(right.mean()) if len(right) else None
    weight, bias = _solve(standard, labels, n_classes, decay)
    weight = weight / std
    return Linear(weight.astype(np.float32), (bias - weight @ mean).astype(np.float32), decay, held_out)


def held_out_right(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    n_classes: int,
    weight_decays: Sequence[float],
    seed: int = 0,
) -> NDArray[np.bool_]:
    """Whether each image of the held-out parts that choose the weight decay is answered right, with the chosen one.

    In the order of the images: of all of them up to 5,000, of one fifth above; empty where nothing can be fitted. Which
    are asked depends on labels and seed alone, so that the answers on other features of the same images can be paired.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1 if features.size < _SMALL else None):
        return _choose(_standardised(features)[0], labels, n_classes, weight_decays, seed)[1]


def _standardised(features: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
    """Features with mean 0 and standard deviation 1, (N, D); the mean and the deviation, (D,)."""
    mean, std = features.mean(0), features.std(0)
    std = np.where(std > 1e-6 * max(1e-12, float(std.max(initial=0))), std, 1.0).astype(np.float32)
    return ((features - mean) / std).astype(np.float32), mean, std


def _solve(
    standard: NDArray[np.float32], labels: NDArray[np.int64], n_classes: int, decay: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    # For two classes scikit-learn fits one row w that stands for (-w/2, w/2), and penalises it twice as much.
    rows_per_weight = 2.0 if len(np.unique(labels)) == 2 else 1.0
    model = LogisticRegression(C=rows_per_weight / (decay * len(labels)), max_iter=200, tol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a probe stopped after 200 steps is still a probe
        model.fit(standard, labels)
    weight = np.zeros((n_classes, standard.shape[1]))
    bias = np.full(n_classes, -1e4)  # a class without a single training image is never predicted
    if len(model.classes_) == 2:  # scikit-learn keeps one row for two classes
        weight[model.classes_] = np.concatenate([-model.coef_, model.coef_]) / 2
        bias[model.classes_] = np.concatenate([-model.intercept_, model.intercept_]) / 2
    else:
        weight[model.classes_], bias[model.classes_] = model.coef_, model.intercept_
    return weight, bias


def _choose(
    standard: NDArray[np.float32],
    labels: NDArray[np.int64],
    n_classes: int,
    weight_decays: Sequence[float],
    seed: int,
) -> tuple[float, NDArray[np.bool_]]:
    """The weight decay with the best held-out log likelihood, steadier than accuracy on a handful of images; and which
    of the held-out images, in their order, are answered right with it."""
    rng = np.random.default_rng(seed)
    folds = np.empty(len(labels), np.int64)
    count = 5 if len(labels) > _MANY else 3
    for label in np.unique(labels):  # stratified
        members = rng.permutation(np.flatnonzero(labels == label))
        folds[members] = (np.arange(len(members)) + rng.integers(count)) % count
    scores, asked = dict.fromkeys(weight_decays, 0.0), np.zeros(len(labels), bool)
    right = {decay: np.zeros(len(labels), bool) for decay in weight_decays}
    for fold in range(1 if len(labels) > _MANY else count):
        held = folds == fold
        if not held.any() or len(np.unique(labels[~held])) < 2:
            continue
        asked |= held
        for decay in weight_decays:
            weight, bias = _solve(standard[~held], labels[~held], n_classes, decay)
            logits = standard[held] @ weight.T + bias
            right[decay][held] = logits.argmax(1) == labels[held]
            logits -= logits.max(1, keepdims=True)
            log_likelihood = logits[np.arange(held.sum()), labels[held]] - np.log(np.exp(logits).sum(1))
            scores[decay] += float(np.maximum(log_likelihood, -20).sum())
    best = max(scores, key=lambda decay: scores[decay])
    return best, right[best][asked]


def pick_per_class(labels: NDArray[np.int64], per_class: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Indices of ``per_class`` random examples of each class (all of a class that has fewer), sorted."""
    chosen = [rng.permutation(np.flatnonzero(labels == label))[:per_class] for label in np.unique(labels[labels >= 0])]
    return np.sort(np.concatenate(chosen))


def pick_fraction(labels: NDArray[np.int64], fraction: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Indices of a stratified fraction of the labels, at least one per class, sorted."""
    if fraction >= 1:
        return np.arange(len(labels))
    chosen = []
    for label in np.unique(labels[labels >= 0]):
        members = rng.permutation(np.flatnonzero(labels == label))
        chosen.append(members[: max(1, round(fraction * len(members)))])
    return np.sort(np.concatenate(chosen))
