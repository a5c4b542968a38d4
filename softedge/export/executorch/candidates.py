"""The int8 candidates of an ExecuTorch program: what its observers see, the first layers in float, rounded weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from softedge.export.base import Float32, Predictor, Uint8
from softedge.export.calibration import spread
from softedge.export.candidates import Candidates, Option
from softedge.export.deployed import Deployed
from softedge.export.rounding import LARGEST
from softedge.files import temporary_folder
from softedge.progress import track
from softedge.run import write_bytes

_COMPARED = 128  # calibration images that decide between the options: a program takes one at a time
_FLOAT = (0, 1, 2)  # how many of the first layers may stay in float, by tier


@dataclass(frozen=True)
class Quantization:
    """in_float: how many of the first layers.  network: whose weights, where not the given ones."""

    in_float: int = 0
    network: Deployed | None = None


class ExecuTorchCandidates(Candidates):
    """All layers in integers, or all but the first one or two.

    lower: makes a program of a network, calibration images and the number of layers in float.  load: runs one.
    calibration: uint8 (N, S, S, 3).
    """

    most_images: ClassVar[int] = 256

    def __init__(
        self,
        deployed: Deployed,
        calibration: Uint8,
        lower: Callable[[Deployed, Uint8, int], bytes],
        load: Callable[[Path], Predictor],
    ):
        self.deployed, self.calibration, self.lower, self.load = deployed, calibration, lower, load
        self.made: tuple[Quantization, bytes] | None = None

    def comparison(self) -> Uint8:
        return self.calibration[spread(len(self.calibration), _COMPARED)]

    def calibrations(self) -> Iterator[Option]:
        for tier, count in enumerate(_FLOAT):
            yield Option(f"calibration by histogram, first {count} layers in float", Quantization(count), tier)

    def predict(self, option: Option, images: Uint8) -> Float32:
        with temporary_folder("executorch") as folder:
            run = self.load(self.write(option, folder))
            return np.concatenate([run(image[None]) for image in track(images, "running int8")])

    def write(self, option: Option, out: Path) -> Path:
        path = out / "model.pte"
        write_bytes(path, self._program(option.model))
        return path

    def _program(self, plan: Quantization) -> bytes:
        if self.made is None or self.made[0] is not plan:
            self.made = plan, self.lower(plan.network or self.deployed, self.calibration, plan.in_float)
        return self.made[1]

    def largest_weight(self, option: Option) -> int | None:
        """Symmetric, with one scale for each output channel."""
        return LARGEST

    def reweighted(self, option: Option, network: Deployed, ranges: Mapping[str, tuple[float, float]]) -> Option | None:
        """ranges: this format offers none to learn."""
        del ranges
        return replace(option, model=replace(option.model, network=network))
