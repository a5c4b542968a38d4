"""One view of one large image on the CPU: torch's antialiased uint8 resize, then OpenCV's point operations."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from softedge.data import warps
from softedge.data.draws import BRIGHTNESS, CONTRAST, SATURATION, Draws, box

Uint8 = NDArray[np.uint8]

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
IDENTITY = np.eye(3, dtype=np.float32)
DOWN = -0.499  # turns OpenCV's rounding to the nearest level into Pillow's truncation
TO_GREY = np.repeat(_LUMA[None], 3, axis=0)


def crop(image: Uint8, draws: Draws, row: int, size: int) -> Uint8:
    """Random resized crop and flip of uint8 (H, W, 3) -> (size, size, 3), antialiased bilinear as in Pillow."""
    height, width = image.shape[:2]
    left, top, wide, high = box(draws, row, width, height)
    part = torch.from_numpy(image).permute(2, 0, 1)[None, :, top : top + high, left : left + wide]
    # Without channels_last memory torch leaves its fast uint8 kernel and returns planes that OpenCV has to copy.
    part = part.contiguous(memory_format=torch.channels_last)
    view = interpolate(part, (size, size), mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
    view = cv2.flip(view, 1) if draws.flip[row] else view
    return warps.image(view, draws.warp[row]) if warps.moves(draws.warp[row]) else view


def colour(view: Uint8, draws: Draws, row: int) -> Uint8:
    """Jitter, greyscale and blur of a cropped view."""
    if draws.jitter[row]:
        view = jitter(view, draws.order[row].tolist(), draws.factors[row].tolist())
    grey = bool(draws.grey[row])
    if grey:
        view = cv2.cvtColor(view, cv2.COLOR_RGB2GRAY)
    if draws.sigma[row] > 0:
        taps = draws.taps[row]
        taps = taps[taps > 0]  # zero outside of its reach only
        view = cv2.sepFilter2D(view, -1, taps, taps, borderType=cv2.BORDER_REPLICATE)
    return cv2.cvtColor(view, cv2.COLOR_GRAY2RGB) if grey else view


def jitter(view: Uint8, order: list[int], factors: list[float]) -> Uint8:
    """Brightness, contrast, saturation and hue in the given order."""
    brightness, contrast, saturation, hue = factors
    for operation in order:
        if operation == BRIGHTNESS:
            view = cv2.convertScaleAbs(view, alpha=brightness, beta=DOWN)
        elif operation == CONTRAST:
            mean = math.floor(float(np.dot(cv2.mean(view)[:3], _LUMA)) + 0.5)
            offset = np.full((3, 1), mean * (1 - contrast) + DOWN, np.float32)
            view = cv2.transform(view, np.concatenate([contrast * IDENTITY, offset], 1))
        elif operation == SATURATION:
            offset = np.full((3, 1), DOWN, np.float32)
            mixed = saturation * IDENTITY + (1 - saturation) * TO_GREY
            view = cv2.transform(view, np.concatenate([mixed, offset], 1))
        else:
            hsv = cv2.cvtColor(view, cv2.COLOR_RGB2HSV_FULL)
            rows = hsv.reshape(len(hsv), -1)  # adding to whole rows is faster; uint8 wraps as the circle does
            rows += np.tile(np.array([int(hue * 255) % 256, 0, 0], np.uint8), rows.shape[1] // 3)
            view = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
    return view
