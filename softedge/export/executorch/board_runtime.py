"""ExecuTorch programs on a device, by its Python bindings.

Travels to boards: Python 3.8, NumPy and executorch; no softedge import.  See ``bench/board/worker.py``.
"""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Any


class Runtime:
    """An ExecuTorch program on the XNNPACK backend, through its Python bindings (which bring torch for the tensors)."""

    def __init__(self, path: str, settings: dict[str, Any]):
        import torch
        from executorch.extension.pybindings import portable_lib

        self.tensor, self.library = torch.from_numpy, portable_lib
        portable_lib._unsafe_reset_threadpool(settings["threads"])
        begun = time.perf_counter()
        self.program = portable_lib._load_for_executorch(path)
        self.load_ms = (time.perf_counter() - begun) * 1000

    def infer(self, image: Any) -> Any:
        """uint8 (1, size, size, 3) -> float32 (1, classes)."""
        return self.program.forward([self.tensor(image)])[0].numpy().copy()

    def effective(self, image: Any) -> dict[str, Any]:
        """The runtime reports threads and backend, not which XNNPACK kernel ran."""
        return {
            "runtime": "executorch " + version("executorch"),
            "accelerator": "XNNPACK",
            "threads": self.library._threadpool_get_thread_count(),
        }
