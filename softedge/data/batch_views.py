"""Views of a whole batch at once with tensor operations, each image with its own parameters: small images on a CPU,
everything on a GPU. The arithmetic is Pillow's, to a level or so.

Inside, images are float tensors of whole levels 0..255 in the order (N, H, 3, W): crops and blurs are then two plain
batched matrix products, and a channel is ``x[:, :, c]``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softedge.data import warps
from softedge.data.draws import BRIGHTNESS, CONTRAST, HUE, SATURATION, Bools, Draws, Floats, Ints, boxes

_LUMA = (19595, 38470, 7471)  # Pillow's L = (19595 R + 38470 G + 7471 B + 32768) >> 16


def views(images: Tensor, draws: Draws, size: int) -> Tensor:
    """One view of each image: uint8 (N, H, 3, W) -> uint8 (N, size, size, 3)."""
    return to_uint8(colour(crop(images, draws, size), draws))


def colour(x: Tensor, draws: Draws) -> Tensor:
    """Jitter, greyscale and blur of cropped views, in place where possible: float (N, S, 3, S)."""
    return blur(greyscale(jitter(x, draws), draws), draws)


def to_rows(images: Tensor) -> Tensor:
    """uint8 (N, H, W, 3) -> uint8 (N, H, 3, W)."""
    return images.permute(0, 1, 3, 2).contiguous()


def to_uint8(x: Tensor) -> Tensor:
    """float (N, H, 3, W) of whole levels -> uint8 (N, H, W, 3)."""
    return x.permute(0, 1, 3, 2).to(torch.uint8, memory_format=torch.contiguous_format)


def crop(images: Tensor, draws: Draws, size: int) -> Tensor:
    """Random resized crop and flip: (N, H, 3, W) -> float (N, size, 3, size), antialiased bilinear as in Pillow."""
    n, height, _, width = images.shape
    box = boxes(draws, width, height)
    across = resize_weights(box[:, 0], box[:, 2], width, size, images.device, draws.flip)
    down = resize_weights(box[:, 1], box[:, 3], height, size, images.device)
    x = _half_up(torch.bmm(images.reshape(n, height * 3, width).float(), across.transpose(1, 2)))
    return warps.batch(_half_up(torch.bmm(down, x.view(n, height, 3 * size))).view(n, size, 3, size), draws.warp)


def _sent(values: NDArray[Any], device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Parameters as a tensor on ``device``, without waiting for what a GPU still has to do."""
    return torch.from_numpy(values).to(device, dtype, non_blocking=True)


def _half_up(x: Tensor) -> Tensor:
    """Round as Pillow's resampling does, within the range of uint8."""
    return x.add_(0.5).floor_().clamp_(0, 255)


def resize_weights(
    start: Ints, length: Ints, side: int, size: int, device: torch.device, flip: Bools | None = None
) -> Tensor:
    """Rows of triangle weights (n, size, side) that resample the range [start, start + length) of a line of ``side``
    pixels to ``size``; nothing outside of the range is read (Pillow: ``crop`` and then ``resize``). ``flip`` (n,)
    turns the result around."""
    first = _sent(start, device, torch.float32)[:, None, None]
    count = _sent(length, device, torch.float32)[:, None, None]
    scale = count / size
    to = torch.arange(size, device=device, dtype=torch.float32)[None, :, None]
    if flip is not None:
        to = torch.where(_sent(flip, device)[:, None, None], size - 1 - to, to)
    centre = first + (to + 0.5) * scale
    pixel = torch.arange(side, device=device, dtype=torch.float32)[None, None, :]
    weight = (1 - (pixel + 0.5 - centre).abs() / scale.clamp_min(1)).clamp_min(0)
    weight = weight * ((pixel >= first) & (pixel < first + count))
    return weight / weight.sum(2, keepdim=True)


def jitter(x: Tensor, draws: Draws) -> Tensor:
    """Brightness, contrast, saturation and hue in each image's own order, in place: float (N, H, 3, W)."""
    for position in range(4):
        for operation in (BRIGHTNESS, CONTRAST, SATURATION, HUE):
            chosen = np.flatnonzero(draws.jitter & (draws.order[:, position] == operation))
            if len(chosen):
                rows = _sent(chosen, x.device)
                x[rows] = _OPERATIONS[operation](x[rows], draws.factors[chosen, operation])
    return x


