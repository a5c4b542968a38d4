"""ONNX with the labels in a text file beside it: two files that are hashed and sent together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from softedge.export.base import Uint8
from softedge.export.contract import artifact_of
from softedge.export.onnx.format import Onnx
from softedge.records import Artifact
from softedge.run import write_text

if TYPE_CHECKING:
    from softedge.export.deployed import Deployed


class Labelled(Onnx):
    """Everything else, the runtime on devices included, is that of ONNX."""

    name = "labelled"
    title = "Labelled ONNX"

    def convert(self, deployed: Deployed, precision: str, calibration: Uint8, out: Path) -> Artifact:
        write_text(out / "labels.txt", "".join(f"{label}\n" for label in deployed.labels))
        made = super().convert(deployed, precision, calibration, out)
        return artifact_of(made.path, self.name, precision, made.spec, made.labels, made.output)

    def files(self, path: Path) -> list[Path]:
        return [path, path.with_name("labels.txt")]
