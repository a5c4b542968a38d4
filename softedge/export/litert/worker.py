"""Runs inside LiteRT's own environment, as a script: converts a torch.export program, or runs a .tflite file.

    python worker.py convert program.pt2 out.tflite [calibration.npy]
    python worker.py run model.tflite images.npy outputs.npy

Needs litert-torch (which brings torch, ai-edge-litert and ai-edge-quantizer), and nothing of softedge.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np


def convert(source: str, result: str, calibration: str | None = None) -> None:
    """A program (.pt2) -> a .tflite file; int8 weights and activations with calibration images, uint8 (N, H, W, 3)."""
    import litert_torch  # type: ignore[import-not-found]
    import torch

    program = torch.export.load(source)
    example = program.example_inputs[0]
    litert_torch.convert(program.module(), example).export(result)
    if calibration is not None:
        quantize(result, np.load(calibration))


def quantize(path: str, images: np.ndarray) -> None:
    """Static int8 in place; the preprocessing, the softmax and the output stay in float."""
    from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-not-found]
    from ai_edge_quantizer import (  # type: ignore[import-not-found]
        algorithm_manager,
        qtyping,
        quantizer,
        recipe,
    )

    worker = quantizer.Quantizer(path)
    worker.load_quantization_recipe(recipe.static_wi8_ai8())
    kinds = qtyping.TFLOperationName
    for kind in (kinds.SUB, kinds.DIV, kinds.SOFTMAX, kinds.OUTPUT):
        worker.update_quantization_recipe(".*", kind, algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE)
    signatures = Interpreter(path).get_signature_list()
    name = next(iter(signatures))
    entry = signatures[name]["inputs"][0]
    ranges = worker.calibrate({name: [{entry: image[None]} for image in images]})
    worker.quantize(ranges).export_model(path, overwrite=True)


def run(path: str, images: str, outputs: str) -> None:
    """Write float32 (N, outputs) for uint8 (N, H, W, 3)."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter: Any = Interpreter(path, num_threads=1)
    interpreter.allocate_tensors()
    entry, result = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    rows = []
    for image in np.load(images):
        interpreter.set_tensor(entry, image[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(result)[0].copy())
    np.save(outputs, np.stack(rows).astype(np.float32))


if __name__ == "__main__":
    verbs: dict[str, Any] = {"convert": convert, "run": run}
    verbs[sys.argv[1]](*sys.argv[2:])
