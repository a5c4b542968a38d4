"""Near-duplicates: one picture saved again, resized, slightly cropped or brightened.

Three steps. A **thumbnail** of each picture, 48 x 48 grey. A **hash** of it, the signs of its lowest DCT coefficients
(a perceptual hash; Zauner 2010, https://www.phash.org/docs/pubs/thesis_zauner.pdf), which proposes pairs: two pictures
meet when they agree on all bits of one of several bands, the bits nearest to zero tried both ways (multi-probe hashing,
Lv et al. 2007, VLDB). A **comparison** that decides: the correlation of the two thumbnails without their light and
shadow, the best over crops of up to 7.5 % of a side.

Pictures below 48 pixels and pictures without detail of their own (drawn digits, blank pages, enlarged icons) take no
part: at that size different pictures look alike, and only copies with equal pixels are certain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

Uint8 = NDArray[np.uint8]

SIDE = 48  # of a thumbnail, pixels
_SMALLEST = SIDE  # shorter side of a picture that is compared, pixels
_LOW = 8  # lowest DCT coefficients each way; without the mean, 63 bits
_COARSE, _FINE = 20, 0.004  # share of a thumbnail's energy beyond so many DCT coefficients; photos have more
_CONTRAST = 12.0  # standard deviation of a thumbnail, grey levels of 255
_BANDS, _BITS, _FLIPS = 24, 14, 4  # bands of so many bits, of which so many are tried both ways
_DIFFERING = 22  # of the 63 bits, at most, in a pair that is compared
_BUCKET = 200  # pictures of one hash that each is compared with, at most: bounds the time on sets of look-alikes
_ZOOMS = (0.975, 0.95, 0.925)  # sides of the crops that are tried
_LIKELY = 0.58  # correlation of the coefficients from which crops are tried
_STAGES = (  # least correlation, side compared, places of a crop along each axis, detail only: as measured there
    (0.95, 12, 3, False),
    (0.85, 24, 3, True),
    (0.95, 24, 5, True),
)
_BLOCK = 2048  # pairs compared at a time
_ROWS = 200_000  # pairs of coefficients held at a time
_KEYS = 1_000_000  # proposed pairs looked at a time


@dataclass(frozen=True)
class Pair:
    """Two pictures by position, ``first < second``, and the correlation of their thumbnails."""

    first: int
    second: int
    similarity: float


def thumbnail(image: Uint8) -> Uint8 | None:
    """The picture (H, W, 3) as (48, 48) grey; None where it is too small or too plain to be compared."""
    if min(image.shape[:2]) < _SMALLEST:
        return None
    grey = cv2.cvtColor(cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    basis = _dct(SIDE)
    energy = (basis @ (grey - grey.mean(dtype=np.float32)) @ basis.T) ** 2
    fine = energy.sum() - energy[:_COARSE, :_COARSE].sum()
    return grey if grey.std() >= _CONTRAST and fine >= _FINE * energy.sum() else None


@cache
def _dct(number: int) -> NDArray[np.float32]:
    """The first ``number`` rows of the orthonormal DCT-II of a thumbnail's side, float32 (number, 48)."""
    basis = np.cos(np.pi * (np.arange(SIDE) + 0.5) * np.arange(number)[:, None] / SIDE) * np.sqrt(2 / SIDE)
    basis[0] /= np.sqrt(2)
    return basis.astype(np.float32)


def pairs_among(thumbnails: Sequence[Uint8 | None]) -> list[Pair]:
    """The near-duplicates by position among all pictures, those that take no part (None) included."""
    shown = [(place, thumbnail) for place, thumbnail in enumerate(thumbnails) if thumbnail is not None]
    if len(shown) < 2:
        return []
    places = [place for place, _ in shown]
    copies = pairs(np.stack([thumbnail for _, thumbnail in shown]))
    return [replace(pair, first=places[pair.first], second=places[pair.second]) for pair in copies]


def pairs(thumbnails: Uint8) -> list[Pair]:
    """The near-duplicates among thumbnails (N, 48, 48), in order of position. Memory and time grow with N, not N²."""
    if len(thumbnails) < 2:
        return []
    low = _coefficients(thumbnails)
    likely = _likely(low)
    first, second = likely // len(thumbnails), likely % len(thumbnails)
    copies: list[Pair] = []
    for start in range(0, len(first), _BLOCK):
        a, b = first[start : start + _BLOCK], second[start : start + _BLOCK]
        similarity = np.empty(0, np.float32)
        for keep, grid, steps, detail in _STAGES:
            similarity = _similarity(thumbnails[a], thumbnails[b], grid, steps, detail)
            alike = similarity >= keep
            a, b, similarity = a[alike], b[alike], similarity[alike]
        copies += [Pair(int(i), int(j), round(float(value), 4)) for i, j, value in zip(a, b, similarity)]
    return copies


def _coefficients(thumbnails: Uint8) -> NDArray[np.float32]:
    """The 63 lowest DCT coefficients of each thumbnail without the mean, float32 (N, 63)."""
    basis = _dct(_LOW)
    low = np.empty((len(thumbnails), _LOW * _LOW - 1), np.float32)
    for start in range(0, len(thumbnails), _BLOCK):
        block = thumbnails[start : start + _BLOCK].astype(np.float32)
        low[start : start + _BLOCK] = (basis @ block @ basis.T).reshape(len(block), -1)[:, 1:]
    return low


