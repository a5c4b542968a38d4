"""What the classifier answered on the test images: confusion matrix, the gallery, and what int8 alone gets wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_CLASSES = 20  # a bigger matrix is unreadable; the largest confusions are listed instead
GALLERY = 16


def confusion(labels: NDArray[np.int64], predictions: NDArray[np.int64], classes: list[str]) -> dict[str, Any]:
    """``{"classes", "matrix", "pairs"}``: matrix[truth][answer] counts images; pairs are the largest confusions."""
    number = len(classes)
    matrix = np.zeros((number, number), np.int64)
    np.add.at(matrix, (labels, predictions), 1)
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:10]
    pairs = [
        {"truth": classes[i // number], "answer": classes[i % number], "images": int(wrong.flat[i])}
        for i in order
        if wrong.flat[i] > 0
    ]
    values: dict[str, Any] = {"classes": classes, "pairs": pairs, "n": len(labels)}
    if number <= MOST_CLASSES:
        values["matrix"] = matrix.tolist()
    values["per_class"] = [
        {"class": name, "n": int(matrix[i].sum()), "right": int(matrix[i, i])} for i, name in enumerate(classes)
    ]
    return values


def gallery(
    labels: NDArray[np.int64],
    predictions: NDArray[np.int64],
    probabilities: NDArray[np.float32] | None,
    classes: list[str],
) -> list[dict[str, Any]]:
    """A fixed draw of test images and, apart from it, the most confident mistakes: not chosen by hand.

    Entries: index (into the test set), truth, answer, probability, right, group ("drawn" or "mistakes").
    """
    order = np.random.default_rng(0).permutation(len(labels))
    drawn = [int(i) for i in order[:GALLERY]]
    mistakes = np.flatnonzero(labels != predictions)
    if probabilities is not None and len(mistakes):
        sure = probabilities[mistakes, predictions[mistakes]]
        mistakes = mistakes[np.argsort(-sure, kind="stable")]
    entries = [("drawn", i) for i in drawn] + [("mistakes", int(i)) for i in mistakes[: GALLERY // 2]]
    return [
        {
            "group": group,
            "index": i,
            "truth": classes[labels[i]],
            "answer": classes[predictions[i]],
            **({} if probabilities is None else {"probability": round(float(probabilities[i, predictions[i]]), 4)}),
            "right": bool(labels[i] == predictions[i]),
        }
        for group, i in entries
    ]
