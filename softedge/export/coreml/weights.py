"""The candidate of a Core ML package with 8-bit weights and float16 arithmetic, and how its weights are rounded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from softedge.export.base import Float32, Uint8
from softedge.export.calibration import set_aside, spread
from softedge.export.candidates import Candidates, Option
from softedge.export.coreml import activations
from softedge.export.coreml import package as coreml
from softedge.export.deployed import Deployed
from softedge.export.nearest import ROUNDING
from softedge.export.quiet import quiet
from softedge.export.rounding import rounded

_COMPARED = 48  # calibration images that decide between the roundings: the interpreter is slow


class WeightCandidates(Candidates):
    """Each weight at its nearest step, or all rounded for the least error of each layer's output (``export.rounding``).

    The files have about the same size and take the same time.  calibration: uint8 (N, S, S, 3).
    """

    most_images: ClassVar[int] = 256

    def __init__(self, deployed: Deployed, calibration: Uint8):
        self.deployed, self.calibration = deployed, calibration

    def comparison(self) -> Uint8:
        images = self.calibration[set_aside(len(self.calibration))]
        return images[spread(len(images), _COMPARED)]

    def calibrations(self) -> Iterator[Option]:
        yield Option("8-bit weights, float arithmetic", self._package(self.deployed))

    def rounded(self, option: Option, images: Uint8) -> Option:
        """Only layers whose weights are stored in 8 bits."""
        network = rounded(self.deployed, images, smallest=coreml.WEIGHT_THRESHOLD + 1)
        about = {"calibration": f"{len(self.calibration)} images"}
        return replace(option, model=self._package(network), details=about)

    def _package(self, network: Deployed) -> Any:
        with quiet():
            return coreml.in_8_bits(coreml.program(network, "int8"))

    def predict(self, option: Option, images: Uint8) -> Float32:
        """Computed by the reference interpreter."""
        with quiet():
            return activations.run(option.model, images)

    def write(self, option: Option, out: Path) -> Path:
        path = out / "model.mlpackage"
        with quiet():
            details = {ROUNDING: "nearest", **option.details}
            coreml.write(option.model, self.deployed, path, weights=False, **details)
        return path