def _likely(low: NDArray[np.float32]) -> NDArray[np.int64]:
    """Pairs worth a comparison, each as first * N + second, sorted."""
    rows = low / (low.std(axis=0) + 1e-6)  # each coefficient scaled to variance 1 over the data set
    rows /= np.linalg.norm(rows, axis=1, keepdims=True) + 1e-6
    bits = low.shape[1]
    signs = low > np.median(low, axis=0)  # of each coefficient's own median: both signs are as frequent
    margin = np.abs(low - np.median(low, axis=0)) / (low.std(axis=0) + 1e-6)
    in_bytes = np.packbits(signs, axis=1, bitorder="little")  # 63 bits: 8 bytes
    packed = in_bytes.view(np.uint64)[:, 0]
    rng = np.random.default_rng(0)
    kept = np.empty(0, np.int64)
    for _ in range(_BANDS):
        band = rng.choice(bits, _BITS, replace=False)
        keys = signs[:, band] @ (1 << np.arange(_BITS))
        order = np.argsort(keys, kind="stable")
        ranked = keys[order]
        unsure = np.argsort(margin[:, band], axis=1)[:, :_FLIPS]
        fresh = [np.empty(0, np.int64)]
        for choice in range(1 << _FLIPS):
            flips = sum((1 << unsure[:, i]) for i in range(_FLIPS) if choice >> i & 1)
            wanted = keys ^ flips
            low_end, high_end = np.searchsorted(ranked, wanted), np.searchsorted(ranked, wanted, "right")
            agreeing = _agreeing(order, low_end, np.minimum(high_end - low_end, _BUCKET), packed)
            fresh += [proposed[_correlation(rows, proposed) >= _LIKELY] for proposed in agreeing]
        kept = np.unique(np.concatenate([kept, *fresh]))
    return kept


def _agreeing(
    order: NDArray[np.int64], start: NDArray[np.int64], length: NDArray[np.int64], packed: NDArray[np.uint64]
) -> Iterator[NDArray[np.int64]]:
    """The pairs of each picture with those in its bucket, where enough of all bits agree, some at a time."""
    number = len(order)
    ends = np.cumsum(length)
    for begin in range(0, int(ends[-1]), _KEYS):
        at = np.arange(begin, min(begin + _KEYS, int(ends[-1])))
        query = np.searchsorted(ends, at, "right")
        other = order[start[query] + at - (ends[query] - length[query])]
        near = (query < other) & (np.bitwise_count(packed[query] ^ packed[other]) <= _DIFFERING)
        yield query[near] * number + other[near]


def _correlation(rows: NDArray[np.float32], proposed: NDArray[np.int64]) -> NDArray[np.float32]:
    """The correlation of the coefficients of each pair, float32 (n,).  rows: of length 1, (N, 63)."""
    values = np.empty(len(proposed), np.float32)
    for start in range(0, len(proposed), _ROWS):
        first, second = np.divmod(proposed[start : start + _ROWS], len(rows))
        values[start : start + _ROWS] = np.einsum("nk,nk->n", rows[first], rows[second])
    return values


@cache
def _windows(grid: int, steps: int) -> NDArray[np.float32]:
    """One axis of every crop that is tried, the whole first: float32 (K, grid, 48), rows of means."""
    boxes = [(0.0, float(SIDE))]
    boxes += [(at * (1 - zoom) * SIDE, zoom * SIDE) for zoom in _ZOOMS for at in np.linspace(0, 1, steps).tolist()]
    windows = np.zeros((len(boxes), grid, SIDE), np.float32)
    for number, (origin, length) in enumerate(boxes):
        edges = origin + np.linspace(0, length, grid + 1)
        for row in range(grid):
            cover = np.minimum(edges[row + 1], np.arange(SIDE) + 1.0) - np.maximum(edges[row], np.arange(SIDE))
            windows[number, row] = np.maximum(cover, 0) / (edges[row + 1] - edges[row])
    return windows


@cache
def _fine(grid: int) -> NDArray[np.float32]:
    """What takes the coarse half of a picture away, along one axis: light, shadow and vignette."""
    distance = np.arange(grid)[:, None] - np.arange(grid)[None, :]
    blur = np.exp(-0.5 * (distance / (grid / 12)) ** 2)
    return (blur / blur.sum(axis=1, keepdims=True)).astype(np.float32)


def _similarity(a: Uint8, b: Uint8, grid: int, steps: int, detail: bool) -> NDArray[np.float32]:
    """The best correlation of one thumbnail with a crop of the other, either way round, float32 (n,).

    detail: of what is left without light and shadow, which pictures taken on one table share.
    """
    windows = _windows(grid, steps)
    blur = _fine(grid)

    def standardised(images: NDArray[np.float32]) -> NDArray[np.float32]:
        if detail:
            images = np.asarray(images - blur @ images @ blur.T, np.float32)
        centred = images - images.mean(axis=(1, 2), keepdims=True)
        flat = centred.reshape(len(images), grid * grid)
        lengths = np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6
        return (flat / lengths).astype(np.float32)

    pair = a.astype(np.float32), b.astype(np.float32)
    wholes = [standardised(windows[0] @ side @ windows[0].T) for side in pair]
    best = np.einsum("nk,nk->n", *wholes)
    for whole, other in ((wholes[0], pair[1]), (wholes[1], pair[0])):
        for zoom in range(len(_ZOOMS)):
            of_zoom = range(1 + zoom * steps, 1 + (zoom + 1) * steps)
            for y in of_zoom:
                rows = windows[y] @ other
                for x in of_zoom:
                    best = np.maximum(best, np.einsum("nk,nk->n", standardised(rows @ windows[x].T), whole))
    return best
