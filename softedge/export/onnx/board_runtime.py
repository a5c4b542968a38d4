"""ONNX files on a device, by onnxruntime.

Travels to boards: Python 3.8, NumPy and onnxruntime; no softedge import.  See ``bench/board/worker.py``.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from typing import Any

import detections  # type: ignore[import-not-found]
import integers  # type: ignore[import-not-found]
import kernels  # type: ignore[import-not-found]


class Runtime:
    """A session of onnxruntime with the threads and the execution provider that were asked for."""

    def __init__(self, path: str, settings: dict[str, Any]):
        import onnxruntime

        self.module, self.path, self.settings = onnxruntime, path, settings
        self.provider = settings.get("provider") or "CPUExecutionProvider"
        known = onnxruntime.get_available_providers()
        if self.provider not in known:
            raise LookupError("this onnxruntime has no {}; it has: {}".format(self.provider, ", ".join(known)))
        begun = time.perf_counter()
        self.session = onnxruntime.InferenceSession(path, self._options(), providers=self._providers())
        self.load_ms = (time.perf_counter() - begun) * 1000
        self.input, self.output = self.session.get_inputs()[0].name, [self.session.get_outputs()[0].name]
        about = self.session.get_modelmeta().custom_metadata_map
        self.grid = json.loads(about.get("softedge.output_grid", "null"))  # scale and zero point of an integer output
        self.kind = about.get("softedge.output")
        if settings.get("detections"):
            self.output = [output.name for output in self.session.get_outputs()]

    def _options(self) -> Any:
        options = self.module.SessionOptions()
        options.intra_op_num_threads = self.settings["threads"]
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return options

    def _providers(self) -> list[str]:
        return [self.provider] + (["CPUExecutionProvider"] if self.provider != "CPUExecutionProvider" else [])

    def infer(self, image: Any) -> Any:
        """uint8 (1, size, size, 3) -> float32 (1, classes)."""
        values = self.session.run(self.output, {self.input: image})
        if self.settings.get("detections"):
            return detections.as_row(dict(zip(self.output, values)))
        return values[0] if self.grid is None else integers.finished(values[0], *self.grid, self.kind)

    def effective(self, image: Any) -> dict[str, Any]:
        """Which kernels an inference runs, by onnxruntime's own profiler in a second session (after the timing)."""
        with tempfile.TemporaryDirectory() as folder:
            options = self._options()
            options.enable_profiling = True
            options.profile_file_prefix = os.path.join(folder, "profile")
            session = self.module.InferenceSession(self.path, options, providers=self._providers())
            session.run(self.output, {self.input: image})
            with open(session.end_profiling()) as file:
                events = json.load(file)
        summary, providers = kernels.of_profile(events)
        ran = [f"{name} ({count} kernels)" for name, count in providers.most_common()]
        return {
            "runtime": "onnxruntime " + self.module.__version__,
            "accelerator": self.provider if len(ran) == 1 else " + ".join(ran),
            "threads": self.session.get_session_options().intra_op_num_threads,
            **summary,
        }
