"""The formats that detectors are exported to: the one place in this package that knows their names."""

from __future__ import annotations

ONNX, OPENVINO = "onnx", "openvino"
FORMATS = (ONNX, OPENVINO)
