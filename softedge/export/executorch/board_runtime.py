"""ExecuTorch programs on a device: by a small library that needs no PyTorch, or by ExecuTorch's Python bindings.

Travels to boards: Python 3.8, NumPy and executorch; no softedge import.  See ``bench/board/worker.py``.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import time
from importlib.metadata import version
from typing import Any

import numpy as np

# Of executorch's wheel, each after those that it needs. The last two announce their kernels when they are loaded.
LIBRARIES = ("", "_threadpool", "_kernels_optimized", "_kernels_quantized", "_backend_xnnpack")
MOST_OUTPUTS = 1 << 20


class Runtime:
    """An ExecuTorch program on the XNNPACK backend.

    settings["native"]: the library made of ``native.cpp``, in this folder; without it the bindings, which bring torch.
    """

    def __init__(self, path: str, settings: dict[str, Any]):
        kind = Native if settings.get("native") else Bindings
        self.program = kind(path, settings)
        self.load_ms = self.program.load_ms

    def infer(self, image: Any) -> Any:
        """uint8 (1, size, size, 3) -> float32 (1, classes)."""
        return self.program.infer(image)

    def effective(self, image: Any) -> dict[str, Any]:
        """The runtime reports threads and backend, not which XNNPACK kernel ran."""
        return {
            "runtime": "executorch " + version("executorch"),
            "accelerator": "XNNPACK",
            "threads": self.program.threads(),
        }


class Bindings:
    """Through ExecuTorch's Python bindings, whose tensors are PyTorch's."""

    def __init__(self, path: str, settings: dict[str, Any]):
        try:
            import torch
            from executorch.extension.pybindings import portable_lib
        except ImportError as error:
            problem = f"ExecuTorch's Python bindings need executorch and PyTorch here: {error}"
            raise LookupError(problem + "; or send a runtime that needs no PyTorch: ssh://...?wheels=send") from error
        self.tensor, self.library = torch.from_numpy, portable_lib
        portable_lib._unsafe_reset_threadpool(settings["threads"])
        begun = time.perf_counter()
        self.program = portable_lib._load_for_executorch(path)
        self.load_ms = (time.perf_counter() - begun) * 1000

    def infer(self, image: Any) -> Any:
        return self.program.forward([self.tensor(image)])[0].numpy().copy()

    def threads(self) -> int:
        return int(self.library._threadpool_get_thread_count())


class Native:
    """Through the C interface of ``native.cpp``, which see."""

    def __init__(self, path: str, settings: dict[str, Any]):
        spec = importlib.util.find_spec("executorch")
        if spec is None or not spec.submodule_search_locations:
            raise ImportError("No module named 'executorch'")
        folder = os.path.join(spec.submodule_search_locations[0], "lib")
        for name in LIBRARIES:
            ctypes.CDLL(os.path.join(folder, "libexecutorch" + name + ".so"), mode=ctypes.RTLD_GLOBAL)
        here = os.path.dirname(os.path.abspath(__file__))
        self.library = ctypes.CDLL(os.path.join(here, settings["native"]))
        self.library.softedge_open.restype = ctypes.c_void_p
        self.library.softedge_infer.restype = ctypes.c_long
        self.why = ctypes.create_string_buffer(200)
        begun = time.perf_counter()
        opened = self.library.softedge_open(path.encode(), settings["threads"], self.why, ctypes.c_size_t(200))
        self.load_ms = (time.perf_counter() - begun) * 1000
        if not opened:
            raise LookupError(self.why.value.decode())
        self.model = ctypes.c_void_p(opened)
        self.answer = np.empty(MOST_OUTPUTS, np.float32)

    def infer(self, image: Any) -> Any:
        image = np.ascontiguousarray(image)
        count = self.library.softedge_infer(
            self.model,
            image.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_int32(image.shape[1]),
            ctypes.c_int32(image.shape[2]),
            self.answer.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_long(MOST_OUTPUTS),
            self.why,
            ctypes.c_size_t(200),
        )
        if count < 0:
            raise LookupError(self.why.value.decode())
        return self.answer[:count][None].copy()

    def threads(self) -> int:
        return int(self.library.softedge_threads())
