"""Likely wrong labels: confident learning on cross-validated class probabilities from frozen features.

Northcutt, Jiang & Chuang 2021, "Confident learning: estimating uncertainty in dataset labels", arXiv 1911.00068.

The features must not have seen the labels: a network that was trained on a wrong label has memorised it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from softedge.eval import linear
from softedge.eval.knn import knn_predict

FOLDS = 5
# Stronger ones than a probe needs: they keep a classifier from following single wrong labels.
WEIGHT_DECAYS = (1e-2, 3e-2, 1e-1, 3e-1)


def folds(families: Sequence[int], labels: NDArray[np.int64], seed: int, count: int = FOLDS) -> NDArray[np.int64]:
    """Fold (N,) of every image: classes spread evenly, the images of a family in one fold.

    families: (N,), the same number for copies and near-duplicates, which would vote for each other's wrong label.
    """
    rng = np.random.default_rng(seed)
    names, first, members = np.unique(np.asarray(families), return_index=True, return_inverse=True)
    fold, start = np.empty(len(names), np.int64), 0
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels[first] == label))
        fold[own] = (start + np.arange(len(own))) % count
        start += len(own)
    return fold[members]


def cross_validated(
    features: NDArray[np.float32], labels: NDArray[np.int64], n_classes: int, fold: NDArray[np.int64], seed: int = 0
) -> NDArray[np.float64]:
    """Class probabilities (N, C) of every image from the labels of the other folds.

    The mean of a linear classifier and of 20-NN, which err on different images: benchmarks/results/review.md.
    features: (N, D).  labels: (N,), none negative.  The weight decay is chosen once, by cross-validation on the given
    labels.
    """
    decay = linear.fit(features, labels, n_classes, WEIGHT_DECAYS, seed).weight_decay
    probabilities = np.empty((len(labels), n_classes))
    for number in np.unique(fold):
        held = fold == number
        logits = linear.fit(features[~held], labels[~held], n_classes, (decay,), seed)(features[held])
        exponentials = np.exp(logits - logits.max(1, keepdims=True))
        votes = knn_predict(features[~held], labels[~held], features[held], n_classes)
        probabilities[held] = (exponentials / exponentials.sum(1, keepdims=True) + votes) / 2
    return probabilities


def confident_joint(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts (C, C) of the images labelled i that are confidently of class j.

        j = argmax_{k: p_k(x) >= t_k} p_k(x),   t_k = mean of p_k over the images labelled k        (eq. 1 and 2)

    probabilities: (N, C), each row from a classifier that has not seen the image.
    """
    count = probabilities.shape[1]
    thresholds = np.full(count, np.inf)  # of classes without a label
    for label in np.unique(labels):
        thresholds[label] = probabilities[labels == label, label].mean()
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    sure = confident.max(1) >= 0
    joint = np.zeros((count, count), np.int64)
    np.add.at(joint, (labels[sure], confident[sure].argmax(1)), 1)
    return joint


def likely_wrong(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Images whose label is probably wrong, the worst first: "prune by class" (section 3.2).

    As many of each class as the joint, scaled to the labels of the class (eq. 3), counts as others: those with the
    lowest probability of their label. Of these, images that look most like their own class are left out.
    """
    joint, own = confident_joint(probabilities, labels), probabilities[np.arange(len(labels)), labels]
    rows: list[int] = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        counted = max(1, joint[label].sum())
        others = round(len(members) * (counted - joint[label, label]) / counted) if joint[label].any() else 0
        rows += members[np.argsort(own[members], kind="stable")[:others]].tolist()
    suspects = np.array(rows, np.int64)
    suspects = suspects[probabilities.argmax(1)[suspects] != labels[suspects]]
    return suspects[np.argsort(own[suspects], kind="stable")]
