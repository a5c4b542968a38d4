"""The validation part of the training images: what classifiers of a run are compared on, so that no test image is.

One part for every training of a run: the same images judge the linear probe, fine-tuning and what comes after. Where
labels are few, a tenth of them says nothing: all of them train, and classifiers are compared by cross-validation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from softedge.data.images import EncodedImages, Images
from softedge.eval import linear

FRACTION = 0.1  # of the images of each class
LEAST = 30  # images; the standard error of an accuracy on fewer is above 5 points
FOLDS = 10
TRAINED_FOLDS = 3  # where every fold is a training of the whole network


def few(labels: NDArray[np.int64]) -> bool:
    """Whether a validation part of images with these labels would have fewer than ``LEAST``."""
    return few_counts(np.unique(labels[labels >= 0], return_counts=True)[1].tolist())


def few_counts(counts: Iterable[int]) -> bool:
    """The same from the number of labelled images of each class."""
    return sum(round(FRACTION * count) for count in counts) < LEAST


def held_out(images: Images, seed: int) -> NDArray[np.bool_]:
    """True (N,) where a labelled training image validates and does not train.

    Within a class, distinct images are ranked by sha256(seed + content), and the first ``round(FRACTION · n)`` are held
    out: none in a class of fewer than five, and none at all where labels are ``few``. All copies of an image stay on
    one side.
    """
    if few(images.labels):
        return np.zeros(len(images), bool)
    contents = np.array([content(images, index) for index in range(len(images))])
    held = np.zeros(len(images), bool)
    for label in np.unique(images.labels):
        distinct = np.unique(contents[images.labels == label])
        ranked = sorted(distinct, key=lambda one: hashlib.sha256(f"validation:{seed}:{one}".encode()).digest())
        held |= np.isin(contents, ranked[: round(FRACTION * len(distinct))])
    return held


def folds(images: Images, seed: int, count: int = FOLDS) -> NDArray[np.int64]:
    """Fold (N,) of every labelled image, for cross-validation: classes spread evenly, copies in the same fold."""
    contents = np.array([content(images, index) for index in range(len(images))])
    fold = np.zeros(len(images), np.int64)
    start = 0
    for label in np.unique(images.labels):
        distinct = np.unique(contents[images.labels == label])
        ranked = sorted(distinct, key=lambda one: hashlib.sha256(f"folds:{seed}:{one}".encode()).digest())
        for place, one in enumerate(ranked):
            fold[contents == one] = (start + place) % count
        start += len(ranked)
    return fold


def parts(images: Images, seed: int, count: int = FOLDS) -> list[NDArray[np.bool_]]:
    """What is held out in turn, (N,) each: the validation part once, or ``count`` folds where labels are ``few``.

    Empty where a class has a single image.
    """
    held = held_out(images, seed)
    if held.any():
        return [held]
    smallest = int(np.unique(images.labels, return_counts=True)[1].min())
    if smallest < 2:
        return []
    fold = folds(images, seed, min(count, smallest))
    return [fold == number for number in np.unique(fold)]


def divided(
    images: Images, fraction: float, seed: int, count: int = FOLDS
) -> tuple[NDArray[np.int64], list[NDArray[np.bool_]]]:
    """Of labelled training images: the indices of those whose labels are used, and what is held out of them in turn.

    As of all the images that the run was made with, without those that have been set aside since: none moves from the
    training into the validation part, and every classifier of the run is judged on the same ones.
    """
    keep = linear.pick_fraction(images.every.labels, fraction, np.random.default_rng(seed))
    held = parts(images.every.subset(keep), seed, count)
    there = np.isin(keep, images.rows_of(np.arange(len(images))))
    return images.left(keep), [part[there] for part in held if part[there].any()]


def content(images: Images, index: int) -> str:
    """The hash of an image's file, or of its pixels where it has none: copies have the same."""
    if isinstance(images, EncodedImages):
        return images.hashes[index] if images.hashes else hashlib.sha256(images.read(index)).hexdigest()
    return hashlib.sha256(images.decode(index).tobytes()).hexdigest()
