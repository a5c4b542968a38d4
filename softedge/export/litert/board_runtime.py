"""LiteRT files on a device, by the interpreter of ai-edge-litert.

Travels to boards: Python 3.8, NumPy and ai-edge-litert; no softedge import.  See ``bench/board/worker.py``.
"""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Any

import integers  # type: ignore[import-not-found]
import kernels  # type: ignore[import-not-found]
import numpy as np

DELEGATED = "DELEGATE"  # the operator that stands for all that XNNPACK took over


class Runtime:
    """LiteRT's interpreter, which hands what it can to XNNPACK, with the threads that were asked for."""

    def __init__(self, path: str, settings: dict[str, Any]):
        from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-not-found]

        self.threads = settings["threads"]
        begun = time.perf_counter()
        self.interpreter = Interpreter(path, num_threads=self.threads)
        self.interpreter.allocate_tensors()
        self.load_ms = (time.perf_counter() - begun) * 1000
        entries, results = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        if len(entries) != 1 or len(results) != 1 or entries[0]["dtype"] != np.uint8:
            inputs = ", ".join("{} {}".format(np.dtype(e["dtype"]), list(e["shape"])) for e in entries)
            raise LookupError(f"expected one uint8 image in and one answer out, the file takes {inputs}")
        self.entry, self.result = entries[0]["index"], results[0]["index"]
        self.scale, self.zero = results[0]["quantization"]
        self.finish = settings.get("finish", "")  # of a file in integers alone: what its answers are

    def infer(self, image: Any) -> Any:
        """uint8 (1, size, size, 3) -> float32 (1, outputs)."""
        self.interpreter.set_tensor(self.entry, image)
        self.interpreter.invoke()
        answers = self.interpreter.get_tensor(self.result)  # a copy
        return integers.finished(answers, self.scale, self.zero, self.finish) if self.finish else answers

    def effective(self, image: Any) -> dict[str, Any]:
        """What the file's layers compute in, by the type of their inputs, and whether XNNPACK runs them.

        The interpreter reports no threads and no instruction set: threads are those it was given.
        """
        types = {one["index"]: np.dtype(one["dtype"]).name for one in self.interpreter.get_tensor_details()}
        operators = self.interpreter._get_ops_details()
        layers = []
        for operator in operators:
            names = ["float" if types.get(i) == "float32" else types.get(i, "") for i in operator["inputs"][:2]]
            layers.append((operator["op_name"], names[0] if len(set(names)) == 1 else " x ".join(names)))
        delegated = any(operator["op_name"] == DELEGATED for operator in operators)
        return {
            "runtime": "LiteRT " + version("ai-edge-litert"),
            "accelerator": "XNNPACK" if delegated else "LiteRT's own kernels",
            "threads": self.threads,
            **kernels.summary(layers),
        }
