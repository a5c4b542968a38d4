"""Integers alone: every operator between a uint8 image and a uint8 answer, for processors that compute nothing else.

Ethos-U, Hexagon or an Edge TPU take no float operator at all.  In the file every operator reads DequantizeLinear and is
read by QuantizeLinear, which a compiler for such a processor fuses into one integer operator; what only moves values
does so on the integers.  The normalisation is a depthwise convolution of the pixels, in integers like all others.  The
output are logits: probabilities in steps of 1 / 256 would say nothing about all but the first classes.  The app takes
the largest, or a softmax of scale · (q − zero point).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from softedge.errors import UserError
from softedge.export.base import Float32, Uint8
from softedge.export.candidates import Option, Rounding
from softedge.export.contract import INPUT
from softedge.export.finishing import finish_integers
from softedge.export.onnx import graph as onnx_graph
from softedge.export.onnx.candidates import OnnxCandidates
from softedge.export.onnx.quantization import Quantization
from softedge.export.onnx.quantizer import Grid, Quantizer, Scheme, WeightGrid, gate_half, grid_of
from softedge.export.onnx.ranges import Ranges, float_tensors, run
from softedge.export.onnx.rewrite import (
    GATE,
    WEIGHTED,
    constants,
    convolve_batch_norm,
    has_weights,
    pad_depthwise,
    pool_globally,
    split_hard_swish,
)
from softedge.records import Artifact

PRECISION = "int8-strict"
PIXELS = "pixels"  # the image as planes, in grey levels
_COMPUTED = ("Add", "Sub", "Mul", "GlobalAveragePool", "AveragePool", "HardSigmoid", "Sigmoid", "Tanh", "Softmax")
_COMPUTED_TOO = ("Relu", "Clip", "LeakyRelu", "Concat", "ReduceMean")
_MOVES = ("Transpose", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Slice", "MaxPool", "Pad")
_ALLOWED = {*WEIGHTED, *_COMPUTED, *_COMPUTED_TOO, *_MOVES}
_UNIT = ("Softmax", "Sigmoid", "HardSigmoid")  # results between 0 and 1
_UNIT_GRID = Grid(1 / 256, 0)


def from_pixels(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float graph to logits or features, whose normalisation is a depthwise convolution of the pixels.

    With the rewrites for integers.
    """
    model = pad_depthwise(split_hard_swish(pool_globally(convolve_batch_norm(model))))
    nodes, known = list(model.graph.node), constants(model)
    begin = _path(nodes, INPUT, 4)
    kinds = [node.op_type for node in begin]
    if kinds != ["Transpose", "Cast", "Sub", "Div"]:
        raise UserError(f"integers alone need a graph that begins with its normalisation; it begins with {kinds}")
    shift, scale = (numpy_helper.to_array(known[node.input[1]]).reshape(-1) for node in begin[2:])
    weight = (1 / scale).astype(np.float32).reshape(-1, 1, 1, 1)
    bias = (-shift / scale).astype(np.float32)
    for name, value in (("normalise.weight", weight), ("normalise.bias", bias)):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    planes = helper.make_node("Transpose", [INPUT], [f"{PIXELS}_q"], "planes", perm=[0, 3, 1, 2])
    cast = helper.make_node("Cast", [f"{PIXELS}_q"], [PIXELS], "grey_levels", to=TensorProto.FLOAT)
    inputs = [PIXELS, "normalise.weight", "normalise.bias"]
    normalise = helper.make_node("Conv", inputs, [begin[3].output[0]], "normalise", group=len(scale))
    rest = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes if node not in begin]
    del model.graph.node[:], model.graph.value_info[:]
    result = model.graph.output[0]
    if rest[-1].op_type in ("Softmax", "Sigmoid") and rest[-1].output[0] == result.name:
        result.name = rest.pop().input[0]
    model.graph.node.extend([planes, cast, normalise, *rest])
    return model


def _path(nodes: Sequence[onnx.NodeProto], value: str, length: int) -> list[onnx.NodeProto]:
    """The nodes that ``value`` goes through, one after the other; what asks for its shape lies beside the path."""
    path: list[onnx.NodeProto] = []
    for _ in range(length):
        readers = (node for node in nodes if value in node.input[:1] and node.op_type != "Shape")
        if (step := next(readers, None)) is None:
            break
        path.append(step)
        value = step.output[0]
    return path


