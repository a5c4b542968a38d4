"""Toy files on a device.

Travels to boards: Python 3.8 and NumPy; no softedge import.  See ``bench/board/worker.py``.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

import numpy as np


class Runtime:
    def __init__(self, path: str, settings: dict[str, Any]):
        del settings
        begun = time.perf_counter()
        with open(path) as file:
            self.stride = json.load(file)["stride"]
        with np.load(os.path.join(os.path.dirname(path), "weights.npz")) as stored:
            self.stored = dict(stored)
        self.load_ms = (time.perf_counter() - begun) * 1000

    def weight(self, layer: str) -> Any:
        return self.stored[layer + ".weight"].astype(np.float32) * self.stored[layer + ".step"]

    def infer(self, image: Any) -> Any:
        """uint8 (1, size, size, 3) -> float32 (1, classes)."""
        planes = (image.transpose(0, 3, 1, 2) - self.stored["shift"]) / self.stored["scale"]
        kernel = self.weight("conv")
        patches = np.lib.stride_tricks.sliding_window_view(planes[0], kernel.shape[2:], axis=(1, 2))
        patches = patches[:, :: self.stride, :: self.stride]
        maps = np.einsum("cyxij,ocij->oyx", patches, kernel) + self.stored["conv.bias"][:, None, None]
        logits = self.weight("linear") @ np.maximum(maps, 0).mean((1, 2)) + self.stored["linear.bias"]
        exponents = np.exp(logits - logits.max())
        return (exponents / exponents.sum()).astype(np.float32)[None]

    def effective(self, image: Any) -> dict[str, Any]:
        return {"runtime": "NumPy " + np.__version__, "accelerator": "none", "effective_precision": "f32"}
