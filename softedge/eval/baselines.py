"""Cheap classifiers: a network that is not clearly better than these is not worth shipping.

The majority class, and support vector machines on a colour histogram and on HOG (Dalal & Triggs 2005), in seconds.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softedge.data.images import Images, Uint8
from softedge.eval.bootstrap import paired
from softedge.records import InputSpec

AT_MOST = 2000  # training and test images each: the time of a support vector machine grows with their product
SIDE = 64  # pixels that the features are computed on
_BINS = 8  # of the histogram, per channel: 512 colours
_DIRECTIONS, _CELL = 9, 8
_SPEC = InputSpec(SIDE, SIDE, (0.5,) * 3, (0.5,) * 3)

Bool = NDArray[np.bool_]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Baseline:
    """predictions: class of every test image, int64 (N,).  val_right: whether each of the held-out training images was
    answered correctly, bool (M,), None without any."""

    name: str
    predictions: Int64
    n_train: int
    val_right: Bool | None
    seconds: float

    @property
    def val_top1(self) -> float | None:
        return None if self.val_right is None else float(self.val_right.mean())

    def row(self, truth: Int64) -> dict[str, Any]:
        """For the report, with the accuracy on the test images of classes ``truth``."""
        return {
            "name": self.name,
            "top1": float((self.predictions == truth).mean()),
            "val_top1": self.val_top1,
            "n_train": self.n_train,
            "seconds": round(self.seconds, 2),
        }


def fit(train: Images, test: Images, seed: int = 0) -> list[Baseline]:
    """All of them; the majority class first, alone where the training images show one class.

    train, test: labelled; of more than ``AT_MOST`` training images a random sample is used.
    """
    rng = np.random.default_rng(seed)
    train = train.subset(np.sort(rng.permutation(len(train))[:AT_MOST]))
    labels = train.labels
    held = _held_out(labels, rng)
    baselines = [_majority(labels, held, len(test))]
    if len(np.unique(labels)) < 2:
        return baselines
    clock = time.monotonic()
    train_pixels, test_pixels = train.prepared(_SPEC), test.prepared(_SPEC)
    colour, shape = (colours(train_pixels), colours(test_pixels)), (gradients(train_pixels), gradients(test_pixels))
    preparing = (time.monotonic() - clock) / 2
    both = np.hstack([colour[0], shape[0]]), np.hstack([colour[1], shape[1]])
    for name, (features, test_features), spent in (
        ("SVM on a colour histogram", colour, preparing),
        ("SVM on HOG", shape, preparing),
        ("SVM on a colour histogram and HOG", both, 2 * preparing),
    ):
        clock = time.monotonic()
        predictions = _svm(features, labels, test_features)
        seconds = spent + time.monotonic() - clock
        baselines.append(Baseline(name, predictions, len(labels), _validated(features, labels, held), seconds))
    return baselines


def to_beat(baselines: Sequence[Baseline], seed: int = 0) -> list[Baseline]:
    """The best on the held-out training images, and those that these cannot tell from it (paired bootstrap, 95 %).

    All, where nothing was held out.  The test images take no part in it.
    """
    validated = [(baseline, baseline.val_right) for baseline in baselines if baseline.val_right is not None]
    if not validated:
        return list(baselines)
    _, best = max(validated, key=lambda one: one[1].mean())
    return [baseline for baseline, right in validated if paired(best, right, seed).low <= 0]


def _held_out(labels: Int64, rng: np.random.Generator) -> Bool:
    """A stratified fifth; classes with a single image keep it for training."""
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        held[members[: min(len(members) - 1, max(1, round(len(members) / 5)))]] = True
    return held


def _majority(labels: Int64, held: Bool, n_test: int) -> Baseline:
    right = labels[held] == np.bincount(labels[~held]).argmax() if held.any() else None
    return Baseline("majority class", np.full(n_test, np.bincount(labels).argmax(), np.int64), len(labels), right, 0.0)


def _validated(features: Float32, labels: Int64, held: Bool) -> Bool | None:
    if not held.any() or len(np.unique(labels[~held])) < 2:
        return None
    right: Bool = _svm(features[~held], labels[~held], features[held]) == labels[held]
    return right


def _svm(features: Float32, labels: Int64, test_features: Float32) -> Int64:
    """Classes of ``test_features`` by an SVM with a Gaussian kernel, one against one, on standardised features."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        model = make_pipeline(StandardScaler(), SVC(C=10.0, gamma="scale")).fit(features, labels)
        return np.asarray(model.predict(test_features), np.int64)


def colours(images: Uint8) -> Float32:
    """uint8 (N, S, S, 3) -> square roots of the shares of 512 colours, float32 (N, 512) (Hellinger's kernel)."""
    levels = (images >> 5).astype(np.int64)
    index = (levels[..., 0] * _BINS + levels[..., 1]) * _BINS + levels[..., 2]
    counts = np.stack([np.bincount(row.ravel(), minlength=_BINS**3) for row in index])
    return np.sqrt(counts / index[0].size).astype(np.float32)


def gradients(images: Uint8) -> Float32:
    """Histograms of oriented gradients: 9 directions, cells of 8 pixels, blocks of 2 x 2 cells; float32 (N, 1764).

    Dalal & Triggs 2005, without their Gaussian window and their sharing of votes between cells: the gradient of the
    grey image votes with its length for the two nearest directions; blocks have unit length, cut at 0.2.
    """
    return np.concatenate([_oriented(images[i : i + 256]) for i in range(0, len(images), 256)])


def _oriented(images: Uint8) -> Float32:
    grey = images.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255
    dy, dx = np.zeros_like(grey), np.zeros_like(grey)
    dy[:, 1:-1], dx[:, :, 1:-1] = grey[:, 2:] - grey[:, :-2], grey[:, :, 2:] - grey[:, :, :-2]
    length = np.hypot(dx, dy)
    direction = np.arctan2(dy, dx) % np.pi / np.pi * _DIRECTIONS - 0.5
    below = np.floor(direction)
    share = direction - below
    votes = np.zeros((*grey.shape, _DIRECTIONS), np.float32)
    for offset, weight in ((0, 1 - share), (1, share)):
        bins = (below.astype(np.int64) + offset) % _DIRECTIONS
        np.put_along_axis(votes, bins[..., None], (length * weight)[..., None], axis=3)
    cells = SIDE // _CELL
    histograms = votes.reshape(len(images), cells, _CELL, cells, _CELL, _DIRECTIONS).sum((2, 4))
    corners = (slice(None, -1), slice(1, None))
    blocks = np.concatenate([histograms[:, y, x] for y in corners for x in corners], axis=3)
    for limit in (0.2, np.inf):
        blocks = np.minimum(blocks / np.sqrt(np.square(blocks).sum(3, keepdims=True) + 1e-4), limit)
    return blocks.reshape(len(images), -1)
