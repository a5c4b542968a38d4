"""Which layers of an OpenVINO file compute in 8 bits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from softedge.export.counting import entry, in_order
from softedge.export.openvino.core import core

_INT8 = {"i8", "u8"}


def integer_operations(path: Path) -> dict[str, int]:
    """See ``Format.integer_operations``."""
    kinds = {"Convolution": "conv", "GroupConvolution": "conv", "MatMul": "linear"}
    counts: Counter[str] = Counter()
    for node in core().read_model(str(path)).get_ops():
        if node.get_type_name() in kinds:
            data, weight = (node.input_value(i).get_node() for i in (0, 1))
            counts[entry(kinds[node.get_type_name()], _int8_weight(weight), _quantized(data))] += 1
    return in_order(counts)


def _int8_weight(node: Any) -> bool:
    """8-bit constant behind conversions, scaling and reshaping, or one that a FakeQuantize makes so."""
    while node.get_type_name() != "Constant":
        if node.get_type_name() == "FakeQuantize":
            return node.get_attributes()["levels"] <= 256
        if node.get_input_size() == 0:
            return False
        node = node.input_value(0).get_node()
    return node.get_element_type().get_type_name() in _INT8


def _quantized(node: Any) -> bool:
    """A FakeQuantize before the input, seen through operations that only move values."""
    while node.get_type_name() in ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "MaxPool"):
        node = node.input_value(0).get_node()
    return node.get_type_name() == "FakeQuantize" and node.get_attributes()["levels"] <= 256
