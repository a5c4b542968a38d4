"""Core ML packages on a Mac, by coremltools.

Travels to boards: Python 3.8, NumPy, Pillow and coremltools; no softedge import.  See ``bench/board/worker.py``.
"""

from __future__ import annotations

import platform
import time
from typing import Any

import numpy as np


class Runtime:
    """A Core ML model through coremltools on a Mac, on the compute units that were asked for."""

    def __init__(self, path: str, settings: dict[str, Any]):
        import coremltools
        from PIL import Image

        self.module, self.picture = coremltools, Image.fromarray
        self.units, self.labels, self.output = settings["units"], settings["labels"], settings["output"]
        begun = time.perf_counter()
        self.model = coremltools.models.MLModel(path, compute_units=coremltools.ComputeUnit[self.units])
        self.load_ms = (time.perf_counter() - begun) * 1000

    def infer(self, image: Any) -> Any:
        """uint8 (1, size, size, 3) -> float32 (1, classes); a classifier answers label -> probability."""
        values = self.model.predict({"image": self.picture(image[0])})[self.output]
        row = [values[label] for label in self.labels] if isinstance(values, dict) else np.ravel(values)
        return np.asarray(row, np.float32)[None]

    def effective(self, image: Any) -> dict[str, Any]:
        """Core ML does not report which unit ran a layer: what it was allowed to use."""
        runtime = f"Core ML on macOS {platform.mac_ver()[0]}, coremltools {self.module.__version__}"
        return {"runtime": runtime, "accelerator": f"allowed: {self.units}"}
