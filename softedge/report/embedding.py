"""A picture of the test set: the features of the probe, laid out in two dimensions by t-SNE."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from softedge.errors import UserError
from softedge.files import read_arrays
from softedge.run import Run, sha256, sha256_of

MOST_IMAGES = 1000  # t-SNE and the picture both become slow and crowded beyond that


def read_features(run: Run) -> dict[str, NDArray[Any]] | None:
    """test_features (N, D), test_labels, test_predictions (N,), test_probabilities (N, C) of the probe.

    None where it was not done, and where they are damaged or not those that it left.
    """
    return _read(run, "probe/features.npz", ("test_features", "test_labels", "test_predictions"))


def read_answers(run: Run) -> dict[str, NDArray[Any]] | None:
    """indices, test_labels, test_predictions (N,), test_probabilities (N, C) of the exported classifier, or None."""
    return _read(run, "baselines/predictions.npz", ("indices", "test_labels", "test_predictions"))


def answers(run: Run, classifier: str, arrays: dict[str, NDArray[Any]], layout: dict[str, Any]) -> list[int] | None:
    """What the exported classifier answered on the test images of the layout; None where one has no answer.

    The comparison with cheap classifiers draws a sample of a large test split; the stage of the classifier has all.
    """
    rows = arrays.get("test_rows", np.arange(len(arrays["test_labels"])))
    stored = _read(run, f"{classifier}/features.npz", ("test_rows", "test_labels", "test_predictions"))
    for found, key in ((read_answers(run), "indices"), (stored, "test_rows")):
        if found is None:
            continue
        known = {
            int(row): (int(label), int(answer))
            for row, label, answer in zip(found[key], found["test_labels"], found["test_predictions"])
        }
        given = [known.get(int(rows[i]), (-1, -1)) for i in layout["index"]]
        classes = len(layout["classes"])
        if [label for label, _ in given] == layout["truth"] and all(0 <= answer < classes for _, answer in given):
            return [answer for _, answer in given]
    return None


def _read(run: Run, name: str, needed: tuple[str, ...]) -> dict[str, NDArray[Any]] | None:
    try:
        if run.result(name.partition("/")[0]) is None:
            return None
        sha256_of(run, name)
        arrays = read_arrays(run.root / name)
    except UserError:
        return None
    if any(name not in arrays or len(arrays[name]) != len(arrays["test_labels"]) for name in needed):
        return None
    return arrays


def embed(run: Run, arrays: dict[str, NDArray[Any]], known: dict[str, Any] | None = None) -> dict[str, Any]:
    """``{"sha256", "n", "of", "x", "y", "index"}``: one point per shown test image, inside the unit square.

    arrays: of ``read_features``.  known: the same entry of an earlier report; taken as it is when the features have not
    changed. t-SNE (van der Maaten and Hinton 2008) keeps neighbourhoods, not distances: how far two groups are apart
    means nothing.
    """
    digest = sha256(run.folder("probe") / "features.npz")
    if known and known.get("sha256") == digest:
        return known
    if len(arrays["test_features"]) < 12:
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
