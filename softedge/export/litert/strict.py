"""Integers alone in a .tflite file: every operator between a uint8 image and uint8 logits.

As ``onnx.strict``, for processors that take no float operator.  The normalisation is a depthwise convolution of the
pixels, the softmax is left to the app.  ai-edge-quantizer computes in int8; a QUANTIZE at each end makes bytes of it,
so that pixels go in as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from softedge.errors import UserError
from softedge.export.base import Float32, Uint8
from softedge.export.candidates import Option
from softedge.export.deployed import Deployed
from softedge.export.finishing import finish
from softedge.export.given_file import Interface
from softedge.export.litert.candidates import (
    INTEGERS_ALONE,
    File,
    NetworkCandidates,
    Quantization,
    convert,
    described,
    layers_of,
    run,
)


class FromPixels(nn.Module):
    """float (1, S, S, 3) in 0..255 -> logits (1, C) or features, the normalisation a convolution."""

    def __init__(self, network: Deployed):
        super().__init__()
        self.model = network.folded().model
        self.normalise = nn.Conv2d(3, 3, 1, groups=3)
        self.normalise.weight.data = (1 / network.scale).reshape(3, 1, 1, 1).clone()
        self.normalise.bias = nn.Parameter((-network.shift / network.scale).reshape(3).clone())
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.model(self.normalise(image.permute(0, 3, 1, 2)))
        return logits


class StrictCandidates(NetworkCandidates):
    """Calibrations of files in integers alone; nothing can be put in float."""

    @cached_property
    def file(self) -> File:
        path = Path(self.folder.name) / "float.tflite"
        self._convert(self.deployed, path)
        known = Interface(self.deployed.spec.size, False, "float", self.deployed.output, logits=True)
        grey_levels = replace(self.deployed.spec, mean=(0.0,) * 3, std=(1 / 255,) * 3)
        return File(path, known, grey_levels, layers_of(described(path)))

    def _convert(self, network: Deployed, path: Path) -> None:
        size = network.spec.size
        convert(FromPixels(network), torch.zeros((1, size, size, 3)), path)

    def calibrations(self) -> Iterator[Option]:
        for option in super().calibrations():
            if option.tier == 0:
                model: Quantization = option.model
                ranges = {**model.ranges, self.statistics.names[0]: (0.0, 255.0)}  # of the image
                fixed = replace(model, ranges=ranges, scheme=INTEGERS_ALONE)
                yield replace(option, what=f"{option.what}, integers alone", model=fixed)

    def predict(self, option: Option, images: Uint8) -> Float32:
        return finish(run(self._made(option.model), images), self.deployed.output)

    def _made(self, plan: Quantization) -> Path:
        before = self.made
        path = super()._made(plan)
        if self.made is not before:
            floats = Counter(op["kind"] for op in described(path)["operators"] if op["output"] == "float32")
            if floats:
                named = [pair for pair in floats.most_common() if pair[0] != "DEQUANTIZE"] or floats.most_common()
                operators = ", ".join(f"{count} {kind}" for kind, count in named[:4])
                raise UserError(f"the network cannot run in integers alone: {operators} have no integer form")
        return path

    def layers(self) -> Sequence[str]:
        return ()

    def with_float(self, option: Option, layers: Sequence[str]) -> Option:
        assert not layers, "nothing is in float"
        return option

    def weights_only(self) -> Option | None:
        return None
