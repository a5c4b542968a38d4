"""What the doctor can do about a refused Core ML file with 8-bit activations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from softedge.data.images import Uint8
from softedge.eval.measures import Float32
from softedge.export.coreml import activations as coreml_activations
from softedge.export.coreml import package as coreml
from softedge.export.coreml.format import CoreMl
from softedge.export.deployed import Deployed
from softedge.export.quiet import quiet


class CoreMlForm:
    """See ``int8_formats.Format``.  layers: ONNX names of all convolutions and linear layers in order of computation.

    Both converters trace the same module, so that the n-th layer here is the n-th there.
    """

    name = "Core ML"
    target = CoreMl.name

    def __init__(self, deployed: Deployed, calibration: Uint8, layers: Sequence[str]):
        self.deployed, self.calibration, self.layers = deployed, calibration, layers

    @cached_property
    def _float(self) -> Any:
        with quiet():
            return coreml.program(self.deployed, "w8a8")

    @cached_property
    def _best(self) -> tuple[coreml_activations.Ranges, list[str]]:
        with quiet():
            return coreml_activations.best(self._float, self.calibration)

    def others(self) -> Iterator[tuple[str, str, Any]]:
        yield "calibrated", "as exported", self.with_float(None, [])

    def with_float(self, model: Any, layers: Sequence[str]) -> Any:
        del model  # the pairs are put in anew
        names = coreml_activations.layer_names(self._float)
        place = {name: number for number, name in enumerate(self.layers)}
        chosen = [names[place[layer]] for layer in layers] if len(names) == len(self.layers) else []
        ranges, in_float = self._best
        with quiet():
            return coreml.in_8_bits(coreml_activations.with_pairs(self._float, ranges, [*in_float, *chosen]))

    def weights(self) -> Any:
        with quiet():
            return coreml.in_8_bits(coreml.program(self.deployed, "int8"))

    def predict(self, model: Any, images: Uint8) -> Float32:
        with quiet():
            return coreml_activations.run(model, images)

    def save(self, model: Any, folder: Path) -> Path:
        path = folder / f"model{CoreMl.suffix}"
        with quiet():
            coreml.write(model, self.deployed, path, weights=False)
        return path
