"""Label spreading: from a few labelled images to soft labels for all, over the neighbours of their frozen features.

    F = (I - a S)^-1 Y,   S = D^-1/2 W D^-1/2

Zhou et al. 2004, "Learning with local and global consistency", with the sparse graph W of Iscen et al. 2019, arXiv
1904.04717, eq. (9): w_ij = max(0, cos(z_i, z_j))^3 between an image and its nearest ones, made symmetric.

What images are made of (``ssl.vocabulary``) may stand beside the features; how much it counts is found by the labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from softedge.eval.knn import nearest
from softedge.eval.measures import unit

if TYPE_CHECKING:
    from scipy.sparse import csr_array

NEIGHBOURS = 8
ALPHA = 0.9  # 8 to 15 neighbours and 0.9 to 0.97 were tried: benchmarks/results/few-labels.md
POWERS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
COMPONENTS = 256
WHITENING = 0.25  # 0 to 0.4, and 128 to 1,024 components were tried there, too
WORDS = (0.0, 0.5, 1.0)  # of the length of the features, that descriptions have beside them
_TEMPERATURE = 9.0  # of the likelihoods that weigh these graphs; 1 to infinity were tried there, too
_FITTED = 5000  # images from which the components are found
LEAST = 1e-6  # of a probability: who is certain and wrong can be outvoted
_LEAST_VALUE = 1e-4  # of the largest singular value: smaller ones are rounding errors
_POWER = 3
_CHUNK = 4096


@dataclass(frozen=True)
class Spreading:
    """Answers of the graph to the labels of ``rows``: column j of ``reach`` is how far label j reaches every image.

    reach: float64 (N, L).  rows: the L labelled images.  labels: theirs.
    """

    reach: NDArray[np.float64]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    n_classes: int

    def __call__(self, use: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """Class probabilities (N, C) from the labels where ``use`` (L,) is true, all by default.

        Every class weighs the same, however many labels it has.  An image that no label reaches gets the same for all
        classes.
        """
        use = np.ones(len(self.rows), bool) if use is None else use
        ones = np.eye(self.n_classes)[self.labels] * use[:, None]
        scores = self.reach @ (ones / np.maximum(ones.sum(0), 1))
        total = scores.sum(1, keepdims=True)
        return np.where(total > 0, scores / np.maximum(total, 1e-300), 1 / self.n_classes)

    def held_out(self, folds: NDArray[np.int64]) -> NDArray[np.float64]:
        """Class probabilities (L, C) for the labelled images, each from the labels of the other folds."""
        held = np.empty((len(self.rows), self.n_classes))
        for fold in np.unique(folds):
            held[folds == fold] = self(folds != fold)[self.rows[folds == fold]]
        return held

    def sharpness(self, folds: NDArray[np.int64]) -> float:
        """The power of the probabilities that is most likely on labelled images, each answered by the other folds."""
        held = self.held_out(folds)
        return max(POWERS, key=lambda power: likelihood(raised(held, power), self.labels))

    def cross_validated(self, folds: NDArray[np.int64]) -> NDArray[np.int64]:
        """Answers (L,) for the labelled images, each from the labels of the other folds."""
        return self.held_out(folds).argmax(1)


@dataclass(frozen=True)
class Mixed:
    """What several graphs answer together.

    probabilities: (N, C), of all images.  held: (L, C), of the labelled ``rows``, each from the labels of the other
    folds.  labels: (L,), theirs.  weights: of the graphs.
    """

    probabilities: NDArray[np.float64]
    held: NDArray[np.float64]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    weights: tuple[float, ...]

    @property
    def top1(self) -> float:
        """Accuracy, cross-validated over the labelled images."""
        return float((self.held.argmax(1) == self.labels).mean())


def mixed(graphs: Iterable[Spreading], folds: NDArray[np.int64]) -> Mixed:
    """Sharpened answers of graphs with the same labels, their logarithms weighed by the likelihood of held-out labels.

    A graph whose L labels have the log-likelihood l weighs exp(l / ``_TEMPERATURE``): to choose one graph by few
    labels is a matter of chance, and the plain mean keeps those that only disturb.
    """
    held, every, logs = [], [], []
    for graph in graphs:
        rows, labels, power = graph.rows, graph.labels, graph.sharpness(folds)
        held.append(raised(graph.held_out(folds), power))
        every.append(raised(graph(), power))
        logs.append(len(labels) * likelihood(held[-1], labels))
    weights = np.exp((np.array(logs) - max(logs)) / _TEMPERATURE)
    weights /= weights.sum()
    return Mixed(_mean(every, weights), _mean(held, weights), rows, labels, tuple(weights.tolist()))


def _mean(answers: Sequence[NDArray[np.float64]], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weighted geometric mean of probabilities (N, C), normalised."""
    logs = sum(weight * np.log(np.maximum(one, LEAST)) for weight, one in zip(weights, answers))
    return raised(np.exp(logs), 1.0)


