"""Weights rounded to 8 bits so that each layer's output changes least, for any format that stores them per channel."""

from __future__ import annotations

import math
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

IMAGES = 64  # that layers are compared on, at most: each layer costs a pass over them
POSITIONS = 16384  # of a layer's inputs, at most, that make their second moments
WIDEST = 1 << 26  # numbers of a layer's second moments, 256 MB: 8,192 inputs; layers with more keep the nearest steps
_DAMPING = 0.01  # of their mean, added to the diagonal: the value of Frantar et al.
LARGEST = 127  # of the integers of 8 bits
_BATCH = 32
_EACH = 4  # images that share their places in a map
_TOGETHER = 128  # inputs whose errors reach the others at once: the block of Frantar et al.
_SAME_STEP = 1 + 1e-5  # of two steps that are the same but for the rounding of float32
_SAME = 1e-3  # of the size of a layer's mean outputs: rounding of float32 is far below, other weights far above


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
    for one in (network, original):  # in this memory convolutions are faster
        one.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = calibration[spread(len(calibration), IMAGES)]
    with torch.no_grad():
        wanted = _means(original, images)
        for name, layer in track(_layers(network), "rounding weights"):
            if name not in wanted:  # not used, used twice, or more than weights times inputs
                continue
            groups = getattr(layer, "groups", 1)
            weight = layer.weight.contiguous().reshape(groups, layer.weight.shape[0] // groups, -1)
            if groups * weight.shape[2] ** 2 > WIDEST:
                continue
            moments, mean = _moments(network, layer, images)
            coded = least_error(weight, moments, largest) if weight.numel() >= smallest else weight
            if layer.bias is not None:
                layer.bias += (weight @ wanted[name] - coded @ mean).reshape(-1)
            if coded is not weight:
                layer.weight.copy_(coded.reshape(layer.weight.shape))
    return network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload, no-any-return]


def least_error(weight: Tensor, moments: Tensor, largest: int = LARGEST, scale: Tensor | None = None) -> Tensor:
    """Round (G, O, K) to ±largest steps per output channel with a small error of the outputs, E |(w - q) x|².

    One input after the other is rounded, and what it changes is made up for by those that are still in float, as their
    correlations with it allow: Frantar et al. 2022, GPTQ, arXiv 2210.17323, eq. 2 and 3 in its Cholesky form.
    moments: (G, K, K), E[x xᵀ] of each group's inputs.  Inputs of the largest second moment come first.
    scale: (G, O), the steps of channels whose grid is wider than their largest weight asks for.
    """
    own = weight.abs().amax(2).clamp_min(1e-12) / largest
    scale = own if scale is None else torch.maximum(own, scale)
    kept = scale <= own * _SAME_STEP
    top = weight.abs().argmax(2)
    power = moments.diagonal(dim1=1, dim2=2)
    damping = _DAMPING * power.mean(1, keepdim=True).expand_as(power) + 1e-9
    order = power.argsort(dim=1, descending=True, stable=True)
    matrix = moments + torch.diag_embed(damping)
    matrix = matrix.gather(1, order[..., None].expand_as(matrix)).gather(2, order[:, None].expand_as(matrix))
    upper = _inverse_factor(matrix)
    place = order[:, None].expand_as(weight)
    left, coded = weight.gather(2, place).clone(), torch.empty_like(weight)
    inputs = weight.shape[2]
    for start in range(0, inputs, _TOGETHER):
        end = min(start + _TOGETHER, inputs)
        errors = torch.empty_like(weight[:, :, start:end])
        for k in range(start, end):
            value = left[:, :, k]
            steps = (value / scale).round().clamp(-largest, largest)
            first = (order[:, None, k] == top) & kept
            chosen = torch.where(first, weight.gather(2, top[..., None])[..., 0], steps * scale)
            coded[:, :, k] = chosen
            error = errors[:, :, k - start] = (value - chosen) / upper[:, k, k, None]
            left[:, :, k + 1 : end] -= error[..., None] * upper[:, None, k, k + 1 : end]
        left[:, :, end:] -= errors @ upper[:, start:end, end:]  # the rest of the memory is passed over once a block
    return torch.empty_like(coded).scatter_(2, place, coded)


