"""Weighted k-NN on frozen features (Wu et al. 2018, arXiv 1805.01978, section 3.4): nothing is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

# 20-NN is what Light-MoCo reports (Lin et al. 2022, Table I); Ang 2022 uses k = 200. Neither paper gives a temperature:
# the released code of Light-MoCo takes that of the training (0.1), and the 128 numbers behind the projector in place of
# the features; the code that Ang builds on (leftthomas/SimCLR) takes 0.5.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "light-moco": {"k": 20, "temperature": 0.07},
    "ang-2022": {"k": 200, "temperature": 0.1},
}


def knn_predict(
    train_features: NDArray[np.float32],
    train_labels: NDArray[np.int64],
    test_features: NDArray[np.float32],
    n_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    chunk: int = 4096,
) -> NDArray[np.float32]:
    """Class votes of the k nearest training features by cosine similarity.

        votes_c = Σ_{i ∈ kNN, y_i = c} exp(cos(f, f_i) / temperature)

    train_features (N, D), train_labels (N,), test_features (M, D).  Both sides go through in chunks, so that ImageNet's
    1.28 M features need ``chunk²`` floats at a time.  Returns votes float32 (M, n_classes), each row summing to one.
    """
    train = torch.nn.functional.normalize(torch.from_numpy(np.ascontiguousarray(train_features)), dim=1)
    test = torch.nn.functional.normalize(torch.from_numpy(np.ascontiguousarray(test_features)), dim=1)
    labels = torch.from_numpy(np.asarray(train_labels, np.int64))
    k = min(k, len(train))
    votes = torch.zeros(len(test), n_classes)
    for start in range(0, len(test), chunk):
        similarity, neighbours = nearest(test[start : start + chunk], train, k, chunk)
        # Relative to the nearest one: exp(1 / 0.07) is fine in float32, exp(1 / 0.01) is not.
        weights = ((similarity - similarity[:, :1]) / temperature).exp()
        votes[start : start + chunk].scatter_add_(1, labels[neighbours], weights)
    return (votes / votes.sum(1, keepdim=True)).numpy()


def nearest(query: torch.Tensor, train: torch.Tensor, k: int, chunk: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest similarities and their indices, (M, k) each, found one chunk of ``train`` at a time."""
    best = torch.empty(len(query), 0)
    where = torch.empty(len(query), 0, dtype=torch.int64)
    for start in range(0, len(train), chunk):
        similarity = query @ train[start : start + chunk].T
        values, indices = similarity.topk(min(k, similarity.shape[1]), dim=1)
        best, where = torch.cat([best, values], 1), torch.cat([where, indices + start], 1)
        best, order = best.topk(min(k, best.shape[1]), dim=1)
        where = where.gather(1, order)
    return best, where


def top1(votes: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Fraction of rows whose largest entry is the label."""
    return float((votes.argmax(1) == labels).mean())


def topk(votes: NDArray[np.float32], labels: NDArray[np.int64], k: int) -> float:
    """Fraction of rows with the label among the k largest entries."""
    largest = np.argpartition(-votes, k - 1, axis=1)[:, :k]
    return float((largest == labels[:, None]).any(1).mean())
