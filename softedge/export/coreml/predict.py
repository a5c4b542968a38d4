"""Outputs of a Core ML package: by Core ML itself on macOS, by the reference interpreter on every other system."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softedge.export.base import Float32, Predictor, Uint8
from softedge.export.coreml.interpreter import Program
from softedge.export.coreml.package import LABEL
from softedge.export.quiet import quiet
from softedge.records import Artifact


def interpreted(artifact: Artifact) -> Predictor:
    """Run the package with the reference interpreter (any system)."""
    program = Program(artifact.path)
    output = LABEL if program.labels else artifact.output

    def predict(images: Uint8) -> Float32:
        parts, step = [], program.at_once(planes(images[:2]))
        for start in range(0, len(images), step):
            values = program.run({program.inputs[0]: planes(images[start : start + step])})
            parts.append(probabilities(values, output))
        return np.concatenate(parts) if parts else np.empty((0, len(artifact.labels)), np.float32)

    return predict


def layer_outputs(path: Path, images: Uint8) -> list[Float32]:
    """Outputs of the convolutions and linear layers in the file, in the order of computation."""
    outputs: list[Float32] = []

    def observe(kind: str, name: str, value: Tensor) -> None:
        del name
        if kind in ("conv", "linear"):
            outputs.append(value.float().numpy().copy())

    program = Program(path)
    program.run({program.inputs[0]: planes(images)}, observe)
    return outputs


def planes(images: Uint8) -> Tensor:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W) in 0..255, which is what Core ML makes of an RGB image."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(torch.float32)


def probabilities(values: dict[str, Any], output: str) -> Float32:
    """The numeric output of a program: a classifier's second output, or the features by name."""
    tensors = [value for name, value in values.items() if isinstance(value, Tensor) and name != output]
    value = values[output] if isinstance(values.get(output), Tensor) else tensors[0]
    return value.float().numpy()


def by_core_ml(artifact: Artifact) -> Predictor:
    """Run the package with Core ML (macOS)."""
    import coremltools as ct
    from PIL import Image

    with quiet():
        model = ct.models.MLModel(str(artifact.path))

    def predict(images: Uint8) -> Float32:
        rows = []
        for image in images:
            values = model.predict({"image": Image.fromarray(image)})[artifact.output]
            row = [values[label] for label in artifact.labels] if isinstance(values, dict) else np.ravel(values)
            rows.append(np.asarray(row, np.float32))
        return np.stack(rows)

    return predict
