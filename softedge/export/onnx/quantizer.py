"""Static int8 for ONNX: QDQ, unsigned activations, signed weights per channel.

u8s8 because s8s8 is 3 times slower on x86 with VNNI and loses more; per channel because depthwise convolutions need it.
Runtimes fuse DequantizeLinear -> op -> QuantizeLinear into one integer kernel. This writes exactly the patterns that
fuse: no pair between a convolution and its ReLU, a hard-swish gate without one, logits that stay in float.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from softedge.errors import UserError
from softedge.export.onnx.graph import float_nodes
from softedge.export.onnx.ranges import Ranges
from softedge.export.onnx.rewrite import GATE, WEIGHTED, attribute, constants, copied, has_weights, join_hard_swish

FOLLOWERS = ("Add", "Mul", "GlobalAveragePool", "MaxPool", "Sigmoid")  # in integers where their input already is
_FREE = ("Relu", "Clip")  # a clamp right behind an integer operator costs nothing: the output's range does it
_FLOAT_RESULT = ("Gemm", "MatMul")  # logits, and what normalisation, attention or GELU read
_NARROWEST_GATE = 8  # steps between 0 and 3 of a hard-swish's input; with fewer its grid would be coarse
STORED = 1024  # values from which on a float layer's weights are stored in int8


@dataclass(frozen=True)
class Scheme:
    """What is computed in integers.

    float_nodes: names of nodes that stay in float; their weights are stored in int8 all the same.
    reduce_range: 7-bit weights, for x86 without VNNI, where u8s8 products saturate 16 bits.
    activation_bits: 8, or 16 for processors with such kernels (opset 21); weights have 8.
    """

    float_nodes: frozenset[str] = frozenset()
    reduce_range: bool = False
    activation_bits: int = 8

    def with_float(self, *names: str) -> Scheme:
        return replace(self, float_nodes=self.float_nodes | frozenset(names))


def limit_of(scheme: Scheme) -> int:
    """The largest integer of a weight."""
    return 63 if scheme.reduce_range else 127


@dataclass(frozen=True)
class Grid:
    """A tensor's integers: value = scale · (q − zero)."""

    scale: float
    zero: int


@dataclass(frozen=True)
class WeightGrid:
    """A layer's integers, from -limit to limit: value = steps · q, with one step (O,) an output channel."""

    steps: np.ndarray
    limit: int


def grid_of(low: float, high: float, bits: int = 8) -> Grid:
    """The grid of a range; 0 is always on it, or padding would not be zero."""
    low, high, levels = min(low, 0.0), max(high, 0.0), 2**bits - 1
    scale = float(np.float32(max(high - low, 1e-8) / levels))
    return Grid(scale, int(np.clip(round(-low / scale), 0, levels)))


def gate_half(low: float, high: float) -> int:
    """k, the steps from 0 to 3 of a hard-swish's input whose range is [low, high]."""
    return math.floor(3 * 255 / (max(high, 3.0) - min(low, -3.0)))


def gated_grids(low: float, high: float) -> tuple[Grid, Grid, int]:
    """Grids of x and of the hard-swish gate clamp(x / 6 + 1/2, 0, 1) on the same integers, and the clamp's half width.

    With 3 = k · s for an integer k, the gate of q is clamp(q, z − k, z + k) on the grid (s / 6, z − k): exact, and one
    8-bit clamp instead of three float passes.  The range of x grows to hold −3, or z − k would be negative.
    """
    half = gate_half(low, high)
    scale = 3 / half
    zero = int(np.clip(round(-low / scale), half, 255))
    return Grid(scale, zero), Grid(scale / 6, zero - half), half


def quantize(model: onnx.ModelProto, ranges: Ranges, scheme: Scheme = Scheme()) -> onnx.ModelProto:
    """Quantize a float graph (rewritten by ``onnx_rewrite``); preprocessing and softmax stay in float.

    ranges: tensor name -> (low, high), from ``onnx_ranges.measure``.
    """
    if not ranges:
        raise UserError("int8 needs calibration images, found none; give some, or leave int8 out of --precisions")
    quantized = Quantizer.of(model, ranges, scheme).run()
    store_weights_in_int8(quantized)
    return join_hard_swish(quantized)


