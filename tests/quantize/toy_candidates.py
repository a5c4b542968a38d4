"""A format whose int8 files are a matrix and an error: every branch of the search can be arranged in numpy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from softedge.export.base import Float32, Uint8
from softedge.export.candidates import Candidates, Option
from softedge.export.nearest import Judge

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (200, 4, 4, 3), dtype=np.uint8)
WEIGHT = RNG.normal(size=(48, 5)) / 8
LAYERS = ("first", "second", "third", "fourth")


def softmax(logits: np.ndarray) -> Float32:
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    return (exponents / exponents.sum(1, keepdims=True)).astype(np.float32)


def fp32(images: Uint8) -> Float32:
    return softmax((images.reshape(len(images), -1) / 128.0 - 1) @ WEIGHT * 3)


def noisy(images: Uint8, noise: float) -> Float32:
    """fp32's answers with an error of a relative size that depends on the image alone; infinite: a constant answer."""
    if np.isinf(noise):
        return np.tile(np.float32([0.6, 0.1, 0.1, 0.1, 0.1]), (len(images), 1))
    flat = images.reshape(len(images), -1) / 128.0 - 1
    return softmax(flat @ WEIGHT * 3 + noise * np.sin(37 * flat[:, :5]))


JUDGE = Judge(IMAGES, fp32(IMAGES), "probabilities")


class ToyCandidates(Candidates):
    """model: the noise of each layer, by name.  ``calls`` lists what was asked for.

    calibrations: name -> (tier, noise of every layer).  bias: factor that bias correction changes all noise by.
    """

    def __init__(
        self,
        calibrations: Mapping[str, tuple[int, Sequence[float]]],
        bias: float | None = None,
        weights: float | None = None,
        files: Mapping[str, float] | None = None,
        layers: Sequence[str] = LAYERS,
    ):
        self.options, self.bias, self.weights, self.files, self.names = calibrations, bias, weights, files or {}, layers
        self.calls: list[str] = []

    def calibrations(self) -> Iterator[Option]:
        for name, (tier, noise) in self.options.items():
            self.calls.append(name)
            yield Option(name, dict(zip(LAYERS, noise)), tier)

    def comparison(self) -> Uint8:
        return IMAGES[:50]

    def predict(self, option: Option, images: Uint8) -> Float32:
        return noisy(images, float(sum(option.model.values())))

    def write(self, option: Option, out: Path) -> Path:
        (out / "model.toy").write_text(repr(option.model))
        return out / "model.toy"

    def layers(self) -> Sequence[str]:
        return self.names

    def float_layers(self, option: Option) -> frozenset[str]:
        return frozenset(name for name, noise in option.model.items() if noise == 0)

    def with_float(self, option: Option, layers: Sequence[str]) -> Option | None:
        return replace(option, model={**option.model, **dict.fromkeys(layers, 0.0)})

    def describe(self, option: Option, layer: str) -> dict[str, Any]:
        return {"weight": f"{layer}.weight"}

    def bias_corrected(self, option: Option) -> Option | None:
        self.calls.append("bias")
        if self.bias is None:
            return None
        model = {name: noise * self.bias for name, noise in option.model.items()}
        return replace(option, what=f"{option.what}; biases corrected", model=model)

    def from_file(self, artifact: Any) -> Option | None:
        noise = self.files.get(artifact)
        return None if noise is None else Option(f"the integers of {artifact}", {"first": noise})

    def weights_only(self) -> Option | None:
        return None if self.weights is None else Option("8-bit weights", {"first": self.weights})
