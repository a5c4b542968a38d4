"""Which layers of an exported file really compute in 8 bits, counted from the file itself, not from what was asked."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from softedge.records import Artifact

_INT8 = {"i8", "u8"}


def quantized_ops(artifact: Artifact) -> dict[str, int]:
    """Convolutions and linear layers by arithmetic.

    conv, linear: weights and activations in 8 bits.  conv_weights, linear_weights: 8-bit weights, float arithmetic.
    conv_float, linear_float: neither.
    """
    count = {"onnx": _onnx, "openvino": _openvino, "coreml": _coreml}.get(artifact.target)
    return dict(sorted(count(artifact.path).items())) if count else {}


def _entry(kind: str, weights: bool, activations: bool) -> str:
    return kind if weights and activations else f"{kind}_weights" if weights else f"{kind}_float"


def _onnx(path: Path) -> Counter[str]:
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    producers = {output: node for node in graph.node for output in node.output}
    stored = {i.name: i.data_type for i in graph.initializer}
    eight_bit = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)

    def dequantized(name: str) -> Any:
        node = producers.get(name)
        return node if node is not None and node.op_type == "DequantizeLinear" else None

    def stored_in_int8(name: str) -> bool:
        """A constant behind DequantizeLinear, or behind the Cast and Mul that decode a weight at load."""
        node = producers.get(name)
        if node is not None and node.op_type == "Mul":
            node = producers.get(node.input[0])
        if node is None or node.op_type not in ("DequantizeLinear", "Cast"):
            return False
        return stored.get(node.input[0]) in eight_bit

    def origin(name: str) -> Any:
        """The node behind ``name``, seen through operations that only move values."""
        node = producers.get(name)
        while node is not None and node.op_type in (
            "Reshape",
            "Transpose",
            "Flatten",
            "Squeeze",
            "MaxPool",
            "Identity",
        ):
            name = node.input[0]
            node = producers.get(name)
        return name

    kinds = {"Conv": "conv", "Gemm": "linear", "MatMul": "linear"}
    found: Counter[str] = Counter()
    for node in graph.node:
        if node.op_type in ("QLinearConv", "ConvInteger"):
            found["conv"] += 1
        elif node.op_type in ("QLinearMatMul", "MatMulInteger", "QGemm"):
            found["linear"] += 1
        elif node.op_type in kinds:
            weight = origin(node.input[1])
            weights = stored_in_int8(weight)
            data = dequantized(origin(node.input[0]))
            integers = dequantized(weight) is not None and data is not None and data.input[0] in producers
            found[_entry(kinds[node.op_type], weights, integers)] += 1
    return found


def _openvino(path: Path) -> Counter[str]:
    import openvino

    kinds = {"Convolution": "conv", "GroupConvolution": "conv", "MatMul": "linear"}
    found: Counter[str] = Counter()
    for node in openvino.Core().read_model(str(path)).get_ops():
        if node.get_type_name() in kinds:
            data, weight = (node.input_value(i).get_node() for i in (0, 1))
            found[_entry(kinds[node.get_type_name()], _openvino_int8_weight(weight), _openvino_quantized(data))] += 1
    return found


def _openvino_int8_weight(node: Any) -> bool:
    """8-bit constant behind conversions, scaling and reshaping, or one that a FakeQuantize makes so."""
    while node.get_type_name() != "Constant":
        if node.get_type_name() == "FakeQuantize":
            return node.get_attributes()["levels"] <= 256
        if node.get_input_size() == 0:
            return False
        node = node.input_value(0).get_node()
    return node.get_element_type().get_type_name() in _INT8


def _openvino_quantized(node: Any) -> bool:
    """A FakeQuantize before the input, seen through operations that only move values."""
    while node.get_type_name() in ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "MaxPool"):
        node = node.input_value(0).get_node()
    return node.get_type_name() == "FakeQuantize" and node.get_attributes()["levels"] <= 256


def _coreml(path: Path) -> Counter[str]:
    from softedge.export.coreml.interpreter import Program

    program = Program(path)
    kind_of = {o.name: operation.type for operation in program.operations for o in operation.outputs}

    def made_by(operation: Any, key: str) -> str:
        argument = operation.inputs[key].arguments[0]
        return kind_of.get(argument.name, "") if argument.WhichOneof("binding") == "name" else ""

    found: Counter[str] = Counter()
    for operation in program.operations:
        if operation.type in ("conv", "linear"):
            weights = made_by(operation, "weight").startswith("constexpr")
            found[_entry(operation.type, weights, made_by(operation, "x") == "dequantize")] += 1
    return found
