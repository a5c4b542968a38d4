"""OpenVINO IR for Intel processors, and for ARM through the same runtime: fp32, fp16 and int8 weights, int8 by NNCF."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from softedge.errors import UserError
from softedge.export.base import INTEGERS_OF, Float32, Format, GivenModel, Predictor, Uint8, needs
from softedge.export.candidates import Candidates
from softedge.export.contract import artifact_of
from softedge.export.metadata import entries
from softedge.export.openvino.core import core
from softedge.export.openvino.network import F32, from_onnx, predictor, write
from softedge.export.quiet import quiet
from softedge.records import Artifact, Precision

if TYPE_CHECKING:
    from softedge.export.deployed import Deployed


class OpenVino(Format):
    """The IR is two files, ``model.xml`` and its weights ``model.bin``.  safe: weights of 7 bits, see ``int8``."""

    name = "openvino"
    title = "OpenVINO"
    suffix = ".xml"
    searchable = ("int8",)
    integers_from = (".onnx",)
    precisions: ClassVar[Mapping[str, Precision]] = {
        "fp32": Precision(32, 32),
        "fp16": Precision(16, 16),
        "int8": Precision(8, 8),
        "w8a32": Precision(8, 32),  # weights alone
    }
    packages = ("openvino", "nncf", "onnx")
    seconds: ClassVar[Mapping[str, float]] = {"fp32": 1.0, "fp16": 1.0, "int8": 40.0}
    board_packages: ClassVar[Mapping[str, str]] = {"openvino": "openvino"}
    board_options = ("device", "precision")
    saturation_advice = (
        "u8 x s8 products saturate 16 bits on x86 without VNNI: export again with --set export.safe=true (7 bits)"
    )

    def missing(self) -> str | None:
        return needs("exporting to OpenVINO", "openvino", "nncf", "onnx", "onnxscript")

    def convert(self, deployed: Deployed, precision: str, calibration: Uint8, out: Path) -> Artifact:
        from softedge.export.nearest import write_nearest, write_only
        from softedge.export.openvino.candidates import OpenVinoCandidates

        bits = self.bits(precision)
        path = out / f"model{self.suffix}"
        with quiet():
            if (candidates := self.candidates(deployed, precision, calibration)) is not None:
                path = write_nearest(candidates, deployed, calibration, out, self.others)
            elif bits.is_int8:
                candidates = OpenVinoCandidates(deployed, calibration, dynamic=self.batch == "dynamic")
                path = write_only(candidates, candidates.weights_only(), deployed, calibration, out)
            else:
                write(from_onnx(deployed, dynamic=self.batch == "dynamic"), deployed, precision, path)
        return artifact_of(path, self.name, precision, deployed.spec, deployed.labels, deployed.output)

    def candidates(
        self, deployed: Deployed, precision: str, calibration: Uint8, like: Artifact | None = None
    ) -> Candidates | None:
        from softedge.export.openvino.candidates import OpenVinoCandidates

        del like  # nothing is chosen by speed
        if precision not in self.searchable:
            return None
        return OpenVinoCandidates(deployed, calibration, safe=self.safe, dynamic=self.batch == "dynamic")

    def given(self, path: Path, asked: Mapping[str, Any]) -> GivenModel:
        from softedge.export.openvino.given import read

        return read(path, asked)

    def files(self, path: Path) -> list[Path]:
        return [path, path.with_suffix(".bin")]

    def load(self, artifact: Artifact) -> Predictor:
        return load_model(artifact.path)

    def runtime(self) -> str:
        return f"openvino {version('openvino')}"

    def metadata(self, artifact: Artifact) -> Mapping[str, Any]:
        if (why := needs("reading an OpenVINO file", "openvino")) is not None:
            raise UserError(why)
        return entries(_stored(artifact.path))

    def notes(self, artifact: Artifact) -> dict[str, Any]:
        """What computed the expected outputs; left alone, OpenVINO takes bf16 or f16 where there is either.  And the
        file whose integers these are, where they are not its own."""
        notes: dict[str, Any] = {"compile_model": {"device": "CPU", "properties": dict(F32)}}
        about = _stored(artifact.path)
        if INTEGERS_OF in about:
            notes[INTEGERS_OF] = about[INTEGERS_OF]
        return notes

    def integer_operations(self, artifact: Artifact) -> dict[str, int]:
        from softedge.export.openvino.counting import integer_operations

        return integer_operations(artifact.path)

    def layer_outputs(self, artifact: Artifact, images: Uint8, deployed: Deployed) -> Iterator[tuple[str, Float32]]:
        """The IR keeps the names of the ONNX nodes that it was made from."""
        from softedge.export.onnx import graph as onnx_graph

        graph = onnx_graph.trace(deployed, dynamic=self.batch == "dynamic").graph
        modules = {n.name: n.input[1].split(".weight")[0] for n in graph.node if n.op_type in ("Conv", "Gemm")}
        network = core().read_model(artifact.path)
        operations = [op for op in network.get_ordered_ops() if op.get_friendly_name() in modules]
        outputs = network.add_outputs([op.output(0) for op in operations])
        run = core().compile_model(network, "CPU", F32)
        values = run(images[:1])
        for op, output in zip(operations, outputs):
            yield modules[op.get_friendly_name()], np.asarray(values[output.get_any_name()], np.float32)

    def board_settings(self, artifact: Artifact, options: Mapping[str, str]) -> dict[str, Any]:
        """Every file is held to f32, which the check judges and the snippets compute in.

        Left alone, OpenVINO takes bf16 or f16 where the processor has it.  fp16 files get what an ARM board, a GPU or
        an NPU prefers (``half_natively``, see ``board_runtime.py``): there half precision is what they are for.
        ``precision=f32|f16|bf16|default`` in the device's address overrides.
        """
        settings = {"device": options["device"]} if "device" in options else {}
        if (asked := options.get("precision")) is not None:
            return settings if asked == "default" else {**settings, "precision": asked}
        half = Precision.named(artifact.precision).weights == 16
        return {**settings, "precision": "f32", **({"half_natively": True} if half else {})}


def _stored(path: Path) -> dict[str, str]:
    """The entries that ``network.write`` puts into an IR; none in one that somebody else wrote."""
    network = core().read_model(path)
    about = network.get_rt_info(["softedge"]).astype(dict) if network.has_rt_info(["softedge"]) else {}
    return {key: str(getattr(value, "value", value)) for key, value in about.items()}


def load_model(path: Path, batch: int = 32) -> Predictor:
    """Run an IR on the CPU in float32."""
    if (why := needs("running an OpenVINO file", "openvino")) is not None:
        raise UserError(why)
    try:
        return predictor(path, batch)
    except Exception as error:  # openvino raises RuntimeError subclasses and its own kinds
        reason = str(error).strip().splitlines()[-1][:200]
        raise UserError(f"{path} cannot be loaded by OpenVINO ({reason})") from error