def _column(values: Floats, x: Tensor) -> Tensor:
    return _sent(values, x.device, torch.float32)[:, None, None, None]


def _blend(x: Tensor, other: Tensor | float, factor: Tensor) -> Tensor:
    """Pillow's blend: other + factor (x - other), clipped and truncated to whole levels."""
    return x.sub_(other).mul_(factor).add_(other).clamp_(0, 255).floor_()


def _brightness(x: Tensor, factor: Floats) -> Tensor:
    return x.mul_(_column(factor, x)).clamp_(0, 255).floor_()


def _contrast(x: Tensor, factor: Floats) -> Tensor:
    mean = (luma(x).mean((1, 3), keepdim=True) + 0.5).floor()
    return _blend(x, mean, _column(factor, x))


def _saturation(x: Tensor, factor: Floats) -> Tensor:
    return _blend(x, luma(x), _column(factor, x))


def _hue(x: Tensor, factor: Floats) -> Tensor:
    """Pillow's RGB -> HSV in 8 bits, the hue turned by int(255 factor) steps of 1/256, and back."""
    red, green, blue = x[:, :, 0], x[:, :, 1], x[:, :, 2]
    value, least = x.amax(2), x.amin(2)
    chroma = value - least
    safe = chroma.clamp_min(1)
    hue = torch.where(
        red == value,
        (green - blue) / safe,
        torch.where(green == value, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = (hue * (255 / 6)).add_(255).fmod_(255).floor_()
    saturation = (chroma * 255).div_(value.clamp_min(1)).floor_().div_(255)
    steps = _sent((factor * 255).astype(np.int64) % 256, x.device, torch.float32)
    hue = hue.add_(steps[:, None, None])
    sector = torch.where(hue >= 256, hue - 256, hue).mul_(6 / 255)
    amount = value * saturation
    for channel, offset in enumerate((5, 3, 1)):
        k = (sector + offset).fmod_(6)
        x[:, :, channel] = value - amount * torch.minimum(k, 4 - k).clamp_(0, 1)
    return x.round_()


_OPERATIONS = {BRIGHTNESS: _brightness, CONTRAST: _contrast, SATURATION: _saturation, HUE: _hue}


def luma(x: Tensor) -> Tensor:
    """Pillow's greyscale, whole levels: (N, H, 3, W) -> (N, H, 1, W)."""
    red, green, blue = _LUMA
    grey = x[:, :, 0:1] * red
    grey.add_(x[:, :, 1:2], alpha=green).add_(x[:, :, 2:3], alpha=blue)
    return grey.add_(32768).div_(65536).floor_()


def greyscale(x: Tensor, draws: Draws) -> Tensor:
    chosen = np.flatnonzero(draws.grey)
    if len(chosen):
        rows = _sent(chosen, x.device)
        x[rows] = luma(x[rows]).expand(-1, -1, 3, -1)
    return x


def blur(x: Tensor, draws: Draws) -> Tensor:
    """Gaussian blur with each image's own sigma; the border pixels are repeated outwards."""
    chosen = np.flatnonzero(draws.sigma > 0)
    if len(chosen):
        n, (height, width) = len(chosen), (x.shape[1], x.shape[3])
        rows = _sent(chosen, x.device)
        taps = _sent(draws.taps[chosen], x.device)
        across, down = _band(taps, width), _band(taps, height)
        y = _half_up(torch.bmm(x[rows].view(n, height * 3, width), across.transpose(1, 2)))
        x[rows] = _half_up(torch.bmm(down, y.view(n, height, 3 * width))).view(n, height, 3, width)
    return x


def _band(taps: Tensor, side: int) -> Tensor:
    """The matrices (n, side, side) of convolutions with ``taps`` (n, 2r + 1) on a line with repeated borders."""
    n, reach = taps.shape[0], taps.shape[1] // 2
    to = torch.arange(side, device=taps.device)[:, None]
    source = (to + torch.arange(-reach, reach + 1, device=taps.device)[None, :]).clamp_(0, side - 1)
    matrix = torch.zeros(n, side, side, device=taps.device)
    return matrix.scatter_add_(2, source.expand(n, -1, -1), taps[:, None, :].expand(-1, side, -1))
