"""What a graph does with its image before the first convolution: how many channels it takes, and of which range."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx
from onnx import numpy_helper

from softedge.export.onnx.rewrite import attribute, constants
from softedge.export.own_normalisation import Normalisation

_PASSED = ("Cast", "Identity", "Clip", "Pad", "Sub", "Add", "Mul", "Div", "Transpose")
_TO_PLANES = [0, 3, 1, 2]


@dataclass(frozen=True)
class Beginning:
    """channels: that the first convolution takes, 0 where it is not found.  planes: whether the image has them first.

    own: what the graph does with the image's values before.
    """

    channels: int
    planes: bool
    own: Normalisation


def beginning(model: onnx.ModelProto) -> Beginning:
    """Of a graph with one input, constants folded."""
    known, planes = constants(model), True
    own = Normalisation()
    for node in _path(model):
        if node.op_type == "Conv":
            weight = known.get(node.input[1])
            channels = int(weight.dims[1]) * int(str(attribute(node, "group", 1))) if weight is not None else 0
            return Beginning(channels, planes, own)
        if node.op_type == "Transpose":
            if attribute(node, "perm") != _TO_PLANES:
                break
            planes = False
        elif node.op_type in ("Sub", "Add", "Mul", "Div"):
            other = next((numpy_helper.to_array(known[name]).reshape(-1) for name in node.input if name in known), None)
            first = node.input[0] not in known
            if other is None or other.size not in (1, 3) or (not first and node.op_type in ("Sub", "Div")):
                break
            own = own.then(node.op_type.lower(), other)
    return Beginning(0, planes, Normalisation())


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
