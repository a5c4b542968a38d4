"""The validation part of the training images: what classifiers of a run are compared on, so that no test image is.

One part for every training of a run: the same images judge the linear probe, fine-tuning and what comes after.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from softedge.data.images import EncodedImages, Images

FRACTION = 0.1  # of the images of each class


def held_out(images: Images, seed: int) -> NDArray[np.bool_]:
    """True (N,) where a labelled training image validates and does not train.

    Within a class, distinct images are ranked by sha256(seed + content), and the first ``round(FRACTION · n)`` are held
    out: none in a class of fewer than five. All copies of an image stay on one side.
    """
    contents = np.array([_content(images, index) for index in range(len(images))])
    held = np.zeros(len(images), bool)
    for label in np.unique(images.labels):
        distinct = np.unique(contents[images.labels == label])
        ranked = sorted(distinct, key=lambda content: hashlib.sha256(f"validation:{seed}:{content}".encode()).digest())
        held |= np.isin(contents, ranked[: round(FRACTION * len(distinct))])
    return held


def _content(images: Images, index: int) -> str:
    if isinstance(images, EncodedImages):
        return images.hashes[index] if images.hashes else hashlib.sha256(images.read(index)).hexdigest()
    return hashlib.sha256(images.decode(index).tobytes()).hexdigest()
