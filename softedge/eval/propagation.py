"""Label propagation: a few labels spread over all images along a graph of similar features.

Zhou et al. 2003, "Learning with Local and Global Consistency": F = (I − α S)⁻¹ Y with the normalised affinities S of a
k-NN graph; here cosine similarities to the third power, as in Iscen et al. 2019 (arXiv 1904.04717).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def propagate(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    n_classes: int,
    *,
    neighbours: int = 10,
    alpha: float = 0.9,
    power: float = 3.0,
) -> NDArray[np.float32]:
    """Class probabilities (N, classes) of all images from the labels of a few (−1: unknown).

    features: (N, D).  Every class weighs the same, however many labels it has; labelled images keep theirs.  A row
    that no label reaches is uniform.
    """
    from scipy import sparse
    from scipy.sparse.linalg import cg

    count = len(features)
    known = np.flatnonzero(labels >= 0)
    start = np.zeros((count, n_classes))
    start[known, labels[known]] = 1
    start /= np.maximum(start.sum(0), 1)
    affinity = _graph(features, min(neighbours, count - 1), power)
    degrees = np.sqrt(np.maximum(np.asarray(affinity.sum(1)).ravel(), 1e-12))
    system = sparse.identity(count) - alpha * sparse.diags(1 / degrees) @ affinity @ sparse.diags(1 / degrees)
    spread = np.stack([cg(system, start[:, c], rtol=1e-6, maxiter=200)[0] for c in range(n_classes)], 1)
    spread = np.maximum(spread, 0) + 1e-12 / n_classes
    probabilities = spread / spread.sum(1, keepdims=True)
    probabilities[known] = np.eye(n_classes)[labels[known]]
    return probabilities.astype(np.float32)


def _graph(features: NDArray[np.float32], neighbours: int, power: float) -> Any:
    """Symmetric sparse affinities (N, N) of the nearest neighbours by cosine, of centred features."""
    from scipy import sparse

    centred = features - features.mean(0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    rows, columns, values = [], [], []
    for start in range(0, len(unit), 1024):
        similar = unit[start : start + 1024] @ unit.T
        own = np.arange(len(similar))
        similar[own, own + start] = -2  # not its own neighbour
        nearest = np.argpartition(-similar, neighbours - 1, axis=1)[:, :neighbours]
        rows.append(np.repeat(own + start, neighbours))
        columns.append(nearest.ravel())
        values.append(np.maximum(np.take_along_axis(similar, nearest, 1), 0).ravel() ** power)
    shape = (len(unit), len(unit))
    graph = sparse.csr_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=shape)
    return graph + graph.T
