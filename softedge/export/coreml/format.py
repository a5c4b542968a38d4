"""Core ML ML Programs (.mlpackage): an image input, normalisation and softmax in the graph, labels in the classifier.

fp32   float32, iOS 15        int8   8-bit weights per channel, float16 arithmetic, iOS 16
fp16   float16, iOS 15        w8a8   8-bit weights and activations, iOS 17 (the Neural Engine's int8 path)
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from softedge.errors import UserError
from softedge.export.base import Float32, Format, Predictor, Uint8, needs
from softedge.export.candidates import Candidates
from softedge.export.contract import artifact_of
from softedge.export.quiet import quiet
from softedge.records import REFERENCE, Artifact, Precision

if TYPE_CHECKING:  # imports torch
    from softedge.export.deployed import Deployed


class CoreMl(Format):
    """Core ML, converted on any system; run by Core ML on macOS and by the reference interpreter elsewhere.

    A file holds one image: an app's batch is a list of them.  Scores are a plain output: a classifier of Core ML picks
    one label an image.
    """

    name = "coreml"
    title = "Core ML"
    suffix = ".mlpackage"
    searchable = ("int8", "w8a8")
    precisions: ClassVar[Mapping[str, Precision]] = {
        "fp32": Precision(32, 32),
        "fp16": Precision(16, 16),
        "int8": Precision(8, 16),
        "w8a8": Precision(8, 8),
    }
    packages = ("coremltools",)
    seconds: ClassVar[Mapping[str, float]] = {"fp32": 7.0, "fp16": 7.0, "int8": 22.0}
    board_packages: ClassVar[Mapping[str, str]] = {"coremltools": "coremltools", "PIL": "pillow"}
    special_device = "Core ML models run on Apple devices only; use macos: on a Mac, or import Xcode's report"

    def missing(self) -> str | None:
        return needs("exporting to Core ML", "coremltools", extra="coreml")

    def convert(self, deployed: Deployed, precision: str, calibration: Uint8, out: Path) -> Artifact:
        if (why := self.missing()) is not None:
            raise UserError(why)
        bits = self.bits(precision)
        if bits.activations == 8 and not len(calibration):
            raise UserError(
                "Core ML w8a8 needs calibration images, found none; give images or export int8 (weights only)"
            )
        if deployed.output == "probabilities" and (twice := _first_repeated(deployed.labels)) is not None:
            raise UserError(
                f"a Core ML classifier returns a probability for each name, and the label '{twice}' is there twice; "
                "give the classes unique names"
            )
        from softedge.export.coreml.package import program, write
        from softedge.export.nearest import write_nearest

        path = Path(out) / f"model{self.suffix}"
        with quiet():
            if (candidates := self.candidates(deployed, precision, calibration)) is not None:
                path = write_nearest(candidates, deployed, calibration, Path(out))
            else:
                write(program(deployed, precision), deployed, path, weights=bits.is_int8)
        return artifact_of(path, self.name, precision, deployed.spec, deployed.labels, deployed.output)

    def candidates(
        self, deployed: Deployed, precision: str, calibration: Uint8, like: Artifact | None = None
    ) -> Candidates | None:
        from softedge.export.coreml.candidates import CoreMlCandidates
        from softedge.export.coreml.weights import WeightCandidates

        if precision == "int8":  # without images every weight is rounded to the nearest
            return WeightCandidates(deployed, calibration) if len(calibration) else None
        return CoreMlCandidates(deployed, calibration, like) if precision in self.searchable else None

    def runtime(self) -> str:
        if platform.system() == "Darwin":
            return f"Core ML on macOS {platform.mac_ver()[0]}"
        return f"{REFERENCE} (reference numerics, not the Neural Engine)"

    def load(self, artifact: Artifact) -> Predictor:
        """The package read back from disk: Core ML itself on macOS, the reference interpreter elsewhere."""
        if (why := self.missing()) is not None:
            raise UserError(why)
        from softedge.export.coreml.predict import by_core_ml, interpreted

        return by_core_ml(artifact) if platform.system() == "Darwin" else interpreted(artifact)

    def metadata(self, artifact: Artifact) -> Mapping[str, Any]:
        if (why := self.missing()) is not None:
            raise UserError(why)
        from softedge.export.coreml.metadata import read

        return read(artifact.path)

    def integer_operations(self, artifact: Artifact) -> dict[str, int]:
        from softedge.export.coreml.counting import integer_operations

        return integer_operations(artifact.path)

    def layer_outputs(self, artifact: Artifact, images: Uint8, deployed: Deployed) -> Iterator[tuple[str, Float32]]:
        """The converter renames what it fuses; layers are known by their order, which is that of the trace."""
        from softedge.export.coreml.predict import layer_outputs
        from softedge.export.parity import reference_layers

        outputs = layer_outputs(artifact.path, images)
        names = list(reference_layers(deployed, images))
        return iter(zip(names, outputs, strict=False) if len(names) == len(outputs) else ())

    def board_settings(self, artifact: Artifact, options: Mapping[str, str]) -> dict[str, Any]:
        return {"units": options.get("units", "ALL"), "labels": artifact.labels, "output": artifact.output}


def _first_repeated(labels: tuple[str, ...]) -> str | None:
    return next((label for index, label in enumerate(labels) if label in labels[:index]), None)
