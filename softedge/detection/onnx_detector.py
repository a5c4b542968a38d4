"""Detectors as ONNX files; the graph around the network (resizing, boxes, NMS) stays in float32."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from softedge.detection.format import DetectorFormat, Pictures, Runner, Uint8
from softedge.export.onnx import format as exported
from softedge.export.quiet import quiet

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_SMALL = 256  # numbers; below it a tensor's type does not show in the file's size


class OnnxDetector(DetectorFormat):
    name, file, package = exported.Onnx.name, "model.onnx", "onnxruntime"

    def convert(
        self, traced: Path, out: Path, labels: tuple[str, ...], precision: str, calibration: Pictures | None
    ) -> Path:
        import onnx

        path = out / self.file
        if precision == "int8" and calibration is not None:
            quantize(traced, path, calibration)
        else:
            os.replace(traced, path)
        model = onnx.load(path)
        if precision == "fp16":
            model = half_weights(model)
        del model.metadata_props[:]
        onnx.helper.set_model_props(
            model, {"softedge.labels": json.dumps(list(labels)), "softedge.precision": precision}
        )
        model.producer_name = "softedge"
        onnx.save(model, path)
        return path

    def run(self, path: Path, threads: int = 1) -> Runner:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, threads
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return lambda image: dict(zip(names, session.run(None, {"image": image[None]})))


def half_weights(model: Any) -> Any:
    """An ONNX model whose weights are stored in float16 and widened when the runtime loads it: half the size, float32
    arithmetic. Boxes are pixels up to thousands, where float16 has steps of a whole pixel; so only weights are halved.
    """
    import onnx

    read = {name for node in model.graph.node if node.op_type in _WEIGHTED for name in node.input[1:2]}
    widen = []
    for tensor in model.graph.initializer:
        if tensor.name not in read or tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < _SMALL:
            continue
        values, stored = onnx.numpy_helper.to_array(tensor), f"{tensor.name}_half"
        widen.append(onnx.helper.make_node("Cast", [stored], [tensor.name], f"widen_{tensor.name}", to=1))
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), stored))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*widen, *nodes])
    return model


def quantize(source: Path, out: Path, pictures: Pictures) -> None:
    """Convolutions and linear layers in int8 by onnxruntime's own tool: QDQ, u8s8, weights per channel.

    Not the export of classifiers: that one knows the patterns of a classifier's graph only.
    """
    with quiet():
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

        class Reader(CalibrationDataReader):  # type: ignore[misc]
            def __init__(self) -> None:
                self.stream = pictures()

            def get_next(self) -> dict[str, Uint8] | None:
                image = next(self.stream, None)
                return None if image is None else {"image": image[None]}

        quantize_static(
            source,
            out,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Gemm"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"CalibMovingAverage": True},
        )