class Quantizer:
    """Turns a float graph into integers, node by node; see ``quantize``."""

    def __init__(self, model: onnx.ModelProto, ranges: Ranges, scheme: Scheme):
        self.model, self.ranges, self.scheme = copied(model), ranges, scheme
        self.known = constants(self.model)
        nodes = self.model.graph.node
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.outputs = {output.name for output in self.model.graph.output}
        self.integer, self.clamped, self.gates = self._choose()
        self.grids: dict[str, Grid] = {}
        self.halves: dict[str, int] = {}
        self.initializers: list[onnx.TensorProto] = []
        self.stored: set[str] = set()
        self.coded: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}  # of each weight and bias
        self.done: list[onnx.NodeProto] = []
        self.made: set[str] = set()

    @classmethod
    def of(cls, model: onnx.ModelProto, ranges: Ranges, scheme: Scheme) -> Quantizer:
        """Preprocessing and softmax stay in float."""
        before, after = float_nodes(model)
        return cls(model, ranges, scheme.with_float(*before, *after))

    def _choose(self) -> tuple[set[str], set[str], dict[str, onnx.NodeProto]]:
        """Names of integer nodes, tensors behind free clamps, and hard-swish gates by their output."""
        integer: set[str] = set()
        clamped: set[str] = set()
        gates: dict[str, onnx.NodeProto] = {}
        held: dict[str, str] = {}  # tensors that are integers -> the operator type that made them
        for node in self.model.graph.node:
            source, result = node.input[0], node.output[0]
            alone = len(self.readers.get(source, [])) == 1 and source not in self.outputs
            if node.name in self.scheme.float_nodes:
                continue
            if node.op_type in WEIGHTED:
                chosen = has_weights(node, self.known) and source in self.ranges
            else:
                chosen = node.op_type in FOLLOWERS and any(name in held for name in node.input)
                chosen = chosen and all(name in self.ranges for name in (*node.input, *node.output))
            if chosen:
                integer.add(node.name)
            elif node.op_type in _FREE and alone and held.get(source) in ("Conv", "Add", "Mul"):
                clamped.add(result)
            elif node.op_type == "HardSigmoid" and result.endswith(GATE) and held.get(source) == "Conv":
                if self.scheme.activation_bits != 8 or gate_half(*self.ranges[source]) < _NARROWEST_GATE:
                    continue
                gates[result] = node
            else:
                continue
            if node.op_type not in _FLOAT_RESULT:
                held[result] = node.op_type
        return integer, clamped, gates

    def weight_grids(self) -> dict[str, WeightGrid]:
        """The grid that ``run`` will put each layer's weights on, by the node's name; then those that
        ``store_weights_in_int8`` stores on one.  Weights that stay in float are left out."""
        self._prepare()
        grids = {}
        for node in self.model.graph.node:
            if not has_weights(node, self.known):
                continue
            if self.computes_weights(node):
                grids[node.name] = self._weight_grid(node, self.grid(node.input[0]))
            elif (weight := numpy_helper.to_array(self.known[node.input[1]])).size >= STORED:
                grids[node.name] = WeightGrid(largest_weights(weight, output_axis(node)) / 127, 127)
        return grids

    def computes_weights(self, node: onnx.NodeProto) -> bool:
        """Whether a layer computes in integers."""
        return node.name in self.integer

    def _prepare(self) -> None:
        """Grids shared between tensors: of gates, and of pools."""
        for node in self.gates.values():
            x, gate, half = gated_grids(*self.ranges[node.input[0]])
            self.grids[node.input[0]], self.grids[node.output[0]], self.halves[node.name] = x, gate, half
        for node in self.model.graph.node:
            if node.op_type == "MaxPool" and node.name in self.integer:
                # The largest integer is the integer of the largest: on one grid the pool needs no arithmetic at all.
                self.grids[node.output[0]] = self.grid(node.input[0])

    def run(self) -> onnx.ModelProto:
        self._prepare()
        for node in list(self.model.graph.node):
            self._add(node)
        graph = self.model.graph
        del graph.node[:], graph.value_info[:]
        graph.node.extend(self.done)
        used = {name for node in self.done for name in node.input}
        kept = [tensor for tensor in (*graph.initializer, *self.initializers) if tensor.name in used]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        return self.model

    def _add(self, node: onnx.NodeProto) -> None:
        if node.output[0] in self.gates:
            self._add_gate(node)
            return
        integer = node.name in self.integer
        source = onnx.NodeProto.FromString(node.SerializeToString())
        for index, name in enumerate(node.input):
            if name in self.known or not name:
                continue
            if integer or f"{name}_q" in self.made:
                source.input[index] = self._dequantized(name)
        if integer and node.op_type in WEIGHTED:
            self._weights(source, self.grid(node.input[0]))
        self._append(source)
        result = node.output[0]
        ends_here = integer or result in self.clamped
        goes_on = len(self.readers.get(result, [])) == 1 and self.readers[result][0].output[0] in self.clamped
        if ends_here and not goes_on and node.op_type not in _FLOAT_RESULT and result not in self.outputs:
            self._quantize(result)

    def _append(self, node: onnx.NodeProto) -> None:
        self.done.append(node)
        self.made.update(node.output)

    def grid(self, name: str) -> Grid:
        if name not in self.grids:
            self.grids[name] = grid_of(*self.ranges[name], self.scheme.activation_bits)
        return self.grids[name]

    def _quantize(self, name: str, made_by: str = "") -> None:
        """name -> name_q (uint8) -> name_dq: what everything behind reads.

        made_by: the tensor that is quantized where it is another, which the grid of ``name`` clamps to that.
        """
        if f"{name}_q" in self.made:
            return
        scale, zero = self._grid_constants(name)
        self._append(helper.make_node("QuantizeLinear", [made_by or name, scale, zero], [f"{name}_q"], f"{name}_Q"))

    def _dequantized(self, name: str) -> str:
        self._quantize(name)
        if f"{name}_dq" not in self.made:
            inputs = [f"{name}_q", *self._grid_constants(name)]
            self._append(helper.make_node("DequantizeLinear", inputs, [f"{name}_dq"], f"{name}_DQ"))
        return f"{name}_dq"

    def _grid_constants(self, name: str) -> tuple[str, str]:
        grid = self.grid(name)
        return (
            self._constant(f"{name}_scale", np.float32(grid.scale)),
            self._constant(f"{name}_zero", np.dtype(f"uint{self.scheme.activation_bits}").type(grid.zero)),
        )

    def _constant(self, name: str, value: np.ndarray | np.generic) -> str:
        if name not in self.stored:
            self.stored.add(name)
            self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _add_gate(self, node: onnx.NodeProto) -> None:
        """The gate as a clamp of the integers that the convolution wrote."""
        source, result, half = node.input[0], node.output[0], self.halves[node.name]
        zero = self.grids[source].zero
        low = self._constant(f"{result}_low", np.uint8(zero - half))
        high = self._constant(f"{result}_high", np.uint8(min(zero + half, 255)))
        self._quantize(source)
        self._append(helper.make_node("Clip", [f"{source}_q", low, high], [f"{result}_q"], node.name))

    def _weights(self, node: onnx.NodeProto, activation: Grid) -> None:
        """int8 weights per output channel, and an int32 bias on the grid of the products."""
        weight = numpy_helper.to_array(self.known[node.input[1]])
        bias = numpy_helper.to_array(self.known[node.input[2]]) if len(node.input) > 2 else None
        axis, grid = output_axis(node), self._weight_grid(node, activation)
        scale, limit = grid.steps, grid.limit
        shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
        coded = np.clip(np.rint(weight / scale.reshape(shape)), -limit, limit).astype(np.int8)
        node.input[1] = self._coded(node, 1, coded, scale, axis)
        if bias is not None:
            product = (scale.astype(np.float64) * np.float32(activation.scale)).astype(np.float32)
            node.input[2] = self._coded(node, 2, np.rint(bias / product).astype(np.int32), product, 0)

    def _weight_grid(self, node: onnx.NodeProto, activation: Grid) -> WeightGrid:
        limit = limit_of(self.scheme)
        scale = largest_weights(numpy_helper.to_array(self.known[node.input[1]]), output_axis(node)) / limit
        scale = np.maximum(scale, 1e-8)
        if len(node.input) > 2:  # a bias far larger than its weights must fit into 32 bits
            bias = numpy_helper.to_array(self.known[node.input[2]])
            scale = np.maximum(scale, np.abs(bias) / (activation.scale * 2**30))
        return WeightGrid(scale.astype(np.float32), limit)

    def _coded(self, node: onnx.NodeProto, place: int, coded: np.ndarray, scale: np.ndarray, axis: int) -> str:
        """Of weights that several layers read, each layer that needs another grid has integers of its own."""
        name, others = node.input[place], self.coded.setdefault(node.input[place], {})
        for made, values in others.items():
            if all(map(np.array_equal, values, (coded, scale))):
                return made
        name = f"{name}_{node.name}" if others else name
        others[f"{name}_dq"] = coded, scale
        parts = {"q": coded, "scale": scale, "zero": np.zeros(scale.shape, coded.dtype)}
        inputs = [self._constant(f"{name}_{part}", values) for part, values in parts.items()]
        self._append(helper.make_node("DequantizeLinear", inputs, [f"{name}_dq"], f"{name}_DQ", axis=axis))
        return f"{name}_dq"


