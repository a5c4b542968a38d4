"""The int8 candidates of an OpenVINO file: NNCF calibrations, float layers, the integers of an ONNX file."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from softedge.export.base import INTEGERS_OF, Float32, Uint8
from softedge.export.candidates import Candidates, Option
from softedge.export.deployed import Deployed
from softedge.export.nearest import SURE_DB, Judge, nearest, rounded_where_nearer
from softedge.export.onnx import graph as onnx_graph
from softedge.export.onnx.candidates import OnnxCandidates
from softedge.export.onnx.quantizer import Scheme
from softedge.export.onnx.rounding import rounded
from softedge.export.openvino.int8 import (
    COMPRESSED,
    better_in_float,
    calibration_sets,
    compressed,
    faster_in_float,
    first_layer,
    first_node,
    free_in_float,
    from_onnx_int8,
    layers,
    leading_float,
    reads_rounded,
    weight_grids,
    with_float,
    with_ranges,
)
from softedge.export.openvino.network import Feed, as_it_is, from_graph, from_onnx, predictor, write
from softedge.export.quiet import quiet
from softedge.export.rounding import LARGEST
from softedge.files import temporary_folder
from softedge.records import Artifact

RANGES = ("defaults", "minmax")


@dataclass(frozen=True)
class Quantization:
    """A quantized network and what it was made from.

    source: the float network, where that is not the one that the candidates were made for.
    ranges: see ``int8.with_ranges``.  images: which of ``calibration_sets``.  ignored: operations never quantized.
    in_float: layers put back into float.  weights_alone: 8-bit weights, float arithmetic.
    """

    network: Any
    ranges: str
    images: str
    ignored: tuple[str, ...] = ()
    in_float: tuple[str, ...] = ()
    source: Any = None
    weights_alone: bool = False

    @property
    def steps(self) -> int | None:
        """To the largest weight of each output channel; None where NNCF has not rounded them."""
        return COMPRESSED if self.weights_alone else LARGEST if self.ranges else None


class NetworkCandidates(Candidates):
    """NNCF's defaults, and the mixed preset with the widest ranges; both without outliers, too.

    Mixed: symmetric weights, asymmetric activations, each range that of all images.  Which is closer to float differs
    between networks.  (The mean of the images' ranges clips too much with the mixed preset.)  By tier, what is left in
    float: what costs no time there (``int8.better_in_float``); the first layer as well, by the ranges that were closer
    before; and last, in case the float parts are what breaks a network, nothing at all, which is NNCF alone.

    calibration: uint8 (N, S, S, 3).  safe: weights of 7 bits.  feed: images -> what the network takes.
    """

    fewest: ClassVar[int] = len(RANGES)  # on a MobileNetV3-Small they are 10 dB apart

    def __init__(self, calibration: Uint8, *, safe: bool = False, feed: Feed = as_it_is):
        self.calibration, self.safe, self.feed = calibration, safe, feed
        self.noise: dict[str, float] = {}  # of calibrations, by what was done, as far as they were measured

    @cached_property
    @abstractmethod
    def network(self) -> Any:
        """In float."""

    @cached_property
    def sets(self) -> dict[str, Uint8]:
        return calibration_sets(self.network, self.calibration, self.feed)

    def comparison(self) -> Uint8:
        """All of them: settings with one range each have little to learn by heart."""
        return self.calibration

    def calibrations(self) -> Iterator[Option]:
        floats = better_in_float(self.network, self.feed(self.calibration[:1]).shape)
        begun = [*floats, *(name for name in first_layer(self.network) if name not in floats)]
        for images in self.sets:
            names = {ranges: f"calibration by {ranges}{images}" for ranges in RANGES}
            for ranges, what in names.items():
                yield self._option(what, ranges, images, floats, 0)
            closer = max(RANGES, key=lambda ranges: self.noise.get(names[ranges], -math.inf))
            yield self._option(f"calibration by {closer}{images}, first layer in float", closer, images, begun, 1)
        if max(self.noise.values(), default=-math.inf) < SURE_DB:
            yield self._option("calibration by defaults, all layers in integers", "defaults", "", (), 2)

    def told(self, option: Option, decibels: float) -> None:
        self.noise[option.what] = decibels

    def _option(self, what: str, ranges: str, images: str, ignored: Sequence[str], tier: int) -> Option:
        return Option(what, self._quantized(Quantization(None, ranges, images, tuple(ignored))), tier)

    def _quantized(self, model: Quantization, fast: bool = True) -> Quantization:
        """Quantized by NNCF as ``model`` says."""
        source = self.network if model.source is None else model.source
        if model.weights_alone:
            with quiet():
                return replace(model, network=compressed(source.clone()))  # compressing changes it in place
        settings: dict[str, Any] = {"safe": self.safe, "fast": fast, "ignored": model.ignored, "feed": self.feed}
        with quiet():
            network = compressed(with_ranges(source, self.sets[model.images], model.ranges, **settings))
            return replace(model, network=with_float(network, model.in_float) if model.in_float else network)

    def predict(self, option: Option, images: Uint8) -> Float32:
        return predictor(option.model.network, feed=self.feed)(images)

    def layers(self) -> Sequence[str]:
        return list(layers(self.network))

    def float_layers(self, option: Option) -> frozenset[str]:
        return frozenset(name for name, op in layers(option.model.network).items() if not reads_rounded(op))

    def with_float(self, option: Option, layers: Sequence[str]) -> Option:
        model = option.model
        network = with_float(model.network, layers)
        return replace(option, model=replace(model, network=network, in_float=(*model.in_float, *layers)))

    def bias_corrected(self, option: Option) -> Option | None:
        """Corrected layer by layer, where every calibration has them corrected in NNCF's fast form."""
        model = option.model
        if not model.ranges:
            return None
        what = f"{option.what}; biases corrected layer by layer"
        return replace(option, what=what, model=self._quantized(model, fast=False))

    def weights_only(self) -> Option:
        model = Quantization(None, "", "", weights_alone=True)
        return Option("8-bit weights, float arithmetic", self._quantized(model))


class OpenVinoCandidates(NetworkCandidates):
    """Of a PyTorch network.  dynamic: any batch size, else 1.  Layers are named like the nodes of the ONNX graph that
    it was converted from."""

    def __init__(self, deployed: Deployed, calibration: Uint8, *, safe: bool = False, dynamic: bool = True):
        super().__init__(calibration, safe=safe)
        self.deployed, self.dynamic = deployed, dynamic

    @cached_property
    def network(self) -> Any:
        with quiet():
            return from_onnx(self.deployed, dynamic=self.dynamic)

    def write(self, option: Option, out: Path) -> Path:
        path = out / "model.xml"
        with quiet():
            write(option.model.network, self.deployed, "int8", path, option.details)
        return path

    def proxy(self) -> Candidates:
        return OnnxCandidates(self.deployed, self.calibration, methods=("mse",), scheme=Scheme())

    def rounded(self, option: Option, images: Uint8) -> Option | None:
        """The weights that NNCF gets are on its grid already, so in layers of 8 bits it finds the same integers."""
        if (steps := option.model.steps) is None:
            return None
        graph = onnx_graph.trace(self.deployed, dynamic=self.dynamic)
        model = rounded(graph, weight_grids(graph, steps), images)
        with quiet():
            source = from_graph(model.graph)
        return replace(option, model=self._quantized(replace(option.model, source=source)))

    def from_file(self, artifact: Artifact) -> Option | None:
        if artifact.path.suffix == ".onnx":
            with quiet():
                network = from_onnx_int8(artifact.path)
            about = {INTEGERS_OF: artifact.name}
            return Option(f"the integers of {artifact.name}", Quantization(network, "", ""), details=about)
        return None

    def leaner(self, option: Option) -> Iterator[Option]:
        """Calibrated and rounded like an ONNX file, in integers where those are faster in OpenVINO; then the same with
        the first layer in float, where most of the noise of a MobileNetV3-Small comes from.  That one alone where the
        first layer costs no time (``int8.free_in_float``).

        ONNX files leave their first layers in float for the speed of onnxruntime, and depthwise layers on small maps,
        gates and squeeze-excite in integers.  OpenVINO is faster the other way round.
        """
        made = _Translated(self.deployed, self.calibration, dynamic=self.dynamic, safe=self.safe)
        shape = self.calibration[:1].shape
        lean = faster_in_float(made.graph, better_in_float(self.network, shape))
        if not lean and not leading_float(option.model.network):
            return
        begun = lean | first_node(made.graph)
        plans = {"what is faster so": lean, "what is faster so and the first layer": begun}
        judge = Judge.of(self.deployed, made.comparison())
        for what, nodes in plans.items():
            if nodes == lean and free_in_float(self.network, shape, made.graph, lean):
                continue
            made.scheme = Scheme(float_nodes=nodes)
            choice = rounded_where_nearer(made, nearest(made, judge), judge, self.deployed, self.calibration)
            what = f"{option.what}, made for OpenVINO: {what} in float"
            yield replace(option, what=what, model=Quantization(made.network(choice.option), "", ""))


class _Translated(OnnxCandidates):
    """Like an ONNX file, computed by OpenVINO: onnxruntime 1.32 errs where a depthwise layer in float follows
    integers, and would choose by that.
    """

    def network(self, option: Option) -> Any:
        with temporary_folder("onnx") as folder, quiet():
            return from_onnx_int8(self.write(option, folder))

    def predict(self, option: Option, images: Uint8) -> Float32:
        return predictor(self.network(option))(images)
