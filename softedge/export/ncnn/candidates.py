"""The int8 candidates of an ncnn network: what clips activations, and which layers stay in float."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from softedge.export.base import Float32, Uint8
from softedge.export.candidates import Candidates, Option
from softedge.export.deployed import Deployed
from softedge.export.ncnn import int8, weights
from softedge.export.ncnn.convert import converted
from softedge.export.ncnn.counting import with_calibration
from softedge.export.ncnn.int8 import METHODS, Quantized, Statistics
from softedge.export.ncnn.network import FLOAT32, INT8_TERM, Network
from softedge.export.ncnn.predict import blob, extractor, load_model, open_net
from softedge.export.ncnn.weights import Block
from softedge.files import temporary_folder
from softedge.records import Artifact

_PAIRS = 25  # of timed inferences
_FLOAT_SHARE = 0.3  # of the weights, at most, in a layer that may stay in float: nearly half of fp32's bytes in all


class NcnnCandidates(Candidates):
    """calibration: uint8 (N, S, S, 3).  like: a file whose part in float is kept."""

    def __init__(self, deployed: Deployed, calibration: Uint8, like: Artifact | None = None):
        self.deployed, self.calibration, self.like = deployed, calibration, like

    @cached_property
    def float_files(self) -> tuple[Network, dict[str, list[Block]]]:
        with converted(self.deployed, half=False) as (network, path):
            network = network.forbidding(FLOAT32)
            return network, weights.read(network, path)

    @cached_property
    def statistics(self) -> Statistics:
        network, blocks = self.float_files
        with temporary_folder("ncnn") as folder:
            path = folder / "model.param"
            weights.write(network, blocks, path)
            return int8.measure(network, path, self.calibration)

    def comparison(self) -> Uint8:
        """All of them: a calibration has one number a layer, and little to learn by heart."""
        return self.calibration

    def calibrations(self) -> Iterator[Option]:
        for tier, part in enumerate(self._float_parts()):
            for method in METHODS:
                about = {"calibration": f"{method} of {len(self.calibration)} images"}
                what = f"calibration by {method}, {len(part)} layers in float"
                yield Option(what, Quantized(self.statistics.largest(method), part), tier, about)

    def _float_parts(self) -> list[frozenset[str]]:
        """Names of layers that may stay in float, from none to many: the first two and the last, where they are
        small, the depthwise ones.

        Of an EfficientNet-Lite0 at 160 pixels (300 photos, x86) they took the signal from 20 to 25 dB above the noise
        and, since ncnn's depthwise kernels are faster in float there, the time from 0.91 to 0.53 of fp32's.
        """
        layers = self.float_files[0].weighted()
        if self.like is not None:
            kept = zip(layers, Network.read(self.like.path).weighted())
            return [frozenset(layer.name for layer, theirs in kept if not theirs.number(INT8_TERM))]
        sizes = {layer.name: self.float_files[1][layer.name][0].values.size for layer in layers}
        limit = _FLOAT_SHARE * sum(sizes.values())  # the last layer may hold half of all weights
        ends = frozenset(layer.name for layer in (*layers[:2], *layers[-1:]) if sizes[layer.name] <= limit)
        depthwise = frozenset(layer.name for layer in layers if layer.kind == "ConvolutionDepthWise")
        return list(dict.fromkeys([frozenset(), ends, ends | depthwise]))

    def predict(self, option: Option, images: Uint8) -> Float32:
        with temporary_folder("ncnn") as folder:
            return load_model(self.write(option, folder), self.deployed.output)(images)

    def write(self, option: Option, out: Path) -> Path:
        path = out / "model.param"
        network, blocks = int8.quantized(*self.float_files, option.model)
        weights.write(with_calibration(network, option.details.get("calibration", "")), blocks, path)
        return path

    def layers(self) -> Sequence[str]:
        return [layer.name for layer in self.float_files[0].weighted()]

    def float_layers(self, option: Option) -> frozenset[str]:
        return frozenset(option.model.in_float)

    def with_float(self, option: Option, layers: Sequence[str]) -> Option:
        model = option.model
        return dataclasses.replace(
            option, model=dataclasses.replace(model, in_float=model.in_float | frozenset(layers))
        )

    def alone(self, option: Option, layer: str) -> Option:
        others = frozenset(self.layers()) - {layer}
        return dataclasses.replace(option, model=dataclasses.replace(option.model, in_float=others))

    def largest_weight(self, option: Option) -> int:
        """Symmetric, with one scale for each output channel: what rounds weights for other formats serves here."""
        return int8.LEVELS

    def reweighted(self, option: Option, network: Deployed, ranges: Mapping[str, tuple[float, float]]) -> Option | None:
        """None where pnnx makes other layers of ``network``.  ranges: this format offers none to learn."""
        del ranges
        with converted(network, half=False) as (layers, path):
            blocks = weights.read(layers, path)
        learned = [blocks[layer.name] for layer in layers.weighted()]
        names = self.layers()
        same = len(learned) == len(names) and all(
            [block.values.size for block in mine] == [block.values.size for block in self.float_files[1][name]]
            for mine, name in zip(learned, names)
        )
        model = dataclasses.replace(option.model, weights=dict(zip(names, learned)))
        return dataclasses.replace(option, model=model) if same else None

    def describe(self, option: Option, layer: str) -> dict[str, Any]:
        values = self.float_files[1][layer][0].values
        node = next(each for each in self.float_files[0].weighted() if each.name == layer)
        rows, largest = weights.rows_of(node), option.model.largest[layer]
        shape, widest = [rows, values.size // rows], float(np.abs(values).max())
        return {"weight": layer, "shape": shape, "low": -largest, "high": largest, "widest": widest}

    def time_over_fp32(self, option: Option) -> float | None:
        """The median of pairs of inferences, one thread; None where half of the pairs say something else by a tenth."""
        image, output = self.calibration[0], self.deployed.output
        with temporary_folder("ncnn") as folder:
            network, blocks = self.float_files
            weights.write(network, blocks, folder / "float.param")
            nets = [open_net(self.write(option, folder)), open_net(folder / "float.param")]

            def seconds(net: Any) -> float:
                begun = time.process_time()
                blob(extractor(net, image), output)
                return time.process_time() - begun

            ratios = [seconds(nets[0]) / max(seconds(nets[1]), 1e-9) for _ in range(_PAIRS + 3)][3:]
        low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
        return float(middle) if high - low <= 0.1 * middle else None
