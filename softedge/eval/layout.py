"""Images in two dimensions by their features, and their thumbnails in one picture."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from softedge.data.images import Uint8
from softedge.eval.measures import unit

FEWEST = 12  # images: fewer give t-SNE no neighbourhoods
_COMPONENTS = 50  # before t-SNE, as its authors advise
_QUALITIES = (80, 70, 60, 50, 40, 30, 20)  # of the JPEG, until it is small enough


def lay_out(features: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Positions in the unit square, float32 (N, 2), N >= ``FEWEST``.  features: (N, D).

    Angles between features, PCA to 50 dimensions, t-SNE (van der Maaten and Hinton 2008). It keeps neighbourhoods, not
    distances: how far two groups are apart means nothing.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    directions = unit(features)
    components = min(_COMPONENTS, *directions.shape)
    reduced = PCA(components, svd_solver="full").fit_transform(directions)
    perplexity = min(30.0, (len(reduced) - 1) / 4)
    flat = TSNE(2, perplexity=perplexity, init="pca", random_state=seed, max_iter=500).fit_transform(reduced)
    low, high = flat.min(0), flat.max(0)
    return np.asarray((flat - low) / np.maximum(high - low, 1e-9), np.float32)


def walk(points: NDArray[np.float32]) -> NDArray[np.int64]:
    """An order in which each point is followed by the nearest one that is left: for going through them by keys."""
    left = np.ones(len(points), bool)
    at, order = int(points.sum(1).argmin()), []
    for _ in range(len(points)):
        order.append(at)
        left[at] = False
        distance = ((points - points[at]) ** 2).sum(1)
        at = int(np.where(left, distance, np.inf).argmin())
    return np.array(order, np.int64)


def thumbnail(image: Uint8, side: int) -> Uint8:
    """The middle square of a picture (H, W, 3) as (side, side, 3)."""
    height, width = image.shape[:2]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    square = Image.fromarray(np.ascontiguousarray(image[top : top + short, left : left + short]))
    return np.asarray(square.resize((side, side), Image.Resampling.BOX if short > side else Image.Resampling.NEAREST))


def sheet(thumbnails: Sequence[Uint8], at_most: int) -> tuple[bytes, int]:
    """All thumbnails, row by row, in one JPEG of ``at_most`` bytes (or of the lowest quality), and its columns.

    Their side must be a multiple of 16, the blocks of a JPEG, so that none runs into its neighbours.
    """
    side, columns = len(thumbnails[0]), math.ceil(math.sqrt(len(thumbnails)))
    rows = math.ceil(len(thumbnails) / columns)
    whole = np.zeros((rows * side, columns * side, 3), np.uint8)
    for number, tile in enumerate(thumbnails):
        top, left = number // columns * side, number % columns * side
        whole[top : top + side, left : left + side] = tile
    data = b""
    for quality in _QUALITIES:
        out = io.BytesIO()
        Image.fromarray(whole).save(out, "JPEG", quality=quality, optimize=True)
        data = out.getvalue()
        if len(data) <= at_most:
            break
    return data, columns
