"""Detectors as OpenVINO files; the graph around the network (resizing, boxes, NMS) stays in float32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from softedge.detection.format import DetectorFormat, Pictures, Runner
from softedge.export.openvino import format as exported
from softedge.export.openvino.core import core, shared
from softedge.export.quiet import quiet


class OpenVinoDetector(DetectorFormat):
    name, file, package = exported.OpenVino.name, "model.xml", exported.OpenVino.packages[0]

    def convert(
        self, traced: Path, out: Path, labels: tuple[str, ...], precision: str, calibration: Pictures | None
    ) -> Path:
        path = out / self.file
        with quiet():
            import openvino as ov

            network = ov.convert_model(traced)
            if precision == "int8" and calibration is not None:
                network = quantize(network, calibration)
            network.set_rt_info(json.dumps(list(labels)), ["softedge", "labels"])
            network.set_rt_info(precision, ["softedge", "precision"])
            ov.save_model(network, path, compress_to_fp16=precision == "fp16")
        return path

    def run(self, path: Path, threads: int = 1) -> Runner:
        """In float32, whatever the processor prefers."""
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        compiled = core().compile_model(path, "CPU", settings)
        names = [output.any_name for output in compiled.outputs]
        return lambda image: dict(zip(names, (np.array(value) for value in compiled([image[None]]).values())))

    def files(self, path: Path) -> list[Path]:
        return [path, path.with_suffix(".bin")]


def quantize(network: Any, pictures: Pictures) -> Any:
    """NNCF post-training quantization with the settings that classifiers get; what NNCF leaves in float keeps int8
    weights. Left to itself NNCF also quantizes the whole photo before it is resized, and arithmetic on boxes.
    """
    import nncf

    chosen = list(pictures())
    with quiet(), shared():
        quantized = nncf.quantize(
            network,
            nncf.Dataset([image[None] for image in chosen]),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(chosen),
            fast_bias_correction=True,
            ignored_scope=nncf.IgnoredScope(names=around_the_network(network), validate=False),
        )
        return nncf.compress_weights(quantized, mode=nncf.CompressWeightsMode.INT8_SYM)


def around_the_network(network: Any) -> list[str]:
    """Names of an OpenVINO model's operations before the first layer with weights, and of those that lead to none."""
    operations = network.get_ordered_ops()
    layers = [op for op in operations if op.get_type_name() in ("Convolution", "GroupConvolution", "MatMul")]
    if not layers:
        return []
    inside = _reach(layers) - _reach([layers[0].input_value(0).get_node()])
    return [op.get_friendly_name() for op in operations if op.get_friendly_name() not in inside]


def _reach(ends: list[Any]) -> set[str]:
    """Names of the operations that lead to ``ends``, and their own."""
    reached: set[str] = set()
    waiting = list(ends)
    while waiting:
        op = waiting.pop()
        if op.get_friendly_name() not in reached:
            reached.add(op.get_friendly_name())
            waiting += [op.input_value(index).get_node() for index in range(op.get_input_size())]
    return reached
