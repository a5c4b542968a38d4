"""The weights of an ONNX graph rounded so that each layer's output changes least: ``export.rounding`` without PyTorch.

The graph is computed once on all images, from one layer to the next; only tensors that are still to be read are held.
What a layer reads was made by the rounded layers before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from softedge.export.base import Uint8
from softedge.export.calibration import spread
from softedge.export.onnx.quantizer import WeightGrid, output_axis
from softedge.export.onnx.ranges import session
from softedge.export.onnx.rewrite import attribute, constants, copied, has_weights, read_by, set_constant
from softedge.export.rounding import IMAGES, POSITIONS, WIDEST, Moments, least_error
from softedge.progress import track

_BATCH = 4  # images that are computed together
_FEWEST = 8  # images, however large their maps are
_MEMORY = 1 << 30  # bytes of tensors that are held between two layers
_OPERATIONS = 1e13  # multiplications in all; a core does 10 to 50 billion of them in a second


@dataclass(frozen=True)
class Rounded:
    """graph: the float graph with rounded weights.  left: the layers that are too expensive to be rounded so."""

    graph: onnx.ModelProto
    left: tuple[str, ...]


@dataclass(frozen=True)
class Layer:
    """One Conv, Gemm or MatMul with its weight, as PyTorch knows it.

    bias: the constant that is added to its outputs; None where there is none.
    """

    node: onnx.NodeProto
    value: np.ndarray
    bias: str | None

    @cached_property
    def module(self) -> nn.Module:
        """It holds no weights, and pads nothing: a map is padded before, see ``input``."""
        if self.node.op_type != "Conv":
            outputs, inputs = self.value.shape if output_axis(self.node) == 0 else self.value.shape[::-1]
            return nn.Linear(inputs, outputs, device="meta")
        outputs, inputs, *kernel = self.value.shape
        return nn.Conv2d(
            inputs * self.groups,
            outputs,
            (kernel[0], kernel[1]),
            stride=self._pair("strides"),
            dilation=self._pair("dilations"),
            groups=self.groups,
            device="meta",
        )

    @property
    def groups(self) -> int:
        return int(attribute(self.node, "group", 1)) if self.node.op_type == "Conv" else 1  # type: ignore[call-overload]

    @cached_property
    def weight(self) -> Tensor:
        """(G, O / G, K)."""
        first = np.moveaxis(self.value, output_axis(self.node), 0)
        return torch.from_numpy(
            np.array(first, np.float32, order="C").reshape(self.groups, len(first) // self.groups, -1)
        )

    def stored(self, weight: Tensor) -> np.ndarray:
        """(G, O / G, K) in the shape that the node reads."""
        axis = output_axis(self.node)
        return np.moveaxis(weight.numpy().reshape(np.moveaxis(self.value, axis, 0).shape), 0, axis)

    def input(self, value: np.ndarray) -> Tensor:
        """What the node reads, padded where it pads."""
        x = torch.from_numpy(value)
        return functional.pad(x, self._pads(x.shape[2], x.shape[3])) if self.node.op_type == "Conv" else x

    def output(self, x: Tensor) -> Tensor:
        """Of the size that padded inputs ``x`` give; it holds no values."""
        output: Tensor = self.module(x.to("meta"))
        return output

    def operations(self, positions: int) -> float:
        """Multiplications to sum the moments at so many positions, to invert them, and to round with them."""
        groups, outputs, inputs = self.weight.shape
        return float(groups * inputs**2 * (min(positions, POSITIONS) + inputs + outputs))

    def _pair(self, name: str) -> tuple[int, int]:
        values: Any = attribute(self.node, name, [1, 1])
        return int(values[0]), int(values[1])

    def _pads(self, height: int, width: int) -> list[int]:
        """Left, right, top, bottom, as ``functional.pad`` takes them."""
        how = attribute(self.node, "auto_pad", b"NOTSET")
        if how == b"NOTSET":
            pads: Any = attribute(self.node, "pads", [0, 0, 0, 0])
            top, left, bottom, right = pads
            return [left, right, top, bottom]
        amounts: list[int] = []
        for axis, size in ((1, width), (0, height)):
            stride = self._pair("strides")[axis]
            reach = (self.value.shape[2 + axis] - 1) * self._pair("dilations")[axis] + 1
            total = 0 if how == b"VALID" else max((-(-size // stride) - 1) * stride + reach - size, 0)
            less, more = total // 2, total - total // 2
            amounts += [less, more] if how == b"SAME_UPPER" else [more, less]
        return amounts


def rounded(model: onnx.ModelProto, grids: Mapping[str, WeightGrid], images: Uint8) -> Rounded:
    """A float graph with each layer's weights on the grid that they will be stored on, for the least error of its
    output (``export.rounding.least_error``), and its bias such that the mean of each output channel stays.

    grids: by the name of the node; others stay as they are, and so do weights that several nodes read.
    images: uint8 (N, S, S, 3), unlabelled; at most ``IMAGES`` of them are asked, fewer where their maps are large.
    """
    graph = copied(model)
    candidates = [layer for layer in layers(graph) if layer.node.name in grids]
    count, positions = _size(graph, candidates, images)
    chosen, left = _affordable(candidates, positions)
    images = images[spread(len(images), count)]
    wanted = {layer.node.name: moments.mean() for layer, moments in _walk(copied(graph), chosen, images, squares=False)}
    for layer, moments in _walk(graph, chosen, images):
        grid = grids[layer.node.name]
        steps = torch.from_numpy(np.asarray(grid.steps, np.float32)).reshape(layer.weight.shape[:2])
        weight = least_error(layer.weight, moments.second(), grid.limit, steps)
        known = constants(graph)
        set_constant(known[layer.node.input[1]], layer.stored(weight))
        if layer.bias:
            more = (layer.weight @ wanted[layer.node.name] - weight @ moments.mean()).reshape(-1).numpy()
            set_constant(known[layer.bias], numpy_helper.to_array(known[layer.bias]) + more)
    return Rounded(graph, tuple(layer.node.name for layer in left))


def layers(graph: onnx.ModelProto) -> list[Layer]:
    """What can be rounded, in order; each has a bias of its own afterwards, where it has one."""
    known = constants(graph)
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.graph.node:
        for name in read_by(node):
            readers.setdefault(name, []).append(node)
    candidates = []
    for node in graph.graph.node:
        if not has_weights(node, known) or len(readers[node.input[1]]) > 1:
            continue
        scaled = [
            attribute(node, name, default) != default
            for name, default in (("alpha", 1.0), ("beta", 1.0), ("transA", 0))
        ]
        value = numpy_helper.to_array(known[node.input[1]])
        if any(scaled) or value.ndim != (4 if node.op_type == "Conv" else 2) or value.dtype != np.float32:
            continue
        candidates.append(Layer(node, value, _own_bias(node, graph, readers)))
    return candidates


def _own_bias(node: onnx.NodeProto, graph: onnx.ModelProto, readers: Mapping[str, list[onnx.NodeProto]]) -> str | None:
    """The name of a layer's bias, copied where others read it, too: in the node or in an Add behind it."""
    known, adds, place = constants(graph), node, 2
    behind = readers.get(node.output[0], [])
    if node.op_type == "MatMul" and len(behind) == 1 and behind[0].op_type == "Add":
        adds, place = behind[0], int(behind[0].input[0] == node.output[0])
    if len(adds.input) <= place or adds.input[place] not in known:
        return None
    bias = known[adds.input[place]]
    outputs = known[node.input[1]].dims[output_axis(node)]
    if list(bias.dims)[-1:] != [outputs] or int(np.prod(bias.dims)) != outputs:
        return None  # of another shape, which the outputs are broadcast to
    if len(readers[bias.name]) > 1:
        own = f"{bias.name}_of_{node.name}"
        graph.graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(bias), own))
        adds.input[place] = own
    return adds.input[place]