def spread_over(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    n_classes: int,
    folds: NDArray[np.int64],
    words: NDArray[np.float32] | None = None,
) -> Mixed:
    """Let the labels reach all images over whitened features, and over these and ``words`` side by side.

    features: (N, D).  labels: (N,), negative where there is none.  folds: (L,), of the labelled images in their order.
    words: (N, W), descriptions of unit length.
    """
    own = whitened(features)
    if words is None:
        return mixed([spread(own, labels, n_classes)], folds)
    own = unit(own)
    graphs = (np.concatenate([own, weight * words], axis=1) if weight else own for weight in WORDS)
    return mixed((spread(graph, labels, n_classes) for graph in graphs), folds)


def raised(probabilities: NDArray[np.floating], power: float) -> NDArray[np.float64]:
    """Probabilities (N, C) to a power, normalised again."""
    powers = np.maximum(probabilities, LEAST).astype(np.float64) ** power
    return np.asarray(powers / powers.sum(1, keepdims=True))


def likelihood(probabilities: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Mean log-likelihood of ``labels`` (N,) under ``probabilities`` (N, C)."""
    return float(np.log(np.maximum(probabilities[np.arange(len(labels)), labels], LEAST)).mean())


def whitened(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features (N, D) centred, on their first ``COMPONENTS`` principal components (N, K), partly whitened.

    A component of singular value s is divided by s^``WHITENING``: what many images share counts for less.  For
    the neighbours of the graph; a linear layer learns such weights itself.
    """
    from sklearn.utils.extmath import randomized_svd

    some = np.random.default_rng(0).permutation(len(features))[:_FITTED]
    mean = features[some].mean(0)
    wanted = min(COMPONENTS, len(some) - 1, features.shape[1])
    if wanted < 1:
        return features
    _, values, axes = randomized_svd(features[some] - mean, wanted, random_state=0)
    kept = values > _LEAST_VALUE * values[0]
    if not kept.any():  # all images look alike
        return features
    return np.asarray((features - mean) @ (axes[kept].T / values[kept] ** WHITENING), np.float32)


def spread(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    n_classes: int,
    neighbours: int = NEIGHBOURS,
    alpha: float = ALPHA,
) -> Spreading:
    """Let the labels reach all images.  features: (N, D).  labels: (N,), negative where there is none."""
    import scipy.sparse
    from scipy.sparse.linalg import cg

    rows = np.flatnonzero(labels >= 0)
    graph = normalised(features, min(neighbours, len(features) - 1))
    system: Any = scipy.sparse.eye_array(len(features), format="csr") - alpha * graph
    reach = np.empty((len(features), len(rows)))
    for column, row in enumerate(rows):
        start = np.zeros(len(features))
        start[row] = 1.0
        reach[:, column] = np.maximum(cg(system, start, rtol=1e-6)[0], 0.0)
    return Spreading(reach, rows, labels[rows], n_classes)


def normalised(features: NDArray[np.float32], neighbours: int) -> csr_array:
    """S (N, N), sparse and symmetric, with a zero diagonal."""
    import scipy.sparse

    unit = torch.nn.functional.normalize(torch.from_numpy(np.ascontiguousarray(features)), dim=1)
    weights, columns = [], []
    for start in range(0, len(unit), _CHUNK):
        rows = unit[start : start + _CHUNK]
        similarity, near = nearest(rows, unit, neighbours + 1, _CHUNK)
        own = near == torch.arange(start, start + len(rows))[:, None]
        # Of an image with many copies its own row may be missing: the farthest neighbour goes then.
        own[~own.any(1), -1] = True
        weights.append(similarity[~own].view(len(rows), neighbours).clamp(min=0).pow(_POWER))
        columns.append(near[~own].view(len(rows), neighbours))
    count = len(unit)
    pointers = np.arange(count + 1) * neighbours
    values, indices = torch.cat(weights).double().numpy().ravel(), torch.cat(columns).numpy().ravel()
    graph = scipy.sparse.csr_array((values, indices, pointers), shape=(count, count))
    graph = graph.maximum(graph.T)
    degree = np.asarray(graph.sum(1)).ravel()
    scale = scipy.sparse.diags_array(1 / np.sqrt(np.maximum(degree, 1e-12)))
    return scipy.sparse.csr_array(scale @ graph @ scale)
