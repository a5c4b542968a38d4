"""Which images to label next: typical ones first, then those that a classifier is unsure of.

Hacohen, Dekel & Weinshall 2022, "Active learning on a budget: opposite strategies suit high and low budgets", arXiv
2202.02794 (TypiClust); sizes of clusters and neighbourhoods are those of the released code.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from softedge.eval import linear
from softedge.eval.measures import unit

REASONS = {
    "typical": "the most typical images of groups without a label",
    "uncertain": "different ones that a classifier on the labels so far is unsure of",
}
# Labels a class, on average, from which uncertain images teach more than typical ones: benchmarks/results/review.md
ENOUGH = 10
_WEIGHT_DECAYS = (1e-4, 1e-3, 1e-2)

MOST_CLUSTERS = 500
NEIGHBOURS = 20
_CHUNK = 2048
_PREFILTER = 10
_SMALLEST = 5  # images; smaller clusters are outliers, asked about last


def clustered(
    points: NDArray[np.float32], count: int, seed: int, weight: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """The cluster (N,) of every point by k-means, in mini-batches where there are many clusters.  weight: (N,)."""
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    kind = KMeans(count, n_init=1, random_state=seed)
    if count > 50:
        kind = MiniBatchKMeans(count, batch_size=5000, n_init=3, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters: some stay empty
        return np.asarray(kind.fit_predict(points, sample_weight=weight), np.int64)


def typicality(points: NDArray[np.float32]) -> NDArray[np.float64]:
    """1 / mean distance to the nearest points, (N,): 20 of them, or half of a small cluster.  points: unit length."""
    neighbours = max(1, min(NEIGHBOURS, len(points) // 2))
    if len(points) < 2:
        return np.ones(len(points))
    mean = np.empty(len(points))
    for start in range(0, len(points), _CHUNK):
        rows = points[start : start + _CHUNK]
        squared = np.maximum(2 - 2 * (rows @ points.T), 0)
        squared[np.arange(len(rows)), start + np.arange(len(rows))] = np.inf  # a point is not its own neighbour
        mean[start : start + len(rows)] = np.sqrt(np.partition(squared, neighbours - 1, axis=1)[:, :neighbours]).mean(1)
    return 1 / (mean + 1e-5)


def typical(
    features: NDArray[np.float32], labelled: NDArray[np.bool_], number: int, seed: int = 0
) -> NDArray[np.int64]:
    """``number`` unlabelled images in the order to label them: the most typical ones of clusters without a label.

    As many clusters as there are labels with those asked for; those with the fewest labels first, and among them the
    largest.  features: (N, D).  labelled: (N,).
    """
    points = unit(features)
    number = min(number, int((~labelled).sum()))
    clusters = clustered(points, max(1, min(number + int(labelled.sum()), MOST_CLUSTERS, len(points))), seed)
    size = np.bincount(clusters)
    labels = np.bincount(clusters[labelled], minlength=len(size))
    queues = {}
    for cluster in np.flatnonzero(size):
        members = np.flatnonzero(clusters == cluster)
        order = members[np.argsort(-typicality(points[members]), kind="stable")]
        queues[int(cluster)] = [int(i) for i in order if not labelled[i]]
    chosen: list[int] = []
    while len(chosen) < number:
        left = [cluster for cluster, queue in queues.items() if queue]
        best = min(left, key=lambda c: (size[c] < _SMALLEST, labels[c], -size[c], c))
        chosen.append(queues[best].pop(0))
        labels[best] += 1
    return np.array(chosen, np.int64)


def margins(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest minus second largest probability, (N,): small where a classifier is unsure.  probabilities: (N, C)."""
    two = np.partition(probabilities, -2, axis=1)[:, -2:]
    return np.asarray(two[:, 1] - two[:, 0])


def uncertain(
    features: NDArray[np.float32],
    probabilities: NDArray[np.float64],
    labelled: NDArray[np.bool_],
    number: int,
    seed: int = 0,
) -> NDArray[np.int64]:
    """``number`` unlabelled images that a classifier is unsure of and that differ, the least sure first.

    Zhdanov 2019, arXiv 1901.05954: of the ten times as many with the smallest margins, those nearest to the centres of
    ``number`` clusters, in which uncertain images weigh more.  features: (N, D).  probabilities: (N, C).
    """
    unsure, open_ = 1 - margins(probabilities), np.flatnonzero(~labelled)
    rows = open_[np.argsort(-unsure[open_], kind="stable")[: _PREFILTER * number]]
    if len(rows) <= number:
        return rows
    points, weight = unit(features)[rows], np.maximum(unsure[rows], 1e-6)
    clusters = clustered(points, min(number, MOST_CLUSTERS), seed, weight)
    turn = np.empty(len(rows), np.int64)  # the nearest of each cluster first, then the second nearest of each
    for cluster in np.unique(clusters):
        members = np.flatnonzero(clusters == cluster)
        centre = np.average(points[members], axis=0, weights=weight[members])
        turn[members] = np.argsort(np.argsort(np.linalg.norm(points[members] - centre, axis=1), kind="stable"))
    chosen = rows[np.lexsort((-unsure[rows], turn))[:number]]
    return chosen[np.argsort(-unsure[chosen], kind="stable")]


def order(
    features: NDArray[np.float32], labels: NDArray[np.int64], n_classes: int, number: int, seed: int = 0
) -> tuple[NDArray[np.int64], str, NDArray[np.int64]]:
    """Up to ``number`` unlabelled images to label next, why (a key of ``REASONS``), and the classes guessed for them.

    features: (N, D).  labels: (N,), negative where there is none.  Guesses are negative where fewer than two classes
    have labels.
    """
    labelled = labels >= 0
    probabilities = None
    if len(np.unique(labels[labelled])) > 1:
        layer = linear.fit(features[labelled], labels[labelled], n_classes, _WEIGHT_DECAYS, seed)
        logits = layer(features).astype(np.float64)
        probabilities = np.exp(logits - logits.max(1, keepdims=True))
        probabilities /= probabilities.sum(1, keepdims=True)
    if probabilities is None or labelled.sum() < ENOUGH * n_classes:
        rows, why = typical(features, labelled, number, seed), "typical"
    else:
        rows, why = uncertain(features, probabilities, labelled, number, seed), "uncertain"
    guesses = np.full(len(rows), -1) if probabilities is None else probabilities[rows].argmax(1)
    return rows, why, guesses
