"""OpenVINO IR for Intel processors, and for ARM through the same runtime: fp32, fp16 weights, int8 by NNCF."""

from __future__ import annotations

import math
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from softedge.errors import UserError
from softedge.export.contract import INPUT, artifact_of
from softedge.export.quiet import quiet
from softedge.export.target import Float32, Predictor, Uint8, needs
from softedge.records import Artifact, InputSpec
from softedge.run import fsync_folder

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class OpenVino:
    """batch: "dynamic" or "one".  The IR is two files, ``model.xml`` and its weights ``model.bin``."""

    batch: Literal["dynamic", "one"] = "dynamic"

    name = "openvino"
    precisions = ("fp32", "fp16", "int8")
    suffix = ".xml"

    def missing(self) -> str | None:
        return needs("exporting to OpenVINO", "openvino", "nncf", "onnx", "onnxscript")

    def convert(self, model: nn.Module, spec: InputSpec, precision: str, calibration: Uint8, out: Path) -> Artifact:
        from softedge.export.deployed import Deployed

        if precision not in self.precisions:
            raise UserError(f"OpenVINO has no precision '{precision}'; known: {', '.join(self.precisions)}")
        deployed = Deployed.of(model, spec)
        with quiet():
            network = _from_onnx(deployed, dynamic=self.batch == "dynamic")
            if precision == "int8":
                network = quantize(network, calibration)
            _describe(network, deployed, precision)
            path = out / f"model{self.suffix}"
            _save(network, path, half=precision == "fp16")
        return artifact_of(path, self.name, precision, spec, deployed.labels, deployed.output)

    def load(self, artifact: Artifact) -> Predictor:
        return load_model(artifact.path)


def from_int8_onnx(source: Path, deployed: Any, out: Path) -> Path:
    """Write ``out/model.xml`` with the integers of a QDQ ONNX file instead of NNCF's; returns its path."""
    import openvino as ov

    with quiet():
        network = ov.convert_model(source)
        _describe(network, deployed, "int8")
        path = out / f"model{OpenVino.suffix}"
        _save(network, path, half=False)
    return path


def _from_onnx(deployed: Any, dynamic: bool) -> Any:
    """The IR of the traced graph: the ONNX route keeps input and output names, the torch route leaves them empty."""
    import openvino as ov

    from softedge.export import onnx_graph

    graph = onnx_graph.trace(deployed, dynamic=dynamic)
    with tempfile.TemporaryDirectory(prefix="softedge-") as folder:
        source = Path(folder) / "model.onnx"
        source.write_bytes(graph.SerializeToString())
        try:
            return ov.convert_model(source)
        except Exception as error:  # openvino raises RuntimeError subclasses and its own kinds
            reason = str(error).strip().splitlines()[-1][:200]
            raise UserError(f"OpenVINO cannot express this network: {reason}") from error


def quantize(network: Any, calibration: Uint8) -> Any:
    """NNCF post-training quantization, mixed preset: symmetric weights, asymmetric activations.

    Bias correction stays in its fast form: the full one took 5 points from a MobileNetV3-Large.  NNCF leaves the
    convolutions of squeeze-excite in float; their weights are then compressed to int8, or they would double the file.

    Activation ranges: the mean of the images' ranges (NNCF's default) clips outliers, the widest range wastes steps.
    Which hurts less depends on the network (on a MobileNetV3 pretrained on digits the first changed 2.8 % of the
    answers, the second 0.6 %), so both are made and the one closer to float on the calibration images is kept.
    """
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    if not len(calibration):
        raise UserError("int8 needs calibration images, found none; give some, or leave int8 out of --precisions")
    expected = _predictor(network)(calibration)
    best: tuple[float, Any] = (math.inf, None)
    for ranges in (RangeEstimatorParametersSet.MEAN_MINMAX, RangeEstimatorParametersSet.MINMAX):
        candidate = nncf.quantize(
            network,
            nncf.Dataset([image[None] for image in calibration]),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(calibration),
            fast_bias_correction=True,
            advanced_parameters=nncf.AdvancedQuantizationParameters(activations_range_estimator_params=ranges),
        )
        error = float(np.abs(_predictor(candidate)(calibration) - expected).mean())
        if error < best[0]:
            best = error, candidate
    return nncf.compress_weights(best[1], mode=nncf.CompressWeightsMode.INT8_SYM)


def _describe(network: Any, deployed: Any, precision: str) -> None:
    """Put labels, preprocessing, precision and origin into the IR's rt_info."""
    from softedge.export.contract import to_json

    values = {
        "labels": to_json(list(deployed.labels)),
        "input": to_json(deployed.spec.to_dict()),
        "output": deployed.output,
        "precision": precision,
        **{key: str(value) for key, value in deployed.about.items()},
    }
    for key, value in values.items():
        network.set_rt_info(value, ["softedge", key])
    network.inputs[0].get_tensor().set_names({INPUT})
    network.outputs[0].get_tensor().set_names({deployed.output})


def _save(network: Any, path: Path, half: bool) -> None:
    """Write ``path`` and its .bin beside their final names and rename both, the .xml last."""
    import openvino as ov

    with tempfile.TemporaryDirectory(prefix=".model-", dir=path.parent) as folder:
        written = Path(folder) / path.name
        try:
            ov.save_model(network, written, compress_to_fp16=half)
        except RuntimeError as error:  # openvino reports a full disk this way
            raise OSError(f"cannot write {path} ({str(error).strip().splitlines()[-1][:160]})") from error
        # The indentation is a sixth of the file, and of an int8 mobile network the file is a third.
        written.write_text(re.sub(r">\s+<", "><", written.read_text()))
        for file in (written.with_suffix(".bin"), written):
            os.replace(file, path.with_name(file.name))
    fsync_folder(path.parent)


def load_model(path: Path, batch: int = 32) -> Predictor:
    """Run an IR on the CPU in float32."""
    if (why := needs("running an OpenVINO file", "openvino")) is not None:
        raise UserError(why)
    try:
        return _predictor(path, batch)
    except Exception as error:  # openvino raises RuntimeError subclasses and its own kinds
        reason = str(error).strip().splitlines()[-1][:200]
        raise UserError(f"{path} cannot be loaded by OpenVINO ({reason})") from error


def _predictor(model: Any, batch: int = 32) -> Predictor:
    """Compile a file or a network; left alone, OpenVINO computes in bf16 or f16 where the processor has it."""
    import openvino as ov

    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    shape = compiled.inputs[0].get_partial_shape()
    step = batch if shape[0].is_dynamic else shape[0].get_length()

    def predict(images: Uint8) -> Float32:
        parts = [next(iter(compiled(images[i : i + step]).values())) for i in range(0, len(images), step)]
        return np.concatenate(parts).astype(np.float32)

    return predict
