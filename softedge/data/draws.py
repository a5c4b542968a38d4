"""Every random choice behind a view, as a pure function of (seed, epoch, index).

Nothing here keeps state: whatever the batch, the number of workers or GPUs, and wherever training is resumed, an image
gets the same two views in the same epoch. The numbers come from SplitMix64 (Steele et al. 2014), a counter hashed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softedge.config import Augment

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
RATIO = (3 / 4, 4 / 3)  # of width to height of a crop, as in torchvision's RandomResizedCrop
TRIES = 10  # crops drawn before the whole image is taken, as there

_GOLDEN = 0x9E3779B97F4A7C15
_CROP = slice(0, 2 * TRIES + 2)  # TRIES areas, TRIES ratios, left, top
_JITTER, _GREY, _BLUR, _SIGMA, _FLIP = range(_CROP.stop, _CROP.stop + 5)
_ORDER = slice(_FLIP + 1, _FLIP + 5)
_STRENGTH = slice(_ORDER.stop, _ORDER.stop + 4)
_COLUMNS = _STRENGTH.stop


@dataclass(frozen=True)
class Draws:
    """The choices for n views.

    crop: uniforms (n, 22) that ``boxes`` turns into a crop once the size of the image is known.
    order: (n, 4), the order of brightness, contrast, saturation and hue.  factors: (n, 4), hue as a part of the circle.
    sigma: (n,) of the blur in pixels, 0 where there is none.
    """

    crop: Floats
    flip: Bools
    jitter: Bools
    order: Ints
    factors: Floats
    grey: Bools
    sigma: Floats

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


def draw(seed: int, epoch: int, index: Ints, augment: Augment, size: int) -> tuple[Draws, Draws]:
    """The choices for the two views of each image in ``index`` at ``size`` pixels."""
    both = uniforms(seed, epoch, index, 2 * _COLUMNS)
    return _choose(both[:, :_COLUMNS], augment, size), _choose(both[:, _COLUMNS:], augment, size)


def _choose(u: Floats, augment: Augment, size: int) -> Draws:
    strengths = np.array([augment.brightness, augment.contrast, augment.saturation])
    low = np.maximum(0.0, 1.0 - strengths)
    factors = np.empty((len(u), 4))
    factors[:, :3] = low + u[:, _STRENGTH][:, :3] * (1.0 + strengths - low)
    factors[:, 3] = (2 * u[:, _STRENGTH.stop - 1] - 1) * augment.hue
    smallest, largest = augment.blur_sigma
    scale = size / 224 if augment.blur_scales else 1.0
    sigma = (smallest + u[:, _SIGMA] * (largest - smallest)) * scale
    any_jitter = bool(strengths.any()) or augment.hue > 0
    return Draws(
        crop=u[:, _CROP],
        flip=u[:, _FLIP] < augment.flip,
        jitter=(u[:, _JITTER] < augment.jitter) & any_jitter,
        order=np.argsort(u[:, _ORDER], axis=1),
        factors=factors,
        grey=u[:, _GREY] < augment.grey,
        sigma=np.where(u[:, _BLUR] < augment.blur, sigma, 0.0),
    )


def boxes(crop: Floats, width: int | Ints, height: int | Ints, min_area: float) -> Ints:
    """Random resized crops after torchvision: uniforms (n, 22) and image sizes -> (n, 4) left, top, width, height.

    The first of ten draws (area uniform in [min_area, 1] of the image, log-uniform ratio) that fits; if none does, the
    largest centred crop of an allowed ratio.
    """
    n = len(crop)
    wide, high = np.broadcast_to(width, n).astype(np.int64), np.broadcast_to(height, n).astype(np.int64)
    area = (min_area + crop[:, :TRIES] * (1.0 - min_area)) * (wide * high)[:, None]
    ratio = np.exp(math.log(RATIO[0]) + crop[:, TRIES : 2 * TRIES] * math.log(RATIO[1] / RATIO[0]))
    w, h = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (w > 0) & (w <= wide[:, None]) & (h > 0) & (h <= high[:, None])
    first, rows = fits.argmax(1), np.arange(n)
    w, h, none = w[rows, first].astype(np.int64), h[rows, first].astype(np.int64), ~fits[rows, first]
    if none.any():
        w = np.where(none, np.minimum(wide, np.rint(high * RATIO[1]).astype(np.int64)), w)
        h = np.where(none, np.minimum(high, np.rint(wide / RATIO[0]).astype(np.int64)), h)
    left = np.where(none, (wide - w) // 2, np.floor(crop[:, -2] * (wide - w + 1)).astype(np.int64))
    top = np.where(none, (high - h) // 2, np.floor(crop[:, -1] * (high - h + 1)).astype(np.int64))
    return np.stack([left, top, w, h], 1)


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
