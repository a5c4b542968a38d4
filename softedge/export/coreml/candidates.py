"""The int8 candidates of a Core ML package with 8-bit activations: ranges, parts in float, 8-bit weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from softedge.export.base import Float32, Uint8
from softedge.export.calibration import spread
from softedge.export.candidates import Candidates, Option
from softedge.export.coreml import activations
from softedge.export.coreml import package as coreml
from softedge.export.deployed import Deployed
from softedge.export.onnx.candidates import OnnxCandidates
from softedge.export.onnx.quantizer import Scheme
from softedge.export.quiet import quiet
from softedge.records import Artifact

_COMPARED = 48  # calibration images that decide between the calibrations: the interpreter is slow
_TIER = "float_part"


@dataclass(frozen=True)
class Rounded:
    """ranges: of every tensor.  in_float: names of the operations that are not rounded."""

    ranges: activations.Ranges
    in_float: tuple[str, ...]


class CoreMlCandidates(Candidates):
    """calibration: uint8 (N, S, S, 3).  like: a package whose part in float is kept."""

    most_images: ClassVar[int] = 256

    def __init__(self, deployed: Deployed, calibration: Uint8, like: Artifact | None = None):
        self.deployed, self.calibration, self.like = deployed, calibration, like

    @cached_property
    def program(self) -> Any:
        with quiet():
            return coreml.program(self.deployed, "w8a8")

    @cached_property
    def ranges(self) -> dict[str, activations.Ranges]:
        with quiet():
            extremes = activations.measure(self.program, self.calibration)
        return {name: activations.ranges_of(extremes, option) for name, option in activations.OPTIONS.items()}

    @cached_property
    def names(self) -> list[str]:
        return activations.layer_names(self.program)

    def comparison(self) -> Uint8:
        return self.calibration[spread(len(self.calibration), _COMPARED)]

    def calibrations(self) -> Iterator[Option]:
        parts = list(enumerate(activations.float_parts(self.program)))
        kept = coreml.metadata(self.like.path).get(_TIER) if self.like is not None else None
        for tier, part in parts:
            if kept is not None and str(tier) != kept:
                continue
            for name, ranges in self.ranges.items():
                about = {"calibration": f"{name} of {len(self.calibration)} images", _TIER: tier}
                what = f"calibration by {name}, {len(part)} operations in float"
                yield Option(what, Rounded(ranges, tuple(part)), tier, about)

    def predict(self, option: Option, images: Uint8) -> Float32:
        """Computed by the reference interpreter."""
        with quiet():
            return activations.run(self._package(option), images)

    def write(self, option: Option, out: Path) -> Path:
        path = out / "model.mlpackage"
        with quiet():
            coreml.write(self._package(option), self.deployed, path, weights=False, **option.details)
        return path

    def _package(self, option: Option) -> Any:
        """As it is written: with its weights in 8 bits."""
        model = option.model
        if not isinstance(model, Rounded):
            return model
        return coreml.in_8_bits(activations.with_pairs(self.program, model.ranges, model.in_float))

    def layers(self) -> Sequence[str]:
        return self.names

    def float_layers(self, option: Option) -> frozenset[str]:
        return frozenset(option.model.in_float) & frozenset(self.names)

    def with_float(self, option: Option, layers: Sequence[str]) -> Option:
        model = option.model
        return replace(option, model=replace(model, in_float=tuple(dict.fromkeys([*model.in_float, *layers]))))

    def proxy(self) -> Candidates:
        """Both converters trace the same module, so that the n-th layer here is the n-th there."""
        return OnnxCandidates(self.deployed, self.calibration, methods=("mse",), scheme=Scheme())

    def weights_only(self) -> Option:
        with quiet():
            package = coreml.in_8_bits(coreml.program(self.deployed, "int8"))
        return Option("8-bit weights, float arithmetic", package)
