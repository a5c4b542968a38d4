"""The weights of an OpenVINO network rounded so that each layer's output changes least: ``export.rounding`` on an IR.

Layer after layer, each on what the rounded layers before it give; the network is computed up to there each time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from softedge.export.base import Uint8
from softedge.export.calibration import spread
from softedge.export.openvino.int8 import WEIGHTED
from softedge.export.openvino.network import Feed, compiled
from softedge.export.rounding import IMAGES, LARGEST, WIDEST, Moments, least_error
from softedge.progress import track

_BATCH = 4  # images that are computed together, where the network takes so many


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer whose weights are a constant of its own.

    op: it.  value: its weights as it reads them.
    """

    op: Any
    value: np.ndarray

    @cached_property
    def about(self) -> dict[str, Any]:
        return dict(self.op.get_attributes())

    @property
    def linear(self) -> bool:
        return bool(self.op.get_type_name() == "MatMul")

    @cached_property
    def weight(self) -> Tensor:
        """(G, O / G, K)."""
        value, grouped = self.value, self.op.get_type_name() == "GroupConvolution"
        if self.linear and not self.about["transpose_b"]:
            value = value.T
        groups = value.shape[0] if grouped else 1
        outputs = value.shape[1] if grouped else value.shape[0]
        return torch.from_numpy(np.array(value, np.float32).reshape(groups, outputs, -1))

    def stored(self, weight: Tensor) -> np.ndarray:
        """(G, O / G, K) in the shape that the operation reads."""
        if self.linear and not self.about["transpose_b"]:
            return np.ascontiguousarray(weight.numpy()[0].T)
        return weight.numpy().reshape(self.value.shape)

    @cached_property
    def module(self) -> nn.Module:
        """It holds no weights."""
        groups, outputs, inputs = self.weight.shape
        if self.linear:
            return nn.Linear(inputs, outputs, device="meta")
        kernel = self.value.shape[-2:]
        return nn.Conv2d(
            groups * inputs // (kernel[0] * kernel[1]),
            groups * outputs,
            (kernel[0], kernel[1]),
            stride=tuple(self.about["strides"]),
            dilation=tuple(self.about["dilations"]),
            groups=groups,
            device="meta",
        )

    def add(self, moments: Moments, value: np.ndarray) -> None:
        """What the operation reads, (N, ...): padded here, or by ``Moments``, by the size of the output."""
        x = torch.from_numpy(np.array(value))
        if self.linear or self.about["auto_pad"] != "same_upper":
            if not self.linear and self.about["auto_pad"] != "valid":
                begin, end = self.about["pads_begin"], self.about["pads_end"]
                x = functional.pad(x, [begin[1], end[1], begin[0], end[0]])
            output = self.module(x.to("meta"))
        else:
            sizes = [-(-size // stride) for size, stride in zip(x.shape[2:], self.about["strides"])]
            output = torch.empty(len(x), self.module.out_channels, *sizes, device="meta")  # type: ignore[call-overload]
        moments.add(x, output)


def rounded(network: Any, images: Uint8, feed: Feed, steps: int = LARGEST) -> Any:
    """A copy of a float network with each layer's weights on NNCF's grid of 8 bits, for the least error of its output,
    and its bias such that the mean of each output channel stays.

    images: uint8 (N, S, S, 3), unlabelled; at most ``IMAGES`` of them are asked.  feed: images -> what it takes.
    steps: to the largest weight of each output channel, see ``int8.weight_grids``.
    """
    from openvino import opset13 as op

    changed = network.clone()
    chosen, images = layers(changed), images[spread(len(images), IMAGES)]
    wanted = _means(network, layers(network), images, feed)
    for layer in track(chosen, "rounding weights"):
        moments = Moments(layer.module, len(images))
        for value in _values(changed, [layer.op], images, feed):
            layer.add(moments, value[0])
        weight = least_error(layer.weight, moments.second(), steps)
        constant = op.constant(layer.stored(weight), np.float32)
        constant.set_friendly_name(layer.op.input_value(1).get_node().get_friendly_name())
        layer.op.input(1).replace_source_output(constant.output(0))
        more = layer.weight @ wanted[layer.op.get_friendly_name()] - weight @ moments.mean()
        _add_to_bias(layer, more.reshape(-1).numpy())
    return changed


def layers(network: Any) -> list[Layer]:
    """Those that can be rounded, in order of computation."""
    rounding = []
    for op in network.get_ordered_ops():
        if op.get_type_name() not in WEIGHTED:
            continue
        about, source = op.get_attributes(), op.input_value(1)
        constant = source.get_node()
        if constant.get_type_name() != "Constant" or len(source.get_target_inputs()) > 1:
            continue
        value = constant.get_data()
        dims = {"Convolution": 4, "GroupConvolution": 5, "MatMul": 2}[op.get_type_name()]
        odd = about.get("transpose_a") or about.get("auto_pad") == "same_lower"
        if odd or value.ndim != dims or value.dtype != np.float32:
            continue
        layer = Layer(op, np.array(value))
        groups, _, inputs = layer.weight.shape
        if groups * inputs**2 <= WIDEST:
            rounding.append(layer)
    return rounding


def _means(network: Any, chosen: Sequence[Layer], images: Uint8, feed: Feed) -> dict[str, Tensor]:
    """E[x], (G, K, 1), of what each layer reads, by its name."""
    moments = [Moments(layer.module, len(images), squares=False) for layer in chosen]
    for values in _values(network, [layer.op for layer in chosen], images, feed):
        for layer, mean, value in zip(chosen, moments, values):
            layer.add(mean, value)
    return {layer.op.get_friendly_name(): mean.mean() for layer, mean in zip(chosen, moments)}


def _values(network: Any, ops: Sequence[Any], images: Uint8, feed: Feed) -> Iterator[list[np.ndarray]]:
    """What operations read, of each few images; nothing behind them is computed."""
    import openvino as ov
    from openvino import opset13

    results = [opset13.result(op.input_value(0)) for op in ops]
    run = compiled(ov.Model(results, network.get_parameters()))
    batch = network.inputs[0].get_partial_shape()[0]
    step = _BATCH if batch.is_dynamic else batch.get_length()
    for start in range(0, len(images), step):
        values = run(feed(images[start : start + step]))
        yield [values[index] for index in range(len(ops))]


def _add_to_bias(layer: Layer, more: np.ndarray) -> None:
    """Into the constant that is added to the layer's outputs; nowhere where there is none of a value a channel."""
    from openvino import opset13 as op

    readers = list(layer.op.output(0).get_target_inputs())
    if len(readers) != 1 or readers[0].get_node().get_type_name() != "Add":
        return
    entry = readers[0].get_node().input(1 - readers[0].get_index())
    constant = entry.get_source_output().get_node()
    if constant.get_type_name() != "Constant":
        return
    bias = constant.get_data()
    channel = bias.ndim - (1 if layer.linear else 3)
    if channel < 0 or bias.size != len(more) or bias.shape[channel] != len(more):
        return
    own = op.constant((bias + more.reshape(bias.shape)).astype(np.float32), np.float32)
    own.set_friendly_name(constant.get_friendly_name())
    entry.replace_source_output(own.output(0))