def _walk(
    graph: onnx.ModelProto, chosen: Sequence[Layer], images: Uint8, squares: bool = True
) -> Iterator[tuple[Layer, Moments]]:
    """Each layer with the moments of what it reads.  What is changed about its weights counts from there on."""
    values = _Values(graph, images)
    for layer in track(chosen, "rounding weights") if squares else chosen:
        moments = Moments(layer.module, len(images), squares)
        for value in values.read_by(layer.node):
            x = layer.input(value)
            moments.add(x, layer.output(x))
        yield layer, moments


def _size(graph: onnx.ModelProto, candidates: Sequence[Layer], images: Uint8) -> tuple[int, dict[str, int]]:
    """How many images are used, and at how many positions in all of them each layer applies its weights."""
    values, positions = _Values(graph, images[:1]), {}
    for layer in candidates:
        x = layer.input(next(values.read_by(layer.node)))
        positions[layer.node.name] = layer.output(x).numel() // layer.value.shape[output_axis(layer.node)]
    count = min(len(images), IMAGES, max(_FEWEST, _MEMORY // max(values.most, 1)))
    return count, {name: count * some for name, some in positions.items()}


def _affordable(candidates: Sequence[Layer], positions: Mapping[str, int]) -> tuple[list[Layer], list[Layer]]:
    """The layers to round, in order, and those that are too wide or would take too long."""
    costs = {layer.node.name: layer.operations(positions[layer.node.name]) for layer in candidates}
    chosen, spent = set(), 0.0
    for name, layer in sorted(((layer.node.name, layer) for layer in candidates), key=lambda pair: costs[pair[0]]):
        groups, _, inputs = layer.weight.shape
        spent += costs[name]
        if spent <= _OPERATIONS and groups * inputs**2 <= WIDEST:
            chosen.add(name)
    return [x for x in candidates if x.node.name in chosen], [x for x in candidates if x.node.name not in chosen]


class _Values:
    """The tensors of a graph on some images, computed as far as they were asked for.

    most: bytes that were held for them at most.
    """

    def __init__(self, graph: onnx.ModelProto, images: Uint8):
        self.model, self.done, self.most = graph, 0, 0
        image = graph.graph.input[0]
        batch = image.type.tensor_type.shape.dim[0].dim_value or _BATCH
        self.parts = [{image.name: images[start : start + batch]} for start in range(0, len(images), batch)]

    def read_by(self, layer: onnx.NodeProto) -> Iterator[np.ndarray]:
        """What ``layer`` reads, (N, ...) of each few images.  Layers are asked for in their order."""
        nodes = self.model.graph.node
        end = next(index for index in range(self.done, len(nodes)) if nodes[index].name == layer.name)
        self._compute(end)
        for part in self.parts:
            yield part[layer.input[0]]

    def _compute(self, end: int) -> None:
        """All nodes before the ``end``-th; tensors that none behind reads are forgotten."""
        nodes = self.model.graph.node[self.done : end]
        later = {name for node in self.model.graph.node[end:] for name in read_by(node)}
        outputs = [name for node in nodes for name in node.output if name in later]
        held = set(self.parts[0])
        read = sorted(held & {name for node in nodes for name in read_by(node)})
        run = session(self._segment(nodes, read, outputs), threads=1) if outputs else None
        for index, part in enumerate(self.parts):
            values = run.run(outputs, {name: part[name] for name in read}) if run else []
            self.parts[index] = {name: part[name] for name in held & later} | dict(zip(outputs, values, strict=True))
        self.most = max(self.most, sum(value.nbytes for part in self.parts for value in part.values()))
        self.done = end

    def _segment(self, nodes: Sequence[onnx.NodeProto], read: Sequence[str], outputs: Sequence[str]) -> onnx.ModelProto:
        """Some nodes as a graph of their own."""
        model = onnx.ModelProto(ir_version=self.model.ir_version)
        model.opset_import.extend(self.model.opset_import)
        model.functions.extend(self.model.functions)
        used = {name for node in nodes for name in read_by(node)}
        graph = model.graph
        graph.name = "segment"
        graph.node.extend(nodes)
        graph.initializer.extend(tensor for tensor in self.model.graph.initializer if tensor.name in used)
        for name in read:
            kind = onnx.helper.np_dtype_to_tensor_dtype(self.parts[0][name].dtype)
            graph.input.append(onnx.helper.make_tensor_value_info(name, kind, None))
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        return model
