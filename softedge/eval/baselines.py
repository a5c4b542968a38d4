"""What is cheap: a model that is not clearly better than these is not worth shipping.

The majority class, and a support vector machine on a colour histogram and HOG (Dalal & Triggs 2005), in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softedge.data.images import Images, Uint8
from softedge.records import InputSpec

SIDE = 64  # pixels that the features are computed on
_BINS = 8  # of the histogram, per channel: 512 colours
_AT_MOST = 5000  # training images of the support vector machine: its time grows with their square
_SPEC = InputSpec(SIDE, SIDE, (0.5,) * 3, (0.5,) * 3)


@dataclass(frozen=True)
class Baseline:
    """name: as it stands in the report.  predictions: class of every test image, int64 (N,).  n_train: images used."""

    name: str
    predictions: NDArray[np.int64]
    n_train: int


def majority(labels: NDArray[np.int64], n_test: int) -> Baseline:
    """The most frequent class of the training images, for every image."""
    return Baseline("majority class", np.full(n_test, np.bincount(labels).argmax(), np.int64), len(labels))


def support_vectors(train: Images, test: Images, seed: int = 0) -> list[Baseline]:
    """An SVM with a Gaussian kernel on the colour histogram, on HOG and on both together."""
    rng = np.random.default_rng(seed)
    kept = np.sort(rng.permutation(len(train))[:_AT_MOST])
    train = train.subset(kept)
    if len(np.unique(train.labels)) < 2:  # nothing to separate
        return [majority(train.labels, len(test))]
    features = [(colours(part), gradients(part)) for part in (train.prepared(_SPEC), test.prepared(_SPEC))]
    (colour, shape), (test_colour, test_shape) = features
    chosen = {
        "SVM on a colour histogram": (colour, test_colour),
        "SVM on HOG": (shape, test_shape),
        "SVM on a colour histogram and HOG": (np.hstack([colour, shape]), np.hstack([test_colour, test_shape])),
    }
    return [Baseline(name, _svm(a, train.labels, b), len(train)) for name, (a, b) in chosen.items()]


def _svm(features: NDArray[np.float32], labels: NDArray[np.int64], test: NDArray[np.float32]) -> NDArray[np.int64]:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        model = make_pipeline(StandardScaler(), SVC(C=10.0, gamma="scale")).fit(features, labels)
        return np.asarray(model.predict(test), np.int64)


def colours(images: Uint8) -> NDArray[np.float32]:
    """uint8 (N, S, S, 3) -> square roots of the shares of 512 colours, float32 (N, 512) (Hellinger's kernel)."""
    levels = (images >> 5).astype(np.int64)
    index = (levels[..., 0] * _BINS + levels[..., 1]) * _BINS + levels[..., 2]
    counts = np.stack([np.bincount(row.ravel(), minlength=_BINS**3) for row in index])
    return np.sqrt(counts / index[0].size).astype(np.float32)


def gradients(images: Uint8) -> NDArray[np.float32]:
    """Histograms of oriented gradients: 9 directions, cells of 8 pixels, blocks of 2 x 2 cells; float32 (N, 1764)."""
    import cv2

    describe = cv2.HOGDescriptor((SIDE, SIDE), (16, 16), (8, 8), (8, 8), 9)
    return np.stack([np.asarray(describe.compute(image), np.float32).ravel() for image in images])
