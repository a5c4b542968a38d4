"""Every random choice behind a view, as a pure function of (seed, epoch, index).

Nothing here keeps state: whatever the batch, the number of workers or GPUs, and wherever training is resumed, an image
gets the same views in the same epoch. The numbers come from SplitMix64 (Steele et al. 2014), a counter hashed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softedge.config import Augment
from softedge.data import warps

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
RATIO = (3 / 4, 4 / 3)  # of width to height of a crop, as in torchvision's RandomResizedCrop
TRIES = 10  # crops drawn before the whole image is taken, as there

_GOLDEN = 0x9E3779B97F4A7C15
_AREA, _RATIO, _PLACE = slice(0, TRIES), slice(TRIES, 2 * TRIES), slice(2 * TRIES, 2 * TRIES + 2)
_JITTER, _GREY, _BLUR, _SIGMA, _FLIP = range(_PLACE.stop, _PLACE.stop + 5)
_ORDER = slice(_FLIP + 1, _FLIP + 5)
_STRENGTH = slice(_ORDER.stop, _ORDER.stop + 4)
_ANGLE, _RIGHT, _DOWN = range(_STRENGTH.stop, _STRENGTH.stop + 3)
_COLUMNS = _DOWN + 1


@dataclass(frozen=True)
class View:
    """What a view of an image is: a random resized crop, then jitter, greyscale and blur.

    size: pixels, of width and height.  augment: how it is made.  max_area: of the crop, a share of the image's; the
    smallest is ``augment.min_area``. Multi-crop (Caron et al. 2020, arXiv 2006.09882) adds small views of small areas.
    """

    size: int
    augment: Augment
    max_area: float = 1.0


def two_views(size: int, augment: Augment) -> tuple[View, View]:
    """Two views made alike."""
    view = View(size, augment)
    return view, view


@dataclass(frozen=True)
class Draws:
    """The choices for n views.

    wide, high: (n, 10) sides of the crops to try, in units of the square root of the image's area.
    place: uniforms (n, 2) for the left and the top, once the crop is known.
    warp: (n, 2, 3), from pixels of the view to pixels of the crop (``warps.py``).
    order: (n, 4), the order of brightness, contrast, saturation and hue.  factors: (n, 4), hue as a part of the circle.
    sigma: (n,) of the blur in pixels, 0 where there is none.  taps: (n, 2r + 1), its kernel in each direction.
    """

    wide: Floats
    high: Floats
    place: Floats
    warp: Floats
    flip: Bools
    jitter: Bools
    order: Ints
    factors: Floats
    grey: Bools
    sigma: Floats
    taps: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.flip)

    def rows(self, chosen: slice | Ints) -> Draws:
        """The draws of some of the views."""
        return Draws(**{name: values[chosen] for name, values in vars(self).items()})


def uniforms(seed: int, epoch: int, index: Ints, columns: int) -> Floats:
    """Uniform numbers in [0, 1), (n, columns): row i depends on (seed, epoch, index[i]) alone."""
    with np.errstate(over="ignore"):  # the arithmetic is modulo 2^64
        key = _mix(np.array([seed % 2**64], np.uint64) + np.uint64(_GOLDEN))
        key = _mix(key + np.uint64((epoch + 1) * _GOLDEN % 2**64))
        keys = _mix(key + (np.asarray(index).astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN))
        counters = np.arange(1, columns + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
        bits = _mix(keys[:, None] + counters[None, :])
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def draw(seed: int, epoch: int, index: Ints, views: Sequence[View]) -> tuple[Draws, ...]:
    """The choices for each of the ``views`` of the images in ``index``; those of one depend on its place, not on what
    follows."""
    u = uniforms(seed, epoch, index, len(views) * _COLUMNS)
    return tuple(_choose(u[:, at * _COLUMNS : (at + 1) * _COLUMNS], view) for at, view in enumerate(views))


def _choose(u: Floats, view: View) -> Draws:
    augment, size = view.augment, view.size
    strengths = np.array([augment.brightness, augment.contrast, augment.saturation])
    low = np.maximum(0.0, 1.0 - strengths)
    factors = np.empty((len(u), 4))
    factors[:, :3] = low + u[:, _STRENGTH][:, :3] * (1.0 + strengths - low)
    factors[:, 3] = (2 * u[:, _STRENGTH.stop - 1] - 1) * augment.hue
    smallest, largest = augment.blur_sigma
    scale = size / 224 if augment.blur_scales else 1.0
    sigma = (smallest + u[:, _SIGMA] * (largest - smallest)) * scale
    sigma = np.where(u[:, _BLUR] < augment.blur, sigma, 0.0)
    any_jitter = bool(strengths.any()) or augment.hue > 0
    area = augment.min_area + u[:, _AREA] * (view.max_area - augment.min_area)
    ratio = np.exp(math.log(RATIO[0]) + u[:, _RATIO] * math.log(RATIO[1] / RATIO[0]))
    return Draws(
        wide=np.sqrt(area * ratio),
        high=np.sqrt(area / ratio),
        place=u[:, _PLACE],
        warp=warps.matrices(
            (2 * u[:, _ANGLE] - 1) * augment.rotate, (2 * u[:, [_RIGHT, _DOWN]] - 1) * augment.translate * size, size
        ),
        flip=u[:, _FLIP] < augment.flip,
        jitter=(u[:, _JITTER] < augment.jitter) & any_jitter,
        order=np.argsort(u[:, _ORDER], axis=1),
        factors=factors,
        grey=u[:, _GREY] < augment.grey,
        sigma=sigma,
        taps=blur_taps(sigma),
    )


def boxes(draws: Draws, width: int, height: int) -> Ints:
    """Random resized crops after torchvision, of images of one size: (n, 4) left, top, width, height.

    The first of ten draws (area uniform in [min_area, max_area] of the image, log-uniform ratio) that fits; if none
    does, the largest centred crop of an allowed ratio.
    """
    root, rows = math.sqrt(width * height), np.arange(len(draws))
    w, h = np.rint(draws.wide * root), np.rint(draws.high * root)
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.argmax(1)
    w, h, none = w[rows, first], h[rows, first], ~fits[rows, first]
    left = np.floor(draws.place[:, 0] * (width - w + 1))
    top = np.floor(draws.place[:, 1] * (height - h + 1))
    chosen = np.stack([left, top, w, h], 1).astype(np.int64)
    chosen[none] = largest_box(width, height)
    return chosen


def box(draws: Draws, row: int, width: int, height: int) -> tuple[int, int, int, int]:
    """``boxes`` for one image: at a few microseconds instead of thirty."""
    root = math.sqrt(width * height)
    for wide, high in zip(draws.wide[row].tolist(), draws.high[row].tolist()):
        w, h = round(wide * root), round(high * root)
        if 0 < w <= width and 0 < h <= height:
            left, top = draws.place[row].tolist()
            return int(left * (width - w + 1)), int(top * (height - h + 1)), w, h
    return largest_box(width, height)


def largest_box(width: int, height: int) -> tuple[int, int, int, int]:
    """The largest centred crop whose ratio is allowed: left, top, width, height."""
    w, h = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    return (width - w) // 2, (height - h) // 2, w, h


def blur_taps(sigma: Floats) -> NDArray[np.float32]:
    """1-D kernels (n, 2r + 1) of a Gaussian blur as Pillow does it: three passes of an extended box.

    After Gwosdek et al. 2011, "Theoretical foundations of Gaussian convolution by extended box filtering", eq. (11):
    each box has variance sigma^2 / 3, l whole taps on either side of the middle and a part of one more.
    """
    variance = np.asarray(sigma, np.float64) ** 2 / 3
    whole = np.floor((np.sqrt(12 * variance + 1) - 1) / 2)
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    reach = int(whole.max(initial=0)) + 1
    offset = np.abs(np.arange(-reach, reach + 1))[None, :]
    box = np.where(offset <= whole[:, None], 1.0, np.where(offset == whole[:, None] + 1, part[:, None], 0.0))
    box /= box.sum(1, keepdims=True)
    taps = box
    for _ in range(2):
        longer = np.zeros((len(box), taps.shape[1] + 2 * reach))
        for shift in range(2 * reach + 1):
            longer[:, shift : shift + taps.shape[1]] += box[:, shift, None] * taps
        taps = longer
    return taps.astype(np.float32)
