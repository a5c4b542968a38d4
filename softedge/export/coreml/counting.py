"""Which layers of a Core ML package compute in 8 bits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from softedge.export.counting import entry, in_order


def integer_operations(path: Path) -> dict[str, int]:
    """See ``Format.integer_operations``."""
    from softedge.export.coreml.interpreter import Program

    program = Program(path)
    kind_of = {o.name: operation.type for operation in program.operations for o in operation.outputs}

    def made_by(operation: Any, key: str) -> str:
        argument = operation.inputs[key].arguments[0]
        return kind_of.get(argument.name, "") if argument.WhichOneof("binding") == "name" else ""

    counts: Counter[str] = Counter()
    for operation in program.operations:
        if operation.type in ("conv", "linear"):
            weights = made_by(operation, "weight").startswith("constexpr")
            counts[entry(operation.type, weights, made_by(operation, "x") == "dequantize")] += 1
    return in_order(counts)
