"""The candidates of a Core ML package with 8-bit weights and float16 arithmetic: how the weights are rounded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from softedge.export.base import Float32, Uint8
from softedge.export.calibration import spread
from softedge.export.candidates import Candidates, Option
from softedge.export.coreml import activations
from softedge.export.coreml import package as coreml
from softedge.export.deployed import Deployed
from softedge.export.quiet import quiet
from softedge.export.rounding import rounded

_COMPARED = 48  # calibration images that decide between the roundings: the interpreter is slow


class WeightCandidates(Candidates):
    """Each weight to its nearest step; and all for the least error of each layer's output, see ``export.rounding``.

    The files have about the same size and take the same time.  calibration: uint8 (N, S, S, 3).
    """

    most_images: ClassVar[int] = 256

    def __init__(self, deployed: Deployed, calibration: Uint8):
        self.deployed, self.calibration = deployed, calibration

    def comparison(self) -> Uint8:
        return self.calibration[spread(len(self.calibration), _COMPARED)]

    def calibrations(self) -> Iterator[Option]:
        yield self._option("weights rounded to the nearest", "nearest", self.deployed)
        network = rounded(self.deployed, self.calibration, smallest=coreml.WEIGHT_THRESHOLD + 1)
        yield self._option("weights rounded for the least error of each layer's output", "least error", network)

    def _option(self, what: str, rounding: str, network: Deployed) -> Option:
        with quiet():
            package = coreml.in_8_bits(coreml.program(network, "int8"))
        about = {"rounding": rounding}
        if rounding != "nearest":
            about["calibration"] = f"{len(self.calibration)} images"
        return Option(what, package, 0, about)

    def predict(self, option: Option, images: Uint8) -> Float32:
        """Computed by the reference interpreter."""
        with quiet():
            return activations.run(option.model, images)

    def write(self, option: Option, out: Path) -> Path:
        path = out / "model.mlpackage"
        with quiet():
            coreml.write(option.model, self.deployed, path, weights=False, **option.details)
        return path
