"""8-bit weights with wider activations: 16-bit integers for processors that have such kernels, or float."""

from __future__ import annotations

import onnx

from softedge.export.base import Uint8
from softedge.export.onnx.quantizer import Scheme, quantize, store_weights_in_int8
from softedge.export.onnx.ranges import measure
from softedge.export.onnx.rewrite import copied, for_integers
from softedge.records import Precision

OPSET = 21  # the first whose QuantizeLinear writes 16 bits


def wide(model: onnx.ModelProto, bits: Precision, calibration: Uint8) -> onnx.ModelProto:
    """A float graph with 8-bit weights and activations of 16 bits or in float (``bits.activations`` 32).

    16 bits: QDQ as in int8, each range that of all of ``calibration``, uint8 (N, S, S, 3): with 65,535 steps nothing
    has to be cut off.  onnxruntime's CPU kernels compute such layers in float between the roundings; processors like
    Hexagon and Ethos-U have integer kernels for them.
    """
    if bits.activations != 16:
        model = copied(model)
        store_weights_in_int8(model)
        return model
    graph = for_integers(model)
    ranges = measure(graph, calibration, "minmax") if len(calibration) else {}
    quantized = quantize(graph, ranges, Scheme(activation_bits=16))
    for entry in quantized.opset_import:
        entry.version = OPSET if entry.domain in ("", "ai.onnx") else entry.version
    return quantized