def quantize_strictly(model: onnx.ModelProto, ranges: Ranges, scheme: Scheme) -> onnx.ModelProto:
    """Quantize every operator of a graph made by ``from_pixels``; UserError for operators that have no integer form."""
    floats = set(float_tensors(model))
    kinds = Counter(
        node.op_type
        for node in model.graph.node
        if node.op_type not in _ALLOWED and node.op_type != "Cast" and node.output[0] in floats
    )
    if kinds:
        operators = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(4))
        raise UserError(f"the network cannot run in integers alone: {operators} have no integer form")
    return _Strict(model, ranges, scheme, floats).run()


def output_grid(model: onnx.ModelProto) -> Grid | None:
    """The grid of the output; None where it is in float."""
    name, known = model.graph.output[0].name, constants(model)
    maker = next(node for node in model.graph.node if name in node.output)
    if maker.op_type != "QuantizeLinear":
        return None
    scale, zero = (numpy_helper.to_array(known[name]) for name in maker.input[1:])
    return Grid(float(scale), int(zero))


class _Strict(Quantizer):
    def __init__(self, model: onnx.ModelProto, ranges: Ranges, scheme: Scheme, floats: set[str]):
        self.floats = floats
        normalise = next(node for node in model.graph.node if node.name == "normalise")
        known = constants(model)
        weight, bias = (numpy_helper.to_array(known[name]).reshape(-1) for name in normalise.input[1:])
        ends = np.stack([bias, bias + 255 * weight])  # of all images, not only of those that were seen
        ranges = {**ranges, normalise.output[0]: (float(ends.min()), float(ends.max()))}
        super().__init__(model, ranges, scheme)
        self.grids[PIXELS] = Grid(1.0, 0)
        self.made.add(f"{PIXELS}_q")

    def _choose(self) -> tuple[set[str], set[str], dict[str, onnx.NodeProto]]:
        makers = {name: node for node in self.model.graph.node for name in node.output}
        gates = {
            node.output[0]: node
            for node in self.model.graph.node
            if node.op_type == "HardSigmoid"
            and node.output[0].endswith(GATE)
            and makers[node.input[0]].op_type in WEIGHTED
            and gate_half(*self.ranges[node.input[0]]) >= 1
        }
        return set(), set(), gates

    def computes_weights(self, node: onnx.NodeProto) -> bool:
        return True

    def run(self) -> onnx.ModelProto:
        """The image and the answer in uint8 as well: the last QuantizeLinear writes the output."""
        model = super().run()
        result = model.graph.output[0]
        name = result.name if result.name == "features" else "logits"
        renamed = {result.name: f"{result.name}_float", f"{result.name}_q": name}
        result.name = name
        for node in model.graph.node:
            node.input[:] = [renamed.get(name, name) for name in node.input]
            node.output[:] = [renamed.get(name, name) for name in node.output]
        result.type.tensor_type.elem_type = TensorProto.UINT8
        return model

    def _add(self, node: onnx.NodeProto) -> None:
        result = node.output[0]
        if node.op_type == "Cast" and result == PIXELS:
            return
        if result in self.gates:
            self._add_gate(node)
        elif result not in self.floats or node.op_type in _MOVES:
            self._move(node)
        elif not (node.op_type in ("Relu", "Clip") and self._clamped_by_its_grid(node)):
            self._compute(node)
            reader = self.readers.get(result, [])
            if len(reader) == 1 and result not in self.outputs and self._clamped_by_its_grid(reader[0]):
                self._quantize(reader[0].output[0], made_by=result)
            else:
                self._quantize(result)

    def _move(self, node: onnx.NodeProto) -> None:
        """The node on integers: the image before it is a number, shapes, and what leaves values as they are."""
        moved = onnx.NodeProto.FromString(node.SerializeToString())
        moved.input[:] = [self._integers(name) if name in self.floats else name for name in node.input]
        result = node.output[0]
        if result in self.floats:
            grid = self.grids[result] = self.grid(node.input[0])
            moved.output[0] = f"{result}_q"
            if node.op_type == "Pad":
                given = node.input[2] if len(node.input) > 2 and node.input[2] else ""
                value = float(numpy_helper.to_array(self.known[given])) if given else 0.0
                zero = np.uint8(np.clip(round(value / grid.scale) + grid.zero, 0, 255))
                rest = list(node.input[3:])
                moved.input[:] = [moved.input[0], node.input[1], self._constant(f"{result}_border", zero), *rest]
        self._append(moved)

    def _integers(self, name: str) -> str:
        self._quantize(name)
        return f"{name}_q"

    def _compute(self, node: onnx.NodeProto) -> None:
        computed = onnx.NodeProto.FromString(node.SerializeToString())
        weighted = node.op_type in WEIGHTED and has_weights(node, self.known)
        for index, name in enumerate(node.input):
            if name in self.floats:
                computed.input[index] = self._dequantized(name)
            elif not weighted and name in self.known and node.op_type not in ("Clip", "ReduceMean"):
                computed.input[index] = self._quantized_constant(name)
        if weighted:
            self._weights(computed, self.grid(node.input[0]))
        if node.op_type in _UNIT:
            self.grids[node.output[0]] = _UNIT_GRID
        self._append(computed)

    def _quantized_constant(self, name: str) -> str:
        value = numpy_helper.to_array(self.known[name]).astype(np.float32)
        grid = self.grids.setdefault(name, grid_of(float(value.min()), float(value.max())))
        coded = np.clip(np.rint(value / grid.scale) + grid.zero, 0, 255).astype(np.uint8)
        inputs = [self._constant(f"{name}_q", coded), *self._grid_constants(name)]
        if f"{name}_dq" not in self.made:
            self._append(helper.make_node("DequantizeLinear", inputs, [f"{name}_dq"], f"{name}_DQ"))
        return f"{name}_dq"

    def _clamped_by_its_grid(self, node: onnx.NodeProto) -> bool:
        """A clamp alone behind an operator, whose result has a grid that ends where the clamp does, or before."""
        if node.op_type not in ("Relu", "Clip") or len(self.readers[node.input[0]]) > 1:
            return False
        if node.input[0] in self.outputs or f"{node.input[0]}_q" in self.made or node.input[0] not in self.floats:
            return False
        low, high = 0.0, np.inf
        if node.op_type == "Clip":
            ends = [numpy_helper.to_array(self.known[n]) if n in self.known else None for n in node.input[1:3]]
            ends += [None] * (2 - len(ends))
            low, high = (
                float(e) if e is not None else default for e, default in zip(ends, (-np.inf, np.inf), strict=True)
            )
        grid = self.grid(node.output[0])
        half = grid.scale / 2
        return -grid.zero * grid.scale >= low - half and (255 - grid.zero) * grid.scale <= high + half


