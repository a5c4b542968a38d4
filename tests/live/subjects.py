"""Runs with one exported ONNX file to try, and a video for the fake camera."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from colour_model import LABELS, SPEC, colour_model, colours

from softedge.export import contract
from softedge.records import InputSpec


def make_run(root: Path, spec: InputSpec = SPEC, labels: tuple[str, ...] = LABELS) -> Path:
    """A run folder whose ``export/onnx-fp32`` names the dominant colour, with four golden images."""
    folder = root / "export" / "onnx-fp32"
    folder.mkdir(parents=True)
    path = colour_model(folder / "model.onnx", size=spec.size)
    rng = np.random.default_rng(1)
    images = colours(4)[0] if spec == SPEC else rng.integers(0, 256, (4, spec.size, spec.size, 3), dtype=np.uint8)
    artifact = contract.artifact_of(path, "onnx", "fp32", spec, labels)
    expected = predict(path, images)
    contract.write(folder, artifact, contract.Golden(images, expected, expected, tuple("abcd")))
    return root


def predict(path: Path, images: np.ndarray) -> np.ndarray:
    """What onnxruntime answers on this machine, float32 (N, 3)."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"image": image[None]})[0] for image in images])


def video(path: Path, red: int, green: int, blue: int, width: int = 640, height: int = 480) -> Path:
    """A YUV4MPEG file of ten frames of one colour (BT.601, studio range)."""
    y = 16 + (65.738 * red + 129.057 * green + 25.064 * blue) / 256
    u = 128 + (-37.945 * red - 74.494 * green + 112.439 * blue) / 256
    v = 128 + (112.439 * red - 94.154 * green - 18.285 * blue) / 256
    planes = ((y, width * height), (u, width * height // 4), (v, width * height // 4))
    frame = b"FRAME\n" + b"".join(bytes([round(value)]) * count for value, count in planes)
    path.write_bytes(f"YUV4MPEG2 W{width} H{height} F10:1 Ip A1:1 C420mpeg2\n".encode() + 10 * frame)
    return path
