"""Which layers of an ONNX file compute in 8 bits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from softedge.export.counting import entry, in_order


def integer_operations(path: Path) -> dict[str, int]:
    """See ``Format.integer_operations``."""
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
    counts: Counter[str] = Counter()
    for node in graph.node:
        if node.op_type in ("QLinearConv", "ConvInteger"):
            counts["conv"] += 1
        elif node.op_type in ("QLinearMatMul", "MatMulInteger", "QGemm"):
            counts["linear"] += 1
        elif node.op_type in kinds:
            weight = origin(node.input[1])
            weights = stored_in_int8(weight)
            if not weights and weight not in stored:
                continue  # attention: two activations, no layer
            data = dequantized(origin(node.input[0]))
            integers = dequantized(weight) is not None and data is not None and data.input[0] in producers
            integers = integers and stored.get(data.input[2]) in eight_bit  # of 16 bits: computed in float here
            counts[entry(kinds[node.op_type], weights, integers)] += 1
    return in_order(counts)
