"""OpenVINO files on a device.

Travels to boards: Python 3.8, NumPy and openvino; no softedge import.  See ``bench/board/worker.py``.
"""

from __future__ import annotations

import platform
import time
from typing import Any

import detections  # type: ignore[import-not-found]
import kernels  # type: ignore[import-not-found]

ARM = ("aarch64", "arm64", "armv7l", "armv8l")


class Runtime:
    """A compiled model of OpenVINO in latency mode, its batch fixed to 1 as an app would."""

    def __init__(self, path: str, settings: dict[str, Any]):
        import openvino

        self.module = openvino
        self.engine = openvino.Core()
        self.device = settings.get("device") or "CPU"
        if self.device not in self.engine.available_devices:
            known = ", ".join(self.engine.available_devices)
            raise LookupError(f"this OpenVINO sees no device {self.device}; it sees: {known}")
        options = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        if self.device == "CPU":
            options["INFERENCE_NUM_THREADS"] = settings["threads"]
        natively = settings.get("half_natively") and (self.device != "CPU" or platform.machine().lower() in ARM)
        if settings.get("precision") and not natively:
            options["INFERENCE_PRECISION_HINT"] = settings["precision"]
        begun = time.perf_counter()
        model = self.engine.read_model(path)
        shape = model.inputs[0].get_partial_shape()
        shape[0] = 1
        model.reshape({0: shape})
        self.compiled = self.engine.compile_model(model, self.device, options)
        self.request = self.compiled.create_infer_request()
        self.names = [output.any_name for output in self.compiled.outputs] if settings.get("detections") else []
        self.load_ms = (time.perf_counter() - begun) * 1000

    def infer(self, image: Any) -> Any:
        """uint8 (1, size, size, 3) -> float32 (1, classes)."""
        self.request.set_input_tensor(self.module.Tensor(image, shared_memory=True))
        self.request.infer()
        if self.names:
            return detections.as_row(
                {name: self.request.get_output_tensor(i).data for i, name in enumerate(self.names)}
            )
        return self.request.get_output_tensor(0).data.copy()

    def effective(self, image: Any) -> dict[str, Any]:
        """What the compiled model says of itself: precision and instruction set of every layer."""
        layers, primitives = [], set()
        for layer in self.compiled.get_runtime_model().get_ops():
            info = {key: _value(layer.get_rt_info()[key]) for key in ("layerType", "primitiveType")}
            # "brgconv_avx2_f32": what the kernel computes in; the layer's own type is only what it stores.
            layers.append((info["layerType"], info["primitiveType"].rpartition("_")[2].lower()))
            if info["layerType"] in kernels.HEAVY:
                primitives.add(info["primitiveType"])
        answer = {
            "runtime": "openvino " + self.module.__version__.split("-")[0],
            "accelerator": ", ".join(self.compiled.get_property("EXECUTION_DEVICES")),
            "primitives": sorted(primitives),
            **kernels.summary(layers),
        }
        if self.device == "CPU":
            answer["threads"] = int(self.compiled.get_property("INFERENCE_NUM_THREADS"))
        return answer


def _value(entry: Any) -> str:
    return str(getattr(entry, "value", entry))