@dataclass(frozen=True)
class StrictQuantization(Quantization):
    """graph: made by ``from_pixels``."""

    def model(self) -> onnx.ModelProto:
        return quantize_strictly(self.graph, self.ranges, self.scheme)

    def weight_grids(self) -> dict[str, WeightGrid]:
        return _Strict(self.graph, self.ranges, self.scheme, set(float_tensors(self.graph))).weight_grids()


class StrictCandidates(OnnxCandidates):
    """Calibrations of files in integers alone; nothing can be put in float."""

    def rewritten(self, model: onnx.ModelProto) -> onnx.ModelProto:
        return from_pixels(model)

    def calibrations(self) -> Iterator[Option]:
        for method, ranges in self.ranges.items():
            details = {"calibration": f"{method} of {len(self.calibration)} images"}
            model = StrictQuantization(self.graph, ranges, Scheme(reduce_range=self.safe))
            yield Option(f"calibration by {method}, integers alone", model, 0, details)

    def predict(self, option: Option, images: Uint8) -> Float32:
        model = option.model.model()
        grid = output_grid(model)
        assert grid is not None
        return finish_integers(run(model, images, threads=1), grid.scale, grid.zero, self.deployed.output)

    def finished(self, model: onnx.ModelProto, details: Mapping[str, Any]) -> bytes:
        grid = output_grid(model)
        assert grid is not None
        return onnx_graph.finished(
            model, self.deployed, PRECISION, output_grid=[grid.scale, grid.zero], **dict(details)
        )

    def layers(self) -> Sequence[str]:
        return ()

    def with_float(self, option: Option, layers: Sequence[str]) -> Option:
        assert not layers, "nothing is in float"
        return option

    def roundings(self, option: Option, image: Uint8) -> Sequence[Rounding]:
        return ()

    def from_file(self, artifact: Artifact) -> Option | None:
        return None

    def weights_only(self) -> Option | None:
        return None