def largest_weights(weight: np.ndarray, axis: int) -> np.ndarray:
    """The largest absolute weight of each output channel, (O,)."""
    return np.asarray(np.abs(weight).max(axis=tuple(i for i in range(weight.ndim) if i != axis)))


def output_axis(node: onnx.NodeProto) -> int:
    """Which axis of the weight counts output channels."""
    return 0 if node.op_type == "Conv" or attribute(node, "transB", 0) else 1


def store_weights_in_int8(model: onnx.ModelProto, smallest: int = STORED) -> None:
    """Store the float weights that are left as int8 per output channel, decoded when the file is loaded.

    The decoding is Cast and Mul of constants, which runtimes fold once at load; a DequantizeLinear they would keep and
    run at every inference.  smallest: number of values below which a tensor stays in float.
    """
    weights = {t.name: t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) >= 2}
    known = constants(model)
    users = {node.input[1]: node for node in model.graph.node if has_weights(node, known)}
    decoding = []
    for name, node in users.items():
        if name not in weights or np.prod(weights[name].dims) < smallest:
            continue
        weight, axis = numpy_helper.to_array(weights[name]), output_axis(node)
        largest = np.abs(weight).max(axis=tuple(i for i in range(weight.ndim) if i != axis), keepdims=True)
        scale = (np.maximum(largest, 1e-12) / 127).astype(np.float32)
        coded = np.clip(np.rint(weight / scale), -127, 127).astype(np.int8)
        model.graph.initializer.remove(weights[name])
        model.graph.initializer.append(numpy_helper.from_array(coded, f"{name}_int8"))
        model.graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale_int8"))
        cast = helper.make_node("Cast", [f"{name}_int8"], [f"{name}_cast"], f"{name}_cast", to=onnx.TensorProto.FLOAT)
        decoding += [cast, helper.make_node("Mul", [f"{name}_cast", f"{name}_scale_int8"], [name], f"{name}_decode")]
    nodes = [*decoding, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def quantized_ops(model: onnx.ModelProto) -> dict[str, int]:
    """How many operators of each type read dequantized activations: runtimes fuse those into integer kernels."""
    producers = {name: node for node in model.graph.node for name in node.output}
    counts: dict[str, int] = {}
    for node in model.graph.node:
        source = producers.get(node.input[0]) if node.input else None
        if source is not None and source.op_type == "DequantizeLinear" and node.op_type in (*WEIGHTED, *FOLLOWERS):
            counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts
