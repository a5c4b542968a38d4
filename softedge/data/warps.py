"""Rotation and translation of a cropped view: bilinear, black where nothing is (torchvision's RandomAffine)."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
Uint8 = NDArray[np.uint8]

_IDENTITY = np.eye(2, 3)
_IDENTITY_ROWS = _IDENTITY.tolist()


def matrices(degrees: Floats, shift: Floats, size: int) -> Floats:
    """Inverse maps (n, 2, 3): pixel (x, y) of the result -> pixel of the view it comes from.

    The view is turned by ``degrees`` (n,) about its centre c, clockwise as seen, then moved by ``shift`` (n, 2) pixels:
    out = R (in - c) + c + t, hence in = R^T (out - c - t) + c.
    """
    angle, centre = np.deg2rad(degrees), (size - 1) / 2
    cos, sin = np.cos(angle), np.sin(angle)
    inverse = np.empty((len(angle), 2, 3))
    inverse[:, 0, 0], inverse[:, 0, 1], inverse[:, 1, 0], inverse[:, 1, 1] = cos, sin, -sin, cos
    inverse[:, :, 2] = centre - np.einsum("nij,nj->ni", inverse[:, :, :2], centre + shift)
    return inverse


def moved(warp: Floats) -> NDArray[np.int64]:
    """Rows whose map is not the identity."""
    return np.flatnonzero(np.abs(warp - _IDENTITY).max((1, 2), initial=0) > 1e-9)


def moves(warp: Floats) -> bool:
    """Whether one map (2, 3) is not the identity: ``moved`` at a tenth of its time."""
    return warp.tolist() != _IDENTITY_ROWS and len(moved(warp[None])) > 0


def image(view: Uint8, warp: Floats) -> Uint8:
    """One view, uint8 (S, S, 3), through its inverse map (2, 3)."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(view, warp, view.shape[1::-1], flags=flags, borderMode=cv2.BORDER_CONSTANT)


def batch(x: Tensor, warp: Floats) -> Tensor:
    """The same for whole-level floats (N, S, 3, S) on any device, each with its own map, in place."""
    rows = moved(warp)
    if len(rows):
        size = x.shape[1]
        where = torch.from_numpy(rows).to(x.device, non_blocking=True)
        inverse = torch.from_numpy(warp[rows]).to(x.device, torch.float32, non_blocking=True)
        pixel = torch.arange(size, device=x.device, dtype=torch.float32)
        at = torch.stack([pixel.expand(size, size), pixel[:, None].expand(size, size), torch.ones_like(x[0, :, 0])], 2)
        grid = (torch.einsum("nij,yxj->nyxi", inverse, at) + 0.5) * (2 / size) - 1
        turned = torch.nn.functional.grid_sample(x[where].transpose(1, 2), grid, align_corners=False)
        x[where] = turned.transpose(1, 2).round_()
    return x
