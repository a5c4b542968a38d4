"""LiteRT files (.tflite) for Android, through an environment of its own.

The environment (``environment.py``) gets programs of torch.export, which both versions of torch read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from softedge.errors import UserError
from softedge.export.base import Environment, Float32, Format, GivenModel, Predictor, Uint8
from softedge.export.contract import artifact_of
from softedge.export.counting import entry, in_order
from softedge.export.finishing import edges, finish
from softedge.export.litert import environment
from softedge.export.litert.environment import complete
from softedge.export.nearest import write_nearest, write_only
from softedge.records import Artifact, Precision
from softedge.run import atomic_path

if TYPE_CHECKING:
    from softedge.export.candidates import Candidates
    from softedge.export.deployed import Deployed

_TYPES = ("weights", "input")  # of an operator, as ``worker.read`` names them


class LiteRt(Format):
    """A file holds one image."""

    name = "litert"
    title = "LiteRT"
    suffix = ".tflite"
    precisions: ClassVar[Mapping[str, Precision]] = {
        "fp32": Precision(32, 32),
        "fp16": Precision(16, 16),  # computed in float32 on a CPU, in half precision by a GPU
        "int8": Precision(8, 8),
        "w8a16": Precision(8, 16),
        "w8a32": Precision(8, 32),  # weights alone
        "int8-strict": Precision(8, 8),  # integers alone, see ``strict``
    }
    searchable = ("int8", "int8-strict")
    seconds: ClassVar[Mapping[str, float]] = {"fp32": 28.0, "int8": 150.0}
    strict = "int8-strict"
    board_packages: ClassVar[Mapping[str, str]] = {"ai_edge_litert.interpreter": "ai-edge-litert"}
    board_parts = (  # 18 of the 42 MB: neither the GPU, nor the tools that change a file
        "ai_edge_litert/__init__.py",
        "ai_edge_litert/interpreter.py",
        "ai_edge_litert/metrics_*.py",
        "ai_edge_litert/_pywrap_litert_interpreter_wrapper.so",
        "ai_edge_litert/libpywrap_litert_common.so",
    )

    phone_parts = ("ai_edge_litert/libLiteRt.so",)

    def phone_source(self) -> tuple[Path, tuple[str, ...]]:
        """Softedge's own library on LiteRT's C interface; boards have Python."""
        flags = ("-std=c++17", "-fno-exceptions", "-fno-rtti", "-L{wheel}/ai_edge_litert", "-lLiteRt")
        return Path(__file__).with_name("native.cpp"), flags

    def missing(self) -> str | None:
        if complete():
            return None
        return (
            "LiteRT needs an environment of its own (its converter needs torch below 2.15); "
            "make it with: softedge setup litert"
        )

    def environment(self) -> Environment:
        python = environment.interpreter()
        return Environment(environment.folder(), environment.SIZE, complete(), environment.make, python)

    def runtime(self) -> str:
        return "LiteRT interpreter (XNNPACK) in its own environment"

    def convert(self, deployed: Deployed, precision: str, calibration: Uint8, out: Path) -> Artifact:
        if self.needs_calibration(precision) and not len(calibration):
            raise UserError(
                f"{precision} needs calibration images, found none; give some, or leave {precision} out of --precisions"
            )
        if (why := self.missing()) is not None:
            raise UserError(why)
        if (candidates := self.candidates(deployed, precision, calibration)) is not None:
            path = write_nearest(candidates, deployed, calibration, out)
        elif precision == "fp32":
            from softedge.export.litert.candidates import converted

            path = out / f"model{self.suffix}"
            with atomic_path(path) as temporary:
                converted(deployed, temporary)
        else:
            from softedge.export.litert.candidates import NetworkCandidates

            images = calibration if self.calibrates(precision) else calibration[:0]
            candidates = NetworkCandidates(deployed, images)
            path = write_only(candidates, candidates.of(precision), deployed, images, out)
        return artifact_of(path, self.name, precision, deployed.spec, deployed.labels, deployed.output)

    def candidates(
        self, deployed: Deployed, precision: str, calibration: Uint8, like: Artifact | None = None
    ) -> Candidates | None:
        from softedge.export.litert.candidates import NetworkCandidates
        from softedge.export.litert.strict import StrictCandidates

        if precision not in self.searchable:
            return None
        return (StrictCandidates if precision == self.strict else NetworkCandidates)(deployed, calibration, like)

    def integer_operations(self, artifact: Artifact) -> dict[str, int]:
        if self.missing() is not None:
            return {}
        from softedge.export.litert.candidates import WEIGHTED, described

        layers = [op for op in described(artifact.path)["operators"] if op["kind"] in WEIGHTED and op["weights"]]
        return in_order(Counter(entry(WEIGHTED[op["kind"]], *(op[k] == "int8" for k in _TYPES)) for op in layers))

    def given(self, path: Path, asked: Mapping[str, Any]) -> GivenModel:
        from softedge.export.litert.given import read

        return read(path, asked)

    def integer_edges(self, artifact: Artifact) -> Mapping[str, Mapping[str, Any]]:
        if not self.integers_alone(artifact):
            return {}
        from softedge.export.litert.candidates import described

        (answer,) = described(artifact.path)["outputs"]
        return edges(answer["name"], answer["scale"], answer["zero_point"], artifact.output)

    def board_settings(self, artifact: Artifact, options: Mapping[str, str]) -> dict[str, Any]:
        """What the answers of a file in integers alone become."""
        return {"finish": artifact.output} if self.integers_alone(artifact) else {}

    def load(self, artifact: Artifact) -> Predictor:
        if (why := self.missing()) is not None:
            raise UserError(why)
        from softedge.export.litert.candidates import run

        def predict(images: Uint8) -> Float32:
            outputs = run(artifact.path, images)
            return finish(outputs, artifact.output) if self.integers_alone(artifact) else outputs

        return predict
