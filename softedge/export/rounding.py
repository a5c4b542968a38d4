"""Weights rounded to 8 bits so that each layer's output changes least, for any format that stores them per channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from softedge.export.base import Uint8
from softedge.export.calibration import spread
from softedge.export.deployed import Deployed
from softedge.progress import track

IMAGES = 64  # that layers are compared on, at most: each layer costs two passes over them
_FEWEST = 32
_POSITIONS = 16384  # of a layer's input that make its second moments; where an image has many, fewer images do
_DAMPING = 0.01  # of their mean, added to the diagonal: the value of Frantar et al.
LARGEST = 127  # of the integers of 8 bits
_BATCH = 32
_PATCHED = 8  # images whose patches are held at once


class _Reached(Exception):
    """The layer that a pass was for has its input."""


def rounded(deployed: Deployed, calibration: Uint8, smallest: int = 1, largest: int = LARGEST) -> Deployed:
    """The network, BatchNorm folded, with every convolution and linear layer on a grid of ±largest steps per channel.

    Layer after layer, each on the inputs that the rounded layers before it give: the weights by ``least_error``, then
    the bias so that the mean of each output channel is that of fp32.  The largest weight of a channel stays what it
    was, so that a format that divides by the largest finds the same integers.
    calibration: uint8 (N, S, S, 3), unlabelled.  smallest: number of weights below which a layer's stay as they are.
    largest: 127 for 8 bits, 63 for 7.
    """
    network, original = deployed.folded(), deployed.folded()
    images = calibration[spread(len(calibration), IMAGES)]
    with torch.no_grad():
        layers = dict(_layers(original))
        positions = _positions(original, images[:1])
        for name, layer in track(_layers(network), "rounding weights"):
            if name not in positions:  # not used, or used twice
                continue
            some = images[spread(len(images), max(_FEWEST, -(-_POSITIONS // positions[name])))]
            groups = getattr(layer, "groups", 1)
            weight = layer.weight.reshape(groups, layer.weight.shape[0] // groups, -1)
            moments, mean = _moments(network, layer, some)
            coded = least_error(weight, moments, largest) if weight.numel() >= smallest else weight
            if layer.bias is not None:
                wanted = _moments(original, layers[name], some)[1]
                layer.bias += (weight @ wanted - coded @ mean).reshape(-1)
            layer.weight.copy_(coded.reshape(layer.weight.shape))
    return network


def least_error(weight: Tensor, moments: Tensor, largest: int = LARGEST) -> Tensor:
    """Round (G, O, K) to ±largest steps per output channel with a small error of the outputs, E |(w - q) x|².

    One input after the other is rounded, and what it changes is made up for by those that are still in float, as their
    correlations with it allow: Frantar et al. 2022, GPTQ, arXiv 2210.17323, eq. 2 and 3 in its Cholesky form.
    moments: (G, K, K), E[x xᵀ] of each group's inputs.  Inputs of the largest second moment come first.
    """
    scale = weight.abs().amax(2).clamp_min(1e-12) / largest
    top = weight.abs().argmax(2)
    power = moments.diagonal(dim1=1, dim2=2)
    damping = _DAMPING * power.mean(1, keepdim=True).expand_as(power) + 1e-9
    order = power.argsort(dim=1, descending=True, stable=True)
    matrix = moments + torch.diag_embed(damping)
    matrix = matrix.gather(1, order[..., None].expand_as(matrix)).gather(2, order[:, None].expand_as(matrix))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))
    upper = torch.linalg.cholesky(inverse, upper=True)
    place = order[:, None].expand_as(weight)
    left, coded = weight.gather(2, place).clone(), torch.empty_like(weight)
    for k in range(weight.shape[2]):
        value = left[:, :, k]
        steps = (value / scale).round().clamp(-largest, largest)
        first = order[:, None, k] == top
        chosen = torch.where(first, weight.gather(2, top[..., None])[..., 0], steps * scale)
        coded[:, :, k] = chosen
        error = (value - chosen) / upper[:, k, k, None]
        left[:, :, k + 1 :] -= error[..., None] * upper[:, None, k, k + 1 :]
    return torch.empty_like(coded).scatter_(2, place, coded)


def _layers(network: nn.Module) -> list[tuple[str, Any]]:
    return [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def _columns(layer: nn.Module, x: Tensor, output: Tensor) -> Tensor:
    """What a layer multiplies its weights with, (G, K, positions), for inputs (N, ...) that gave ``output``."""
    if isinstance(layer, nn.Linear):
        return x.reshape(1, -1, x.shape[-1]).transpose(1, 2)
    assert isinstance(layer, nn.Conv2d)
    patches = functional.unfold(_padded(layer, x, output), layer.kernel_size, layer.dilation, 0, layer.stride)
    n, _, positions = patches.shape
    return patches.reshape(n, layer.groups, -1, positions).permute(1, 2, 0, 3).reshape(layer.groups, -1, n * positions)


def _padded(layer: nn.Conv2d, x: Tensor, output: Tensor) -> Tensor:
    """Inputs with the layer's own padding, or where that gives no output of this size with TensorFlow's "same", which
    timm's tf_* networks add in ``forward``."""
    amounts: list[int] = []
    for axis in (1, 0):  # functional.pad begins with the last axis
        size, wanted = x.shape[2 + axis], output.shape[2 + axis]
        stride, reach = layer.stride[axis], (layer.kernel_size[axis] - 1) * layer.dilation[axis] + 1
        own = layer.padding[axis] if isinstance(layer.padding, tuple) else -1
        if own >= 0 and (size + 2 * own - reach) // stride + 1 == wanted:
            amounts += [own, own]
        else:
            total = max((wanted - 1) * stride + reach - size, 0)
            amounts += [total // 2, total - total // 2]
    return functional.pad(x, amounts)


def _moments(network: Deployed, layer: nn.Module, images: Uint8) -> tuple[Tensor, Tensor]:
    """E[x xᵀ], (G, K, K), and E[x], (G, K, 1), of a layer's inputs over images and positions."""
    found: list[tuple[Tensor, Tensor, int, int]] = []

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        for part, result in zip(inputs[0].split(_PATCHED), output.split(_PATCHED)):
            columns = _columns(module, part, result)
            step = max(1, columns.shape[2] * len(images) // (len(part) * _POSITIONS)) | 1  # odd: it visits every row
            some = columns[:, :, ::step].contiguous()
            found.append((some @ some.transpose(1, 2), columns.sum(2, keepdim=True), some.shape[2], columns.shape[2]))

    _run(network, images, {layer: add}, last=True)
    squares, sums, some, all_of_them = (sum(values) for values in zip(*found, strict=True))
    return squares / some, sums / all_of_them


def _positions(network: Deployed, image: Uint8) -> dict[str, int]:
    """How often a layer that runs once applies its weights to one image, by name."""
    found: dict[str, list[int]] = {}

    def counter(name: str) -> Callable[..., None]:
        def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            del inputs
            channels = output.shape[1] if isinstance(module, nn.Conv2d) else output.shape[-1]
            found.setdefault(name, []).append(output.numel() // channels)

        return count

    _run(network, image, {layer: counter(name) for name, layer in _layers(network)})
    return {name: counts[0] for name, counts in found.items() if len(counts) == 1}


def _run(network: Deployed, images: Uint8, hooks: dict[nn.Module, Callable[..., None]], last: bool = False) -> None:
    """Call the hooks with what their layers read; last: a batch ends there."""

    def stop(module: nn.Module, inputs: Any, output: Tensor) -> None:
        raise _Reached

    handles = [layer.register_forward_hook(hook) for layer, hook in hooks.items()]
    handles += [layer.register_forward_hook(stop) for layer in hooks if last]
    try:
        for start in range(0, len(images), _BATCH):
            try:
                network(torch.from_numpy(np.ascontiguousarray(images[start : start + _BATCH])))
            except _Reached:
                continue
    finally:
        for handle in handles:
            handle.remove()
