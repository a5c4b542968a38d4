"""What a graph does with its image before the first convolution: how many channels it takes, and of which range."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from softedge.export.onnx.rewrite import attribute, constants

_PASSED = ("Cast", "Identity", "Clip", "Pad", "Sub", "Add", "Mul", "Div", "Transpose")
_TO_PLANES = [0, 3, 1, 2]
_OF_LEVELS = 1 / 32  # largest factor of a network that takes 0..255: 1 / 57 at ImageNet's smallest deviation
_OF_SHARES = (1.5, 10.0)  # factors of one that takes 0..1: 1 / 0.5, 1 / 0.225


@dataclass(frozen=True)
class Beginning:
    """channels: that the first convolution takes, 0 where it is not found.  planes: whether the image has them first.

    factor, shift: the image x becomes factor · x + shift, per channel or one for all.
    """

    channels: int
    planes: bool
    factor: NDArray[np.float64]
    shift: NDArray[np.float64]

    def white(self) -> float | None:
        """The largest value that the image has, 255 or 1, where the graph normalises it itself; None where it does not
        or another way."""
        size = np.abs(self.factor)
        if size.min() > 0 and size.max() <= _OF_LEVELS:
            return 255.0
        middle = -self.shift / np.where(self.factor == 0, 1, self.factor)
        if _OF_SHARES[0] <= size.min() and size.max() <= _OF_SHARES[1] and middle.min() >= 0.2 and middle.max() <= 0.7:
            return 1.0
        return None


def beginning(model: onnx.ModelProto) -> Beginning:
    """Of a graph with one input, constants folded."""
    known, planes = constants(model), True
    factor, shift = np.ones(1), np.zeros(1)
    for node in _path(model):
        if node.op_type == "Conv":
            weight = known.get(node.input[1])
            channels = int(weight.dims[1]) * int(str(attribute(node, "group", 1))) if weight is not None else 0
            return Beginning(channels, planes, factor, shift)
        if node.op_type == "Transpose":
            if attribute(node, "perm") != _TO_PLANES:
                break
            planes = False
        elif node.op_type in ("Sub", "Add", "Mul", "Div"):
            other = next((numpy_helper.to_array(known[name]).reshape(-1) for name in node.input if name in known), None)
            first = node.input[0] not in known
            if other is None or other.size not in (1, 3) or (not first and node.op_type in ("Sub", "Div")):
                break
            if node.op_type in ("Mul", "Div"):
                a = other.astype(np.float64) if node.op_type == "Mul" else 1 / other.astype(np.float64)
                factor, shift = factor * a, shift * a
            else:
                shift = shift + (other if node.op_type == "Add" else -other)
    return Beginning(0, planes, np.ones(1), np.zeros(1))


def _path(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """The operators behind the input, as long as each has one reader, and the first convolution."""
    value = model.graph.input[0].name
    while True:
        readers = [node for node in model.graph.node if value in node.input]
        if len(readers) != 1:
            return
        yield readers[0]
        if readers[0].op_type not in _PASSED:
            return
        value = readers[0].output[0]
