"""What a Core ML package says of itself, also where its program cannot be run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from softedge.export.coreml.interpreter import read_model
from softedge.export.metadata import entries


def read(package: Path) -> dict[str, Any]:
    """Preprocessing, and labels: a classifier's operator holds them, the metadata those of a file that gives scores."""
    model, _ = read_model(package)
    stored = {key.removeprefix("softedge."): value for key, value in model.description.metadata.userDefined.items()}
    own = entries(stored)
    function = model.mlProgram.functions["main"]
    for operation in function.block_specializations[function.opset].operations:
        if operation.type == "classify":
            names = operation.inputs["classes"].arguments[0].value.immediateValue.list.values
            own["labels"] = [name.immediateValue.tensor.strings.values[0] for name in names]
    return own
