"""LiteRT files (.tflite) for Android: fp32 and int8, through an environment of its own.

The environment (``environment.py``) gets programs of torch.export, which both versions of torch read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from softedge.errors import UserError
from softedge.export.base import Environment, Float32, Format, GivenModel, Predictor, Uint8
from softedge.export.contract import artifact_of
from softedge.export.litert import environment
from softedge.export.litert.environment import complete, work
from softedge.export.quiet import quiet
from softedge.files import temporary_folder
from softedge.records import Artifact, Precision
from softedge.run import atomic_path

if TYPE_CHECKING:
    from softedge.export.deployed import Deployed


class LiteRt(Format):
    """A file holds one image."""

    name = "litert"
    title = "LiteRT"
    suffix = ".tflite"
    precisions: ClassVar[Mapping[str, Precision]] = {"fp32": Precision(32, 32), "int8": Precision(8, 8)}
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
        return Environment(environment.folder(), environment.SIZE, complete(), environment.make)

    def runtime(self) -> str:
        return "LiteRT interpreter (XNNPACK) in its own environment"

    def convert(self, deployed: Deployed, precision: str, calibration: Uint8, out: Path) -> Artifact:
        import torch

        bits = self.bits(precision)
        if bits.is_int8 and not len(calibration):
            raise UserError("int8 needs calibration images, found none; give some, or leave int8 out of --precisions")
        if (why := self.missing()) is not None:
            raise UserError(why)
        size = deployed.spec.size
        path = out / f"model{self.suffix}"
        with temporary_folder("litert") as folder:
            program, images = folder / "program.pt2", folder / "calibration.npy"
            with quiet(), torch.no_grad():
                example = torch.zeros((1, size, size, 3), dtype=torch.uint8)
                torch.export.save(torch.export.export(deployed.folded(), (example,)), program)
            extra = []
            if bits.is_int8:
                np.save(images, calibration)
                extra = [images]
            with atomic_path(path) as temporary:
                work("convert", program, temporary, *extra)
        return artifact_of(path, self.name, precision, deployed.spec, deployed.labels, deployed.output)

    def given(self, path: Path, asked: Mapping[str, Any]) -> GivenModel:
        from softedge.export.litert.given import read

        return read(path, asked)

    def load(self, artifact: Artifact) -> Predictor:
        if (why := self.missing()) is not None:
            raise UserError(why)

        def predict(images: Uint8) -> Float32:
            with temporary_folder("litert") as folder:
                given, answered = folder / "images.npy", folder / "outputs.npy"
                np.save(given, images)
                work("run", artifact.path, given, answered)
                return np.load(answered)

        return predict