def _inverse_factor(matrix: Tensor) -> Tensor:
    """U of (G, K, K) with Uᵀ U the inverse of ``matrix``; the identity, with which every weight goes to its nearest
    step, for groups that have none: moments that are not finite, or singular in float32."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    identity = torch.eye(matrix.shape[-1]).expand_as(matrix)
    good = (failed == 0) & factor.isfinite().all(2).all(1)
    inverse = torch.cholesky_inverse(torch.where(good[:, None, None], factor, identity))
    upper, failed = torch.linalg.cholesky_ex(inverse, upper=True)
    good &= (failed == 0) & upper.isfinite().all(2).all(1)
    return torch.where(good[:, None, None], upper, identity)


def _layers(network: nn.Module) -> list[tuple[str, Any]]:
    return [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def _columns(layer: nn.Module, x: Tensor, output: Tensor, every: int = 1, first: int = 0) -> Tensor:
    """What a layer multiplies its weights with, (G, K, positions), for inputs (N, ...) that gave ``output``.

    every: of a map's rows and columns only each ``every``-th, from the ``first`` on.
    """
    if isinstance(layer, nn.Linear):
        return x.reshape(1, -1, x.shape[-1])[:, first::every].transpose(1, 2)
    assert isinstance(layer, nn.Conv2d)
    padded = _padded(layer, x, output)
    down, right = (min(first, size - 1) * stride for size, stride in zip(output.shape[2:], layer.stride))
    strides = tuple(stride * every for stride in layer.stride)
    patches = functional.unfold(padded[:, :, down:, right:], layer.kernel_size, layer.dilation, 0, strides)
    n, _, positions = patches.shape
    return patches.reshape(n, layer.groups, -1, positions).permute(1, 2, 0, 3).reshape(layer.groups, -1, n * positions)


def _sums(layer: nn.Module, x: Tensor, output: Tensor) -> Tensor:
    """The sum of all ``_columns``, (G, K, 1)."""
    if isinstance(layer, nn.Linear):
        return x.reshape(-1, x.shape[-1]).sum(0)[None, :, None]
    assert isinstance(layer, nn.Conv2d)
    padded = _padded(layer, x, output)
    taps = []
    for row in range(layer.kernel_size[0]):
        for column in range(layer.kernel_size[1]):
            starts = row * layer.dilation[0], column * layer.dilation[1]
            rows, columns = (
                slice(start, start + (size - 1) * stride + 1, stride)
                for start, size, stride in zip(starts, output.shape[2:], layer.stride)
            )
            taps.append(padded[:, :, rows, columns].sum((0, 2, 3)))
    return torch.stack(taps, 1).reshape(layer.groups, -1, 1)


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


class _Mean:
    """Of what is added as sums over so many."""

    def __init__(self) -> None:
        self.total, self.count = torch.zeros(()), 0

    def add(self, total: Tensor, count: int) -> None:
        self.total, self.count = self.total + total, self.count + count

    def value(self) -> Tensor:
        return self.total / self.count


class Moments:
    """E[x xᵀ] of some of a layer's inputs and E[x] of all, over images and positions.

    layer: an nn.Conv2d or nn.Linear.  images: how many will be added.  squares: False for the mean alone.
    """

    def __init__(self, layer: nn.Module, images: int, squares: bool = True):
        self.layer, self.images, self.wanted, self.parts = layer, images, squares, 0
        self.squares, self.sums = _Mean(), _Mean()

    def add(self, x: Tensor, output: Tensor) -> None:
        """Inputs (N, ...) and the outputs that they gave, of which only the size matters."""
        positions = _positions(self.layer, output)
        self.sums.add(_sums(self.layer, x, output), positions)
        if not self.wanted:
            return
        share = self.images * positions // len(output) / POSITIONS
        every = max(1, math.ceil(math.sqrt(share) if isinstance(self.layer, nn.Conv2d) else share))
        for part, result in zip(x.split(_EACH), output.split(_EACH)):
            columns = _columns(self.layer, part, result, every, self.parts % every)
            self.squares.add(columns @ columns.transpose(1, 2), columns.shape[2])
            self.parts += 1

    def second(self) -> Tensor:
        """(G, K, K)."""
        return self.squares.value()

    def mean(self) -> Tensor:
        """(G, K, 1)."""
        return self.sums.value()


def _moments(network: Deployed, layer: nn.Module, images: Uint8) -> tuple[Tensor, Tensor]:
    moments = Moments(layer, len(images))
    _run(network, images, {layer: lambda module, inputs, output: moments.add(inputs[0], output)}, last=True)
    return moments.second(), moments.mean()


def _means(network: Deployed, images: Uint8) -> dict[str, Tensor]:
    """E[x], (G, K, 1), by name, of every layer that runs once and gives its weights times its inputs.

    Others do not: with weights standardized in ``forward`` (NFNet, ResNetV2), padding by reflection, outputs that
    overflow.
    """
    input_means: dict[str, _Mean] = {}
    given: dict[str, _Mean] = {}
    calls: dict[str, int] = {}

    def adds(name: str) -> Callable[..., None]:
        def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if not inputs or (isinstance(module, nn.Conv2d) and output.ndim != 4):
                return
            positions, channels = _positions(module, output), 1 if isinstance(module, nn.Conv2d) else -1
            input_means.setdefault(name, _Mean()).add(_sums(module, inputs[0], output), positions)
            given.setdefault(name, _Mean()).add(output.movedim(channels, 0).flatten(1).sum(1), positions)
            calls[name] = calls.get(name, 0) + 1

        return add

    layers = _layers(network)
    _run(network, images, {layer: adds(name) for name, layer in layers})
    passes = -(-len(images) // _BATCH)
    means = {name: mean.value() for name, mean in input_means.items() if calls[name] == passes}
    return {
        name: means[name] for name, layer in layers if name in means and _gives(layer, means[name], given[name].value())
    }


def _gives(layer: Any, mean: Tensor, wanted: Tensor) -> bool:
    """Whether ``layer`` with mean inputs (G, K, 1) has the mean outputs (O,) that are wanted."""
    weight = layer.weight.reshape(mean.shape[0], -1, mean.shape[1])
    bias = 0.0 if layer.bias is None else layer.bias
    size = (weight.abs() @ mean.abs()).reshape(-1)
    gap = ((weight @ mean).reshape(-1) + bias - wanted).abs()
    return bool((gap <= _SAME * (size + wanted.abs()) + 1e-6).all())


def _positions(layer: nn.Module, output: Tensor) -> int:
    """How often a layer has applied its weights to give ``output``."""
    return output.numel() // (output.shape[1] if isinstance(layer, nn.Conv2d) else output.shape[-1])


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
