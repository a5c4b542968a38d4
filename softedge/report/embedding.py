"""A picture of the test set: the features of the probe, laid out in two dimensions by t-SNE."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softedge.run import sha256

MOST_IMAGES = 1000  # t-SNE and the picture both become slow and crowded beyond that


def read_features(folder: Path) -> dict[str, NDArray[Any]] | None:
    """test_features (N, D), test_labels, test_predictions (N,), test_probabilities (N, C) of the probe, if readable."""
    return _read(folder / "features.npz", ("test_features", "test_labels", "test_predictions"))


def read_answers(folder: Path) -> dict[str, NDArray[Any]] | None:
    """indices, test_labels, test_predictions (N,) and test_probabilities (N, C) of the exported classifier."""
    return _read(folder / "predictions.npz", ("indices", "test_labels", "test_predictions"))


def _read(path: Path, needed: tuple[str, ...]) -> dict[str, NDArray[Any]] | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, KeyError):
        return None
    if any(name not in arrays or len(arrays[name]) != len(arrays["test_labels"]) for name in needed):
        return None
    return arrays


def embed(folder: Path, known: dict[str, Any] | None = None) -> dict[str, Any]:
    """``{"sha256", "n", "of", "x", "y", "index"}``: one point per shown test image, inside the unit square.

    known: the same entry of an earlier report; taken as it is when the features have not changed. t-SNE (van der Maaten
    and Hinton 2008) keeps neighbourhoods, not distances: how far two groups are apart means nothing.
    """
    digest = sha256(folder / "features.npz")
    if known and known.get("sha256") == digest:
        return known
    arrays = read_features(folder)
    if arrays is None or len(arrays["test_features"]) < 12:
        return {}
    features = arrays["test_features"].astype(np.float32)
    total = len(features)
    index = np.sort(np.random.default_rng(0).permutation(total)[:MOST_IMAGES])
    chosen = features[index]
    norms = np.linalg.norm(chosen, axis=1, keepdims=True)
    chosen = chosen / np.maximum(norms, 1e-12)  # the k-NN measures angles, so the picture does
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(chosen) - 1) / 4)
    layout = TSNE(2, perplexity=perplexity, init="pca", random_state=0, max_iter=600).fit_transform(chosen)
    low, high = layout.min(0), layout.max(0)
    layout = (layout - low) / np.maximum(high - low, 1e-9)
    return {
        "sha256": digest,
        "n": len(index),
        "of": total,
        "x": [round(float(x), 4) for x in layout[:, 0]],
        "y": [round(float(y), 4) for y in layout[:, 1]],
        "index": [int(i) for i in index],
    }
