"""ONNX files for onnxruntime on any system, phone or browser: fp32, fp16, int8 (QDQ u8s8 per channel) and relatives."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from softedge.errors import UserError, first_line
from softedge.export.base import Float32, Format, GivenModel, Predictor, Uint8, needs
from softedge.export.candidates import Candidates
from softedge.export.contract import artifact_of
from softedge.export.finishing import edges, finish_integers
from softedge.export.metadata import entries
from softedge.records import Artifact, Precision
from softedge.run import read_json, write_bytes

if TYPE_CHECKING:
    import onnxruntime

    from softedge.export.deployed import Deployed
    from softedge.export.onnx.quantizer import Scheme


class Onnx(Format):
    """calibration, percentile: see ``ranges``; "best": the one nearest to fp32.

    scheme: what int8 computes in integers; None: chosen by measured time and closeness to float (``speed``), or
    the float beginning that ends at the layer ``float_prefix``.
    safe: weights of 7 bits, so that sums cannot saturate on x86 without VNNI.
    """

    name = "onnx"
    title = "ONNX"
    suffix = ".onnx"
    searchable = ("int8", "int8-strict")
    strict = "int8-strict"
    precisions: ClassVar[Mapping[str, Precision]] = {
        "fp32": Precision(32, 32),
        "fp16": Precision(16, 16),
        "int8": Precision(8, 8),
        "w8a16": Precision(8, 16),
        "w8a32": Precision(8, 32),  # weights alone: a quarter of the size at the speed of fp32
        "int8-strict": Precision(8, 8),  # integers alone, see ``strict``
    }
    packages = ("onnx", "onnxruntime")
    seconds: ClassVar[Mapping[str, float]] = {"fp32": 2.0, "fp16": 1.0, "int8": 30.0}
    board_packages: ClassVar[Mapping[str, str]] = {"onnxruntime": "onnxruntime"}
    board_options = ("provider",)
    saturation_advice = (
        "u8 x s8 products saturate 16 bits on x86 without VNNI: export again with --set export.safe=true (7 bits), or "
        "set session.x64quantprecision=1 in onnxruntime's session options"
    )

    def __init__(
        self,
        batch: str = "dynamic",
        safe: bool = False,
        float_prefix: str = "",
        *,
        calibration: Literal["best", "mean", "minmax", "percentile", "mse", "entropy"] = "best",
        percentile: float = 99.99,
        scheme: Scheme | None = None,
    ):
        super().__init__(batch, safe, float_prefix)
        self.calibration, self.percentile, self.scheme = calibration, percentile, scheme
        self.measured: Mapping[str, Any] = {}  # of ``float_prefix``, where it was measured before

    def missing(self) -> str | None:
        return needs("exporting to ONNX", "onnx", "onnxruntime", "onnxscript")

    def convert(self, deployed: Deployed, precision: str, calibration: Uint8, out: Path) -> Artifact:
        from softedge.export.nearest import write_nearest, write_only
        from softedge.export.onnx import graph as onnx_graph
        from softedge.export.onnx.wide import WideCandidates

        bits = self.bits(precision)
        path = out / f"model{self.suffix}"
        if (candidates := self.candidates(deployed, precision, calibration)) is not None:
            path = write_nearest(candidates, deployed, calibration, out)
        elif bits.is_int8:
            wide = WideCandidates(deployed, calibration, precision, dynamic=self.batch == "dynamic")
            path = write_only(wide, wide.only(), deployed, calibration, out)
        else:
            graph = onnx_graph.trace(deployed, dynamic=self.batch == "dynamic")
            if bits.weights == 16:
                graph = onnx_graph.to_half(graph)
            write_bytes(path, onnx_graph.finished(graph, deployed, precision))
        return artifact_of(path, self.name, precision, deployed.spec, deployed.labels, deployed.output)

    def without_timing(self) -> Onnx:
        """All layers in integers: otherwise the export times how many to leave in float."""
        from softedge.export.onnx.quantizer import Scheme

        settings: dict[str, Any] = {"calibration": self.calibration, "percentile": self.percentile}
        return Onnx(self.batch, self.safe, scheme=self.scheme or Scheme(), **settings)

    def as_before(self, notes: Mapping[str, Any]) -> Onnx:
        measured = notes.get("speed") or {}
        if self.float_prefix or self.scheme is not None or not measured.get("float_until"):
            return self
        settings: dict[str, Any] = {"calibration": self.calibration, "percentile": self.percentile}
        kept = type(self)(self.batch, self.safe, measured["float_until"], **settings)
        kept.measured = measured
        return kept

    def candidates(
        self, deployed: Deployed, precision: str, calibration: Uint8, like: Artifact | None = None
    ) -> Candidates | None:
        from softedge.export.onnx.candidates import OnnxCandidates
        from softedge.export.onnx.ranges import METHODS
        from softedge.export.onnx.strict import PRECISION, StrictCandidates

        if precision not in self.searchable:
            return None
        kind = StrictCandidates if precision == PRECISION else OnnxCandidates
        return kind(
            deployed,
            calibration,
            dynamic=self.batch == "dynamic",
            safe=self.safe,
            float_prefix=self.float_prefix,
            measured=self.measured,
            scheme=self.scheme,
            methods=METHODS if self.calibration == "best" else (self.calibration,),
            percentile=self.percentile,
            like=like,
        )

    def given(self, path: Path, asked: Mapping[str, Any]) -> GivenModel | None:
        from softedge.export.onnx.given import read

        return read(path, asked)

    def load(self, artifact: Artifact) -> Predictor:
        return load_model(artifact.path)

    def runtime(self) -> str:
        return f"onnxruntime {version('onnxruntime')}"

    def integer_operations(self, artifact: Artifact) -> dict[str, int]:
        from softedge.export.onnx.counting import integer_operations

        return integer_operations(artifact.path)

    def board_settings(self, artifact: Artifact, options: Mapping[str, str]) -> dict[str, Any]:
        return {"provider": options["provider"]} if "provider" in options else {}

    def notes(self, artifact: Artifact) -> dict[str, Any]:
        """What was decided while the file was made, read back: integer operators, where the float part ends, its times.

        And what the file asks of a runtime.
        """
        import onnx

        from softedge.export.onnx.graph import OLDEST, OLDEST_RUNTIME
        from softedge.export.onnx.quantizer import quantized_ops
        from softedge.export.onnx.speed import TIMES

        model = onnx.load(artifact.path)
        about = {p.key.removeprefix("softedge."): p.value for p in model.metadata_props}
        notes: dict[str, Any] = {"quantized_ops": quantized_ops(model)}
        notes["ir_version"] = model.ir_version
        notes["opset"] = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
        notes["oldest_onnxruntime_tried"] = OLDEST.get(artifact.precision, OLDEST_RUNTIME)
        notes |= {key: about[key] for key in ("calibration", "safe", "rounding") if key in about}
        if "speed" in about:
            times = artifact.path.with_name(TIMES)
            notes["speed"] = json.loads(about["speed"]) | (read_json(times) if times.exists() else {})
        return notes

    def metadata(self, artifact: Artifact) -> Mapping[str, Any]:
        """By onnxruntime, which is all that a device has."""
        stored = _opened(artifact.path, plain=True).get_modelmeta().custom_metadata_map
        return entries({key.removeprefix("softedge."): value for key, value in stored.items()})

    def integer_edges(self, artifact: Artifact) -> Mapping[str, Mapping[str, Any]]:
        import onnx

        if not self.integers_alone(artifact):
            return {}
        model = onnx.load(artifact.path, load_external_data=False)
        known = {p.key: p.value for p in model.metadata_props}
        scale, zero = json.loads(known["softedge.output_grid"])
        return edges(model.graph.output[0].name, scale, zero, artifact.output)

    def layer_outputs(self, artifact: Artifact, images: Uint8, deployed: Deployed) -> Iterator[tuple[str, Float32]]:
        from softedge.export.onnx.ranges import layer_outputs

        del deployed  # the file itself knows the names of its weights
        return layer_outputs(artifact.path, images)


def _opened(path: Path, threads: int = 0, plain: bool = False) -> onnxruntime.InferenceSession:
    """plain: without optimizing the graph, for what is not run."""
    if (why := needs("running an ONNX file", "onnxruntime")) is not None:
        raise UserError(why)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    if plain:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no public base
        raise UserError(f"{path} cannot be loaded by onnxruntime ({first_line(error)})") from error


def load_model(path: Path, batch: int = 32, threads: int = 0) -> Predictor:
    """Run a model file with onnxruntime on the CPU. threads: 0 leaves the choice to the runtime."""
    session = _opened(path, threads)
    entry = session.get_inputs()[0]
    step = entry.shape[0] if isinstance(entry.shape[0], int) else batch
    about = session.get_modelmeta().custom_metadata_map
    grid = json.loads(about.get("softedge.output_grid", "null"))  # scale and zero point of logits in integers

    def predict(images: Uint8) -> Float32:
        parts = [session.run(None, {entry.name: images[i : i + step]})[0] for i in range(0, len(images), step)]
        outputs = np.concatenate(parts).astype(np.float32)
        return outputs if grid is None else finish_integers(outputs, grid[0], grid[1], about["softedge.output"])

    return predict
