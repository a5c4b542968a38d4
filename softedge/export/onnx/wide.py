"""8-bit weights with wider activations: 16-bit integers for processors that have such kernels, or float."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx

from softedge.export.base import Uint8
from softedge.export.candidates import Option
from softedge.export.deployed import Deployed
from softedge.export.onnx import graph as onnx_graph
from softedge.export.onnx.candidates import OnnxCandidates
from softedge.export.onnx.quantization import Quantization, WeightsAlone
from softedge.export.onnx.quantizer import Scheme
from softedge.export.onnx.ranges import measure
from softedge.records import Precision

OPSET = 21  # the first whose QuantizeLinear writes 16 bits


class In16Bits(Quantization):
    """QDQ as in int8.  onnxruntime's CPU kernels compute such layers in float between the roundings; processors like
    Hexagon and Ethos-U have integer kernels for them."""

    def model(self) -> onnx.ModelProto:
        model = super().model()
        for entry in model.opset_import:
            entry.version = OPSET if entry.domain in ("", "ai.onnx") else entry.version
        return model


class WideCandidates(OnnxCandidates):
    """One file alone, with nearest steps or rounded weights.  precision: its name, for the file."""

    def __init__(self, deployed: Deployed, calibration: Uint8, precision: str, *, dynamic: bool = True):
        super().__init__(deployed, calibration, dynamic=dynamic)
        self.precision = precision

    def only(self) -> Option:
        """16 bits: each range is that of all images; with 65,535 steps nothing has to be cut off."""
        if Precision.named(self.precision).activations != 16:
            return Option(self.precision, WeightsAlone(self.float_model, {}))
        ranges = measure(self.graph, self.calibration, "minmax") if len(self.calibration) else {}
        return Option(self.precision, In16Bits(self.graph, ranges, Scheme(activation_bits=16)))

    def finished(self, model: onnx.ModelProto, details: Mapping[str, Any]) -> bytes:
        return onnx_graph.finished(model, self.deployed, self.precision, **details)
