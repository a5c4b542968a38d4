"""Views of a batch of small images on a CPU. Everything stays uint8, where OpenCV is fastest; what does not depend on
the image is computed for the whole batch, and what can be is one call for all of its pixels.

The same views as those of ``batch_views`` to a level or so, at a quarter of its cost.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from softedge.data import batch_views, warps
from softedge.data.draws import BRIGHTNESS, CONTRAST, HUE, SATURATION, Draws, Floats, boxes
from softedge.data.image_views import DOWN, IDENTITY, TO_GREY

Uint8 = NDArray[np.uint8]


def views(images: Uint8, draws: Draws, size: int) -> Uint8:
    """One view of each image: uint8 (N, H, W, 3) -> uint8 (N, size, size, 3)."""
    view = crop(images, draws, size)
    colour(view, draws)
    return view


def crop(images: Uint8, draws: Draws, size: int) -> Uint8:
    """Random resized crop and flip: uint8 (N, H, W, 3) -> (N, size, size, 3)."""
    n, height, width, _ = images.shape
    if max(height, width) > size:  # some crops are shrunk, and OpenCV's bilinear resampling would alias
        rows = batch_views.to_rows(torch.from_numpy(images))
        return batch_views.to_uint8(batch_views.crop(rows, draws, size)).numpy()
    view = np.empty((n, size, size, 3), np.uint8)
    box = boxes(draws, width, height).tolist()
    for image, (left, top, wide, high), flip, out in zip(images, box, draws.flip.tolist(), view):
        cv2.resize(image[top : top + high, left : left + wide], (size, size), out)
        if flip:
            cv2.flip(out, 1, out)
    for row in warps.moved(draws.warp).tolist():
        view[row] = warps.image(view[row], draws.warp[row])
    return view


def colour(view: Uint8, draws: Draws) -> None:
    """Jitter, greyscale and blur of (N, S, S, 3), in place."""
    for position in range(4):
        operation = np.where(draws.jitter, draws.order[:, position], -1)
        _jitter(view, operation, draws.factors)
    grey = np.flatnonzero(draws.grey)
    if len(grey):
        view[grey] = cv2.cvtColor(_grey(view[grey]), cv2.COLOR_GRAY2RGB).reshape(-1, *view.shape[1:])
    for row in np.flatnonzero(draws.sigma > 0).tolist():
        taps = draws.taps[row]
        cv2.sepFilter2D(view[row], -1, taps, taps, view[row], borderType=cv2.BORDER_REPLICATE)


def _jitter(view: Uint8, operation: NDArray[np.int64], factors: Floats) -> None:
    """One operation of the jitter for each image (-1: none), in place. All but the hue are affine in the colour."""
    matrices = np.zeros((len(view), 3, 4), np.float32)
    for kind, fill in ((BRIGHTNESS, _brightness), (CONTRAST, _contrast), (SATURATION, _saturation)):
        chosen = np.flatnonzero(operation == kind)
        if len(chosen):
            matrices[chosen] = fill(view[chosen], factors[chosen, kind])
    for row in np.flatnonzero((operation >= 0) & (operation != HUE)).tolist():
        cv2.transform(view[row], matrices[row], view[row])
    turned = np.flatnonzero(operation == HUE)
    if len(turned):
        view[turned] = _hue(view[turned], factors[turned, HUE])


def _affine(matrix: NDArray[np.float32], offset: float | Floats) -> NDArray[np.float32]:
    """(N, 3, 3) and an offset each -> (N, 3, 4)."""
    column = np.broadcast_to(np.asarray(offset, np.float32)[..., None, None], (len(matrix), 3, 1))
    return np.concatenate([matrix, column], 2)


def _brightness(view: Uint8, factor: Floats) -> NDArray[np.float32]:
    return _affine(factor.astype(np.float32)[:, None, None] * IDENTITY, DOWN)


def _contrast(view: Uint8, factor: Floats) -> NDArray[np.float32]:
    grey = _grey(view).reshape(len(view), -1)
    mean = np.floor(cv2.reduce(grey, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[:, 0] / grey.shape[1] + 0.5)
    return _affine(factor.astype(np.float32)[:, None, None] * IDENTITY, mean * (1 - factor) + DOWN)


def _saturation(view: Uint8, factor: Floats) -> NDArray[np.float32]:
    share = factor.astype(np.float32)[:, None, None]
    return _affine(share * IDENTITY + (1 - share) * TO_GREY, DOWN)


def _hue(view: Uint8, factor: Floats) -> Uint8:
    hsv = cv2.cvtColor(_tall(view), cv2.COLOR_RGB2HSV_FULL)
    hue = hsv.reshape(len(view), -1, 3)[:, :, 0]
    hue += ((factor * 255).astype(np.int64) % 256).astype(np.uint8)[:, None]
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL).reshape(view.shape)


def _grey(view: Uint8) -> Uint8:
    return cv2.cvtColor(_tall(view), cv2.COLOR_RGB2GRAY)


def _tall(view: Uint8) -> Uint8:
    """(N, H, W, 3) as one image of N * H rows."""
    return view.reshape(-1, *view.shape[2:])
