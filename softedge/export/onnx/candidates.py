"""The int8 candidates of an ONNX file: calibrations, float beginnings and layers, corrected biases, 8-bit weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from softedge.export.base import Float32, Uint8
from softedge.export.calibration import ENOUGH, set_aside, spread
from softedge.export.candidates import Candidates, Option, Rounding
from softedge.export.deployed import Deployed
from softedge.export.nearest import ROUNDING
from softedge.export.onnx import graph as onnx_graph
from softedge.export.onnx import rewrite
from softedge.export.onnx.bias import correct_biases
from softedge.export.onnx.quantization import Quantization, WeightsAlone
from softedge.export.onnx.quantizer import FOLLOWERS, WEIGHTED, Scheme
from softedge.export.onnx.ranges import METHODS, Method, Ranges, by_method, float_tensors, run, session, with_outputs
from softedge.export.onnx.ranges import measure as measure_ranges
from softedge.export.onnx.rounding import rounded
from softedge.export.onnx.speed import CHOICE, TIMES, Beginning, beginnings, fixed, race
from softedge.files import write_bytes, write_json
from softedge.progress import say
from softedge.records import Artifact

_CORRECTION = 128  # calibration images that biases are corrected on
_SECONDS = 2.0  # of processor time to compare one option with fp32
_LEVELS = 255  # of an unsigned 8-bit activation


class GraphCandidates(Candidates):
    """Of a float graph from ``image``, uint8 (N, S, S, 3), to probabilities or features, wherever it comes from.

    calibration: uint8 (N, S, S, 3).  methods, percentile: see ``ranges``.  scheme: what int8 computes in integers;
    None: the float beginning is chosen by speed and closeness, or the one that ends at ``float_prefix``.
    measured: what is known about that choice, for the file.  safe: weights of 7 bits.  like: see ``Format.candidates``.
    """

    def __init__(
        self,
        calibration: Uint8,
        *,
        safe: bool = False,
        float_prefix: str = "",
        measured: Mapping[str, Any] | None = None,
        scheme: Scheme | None = None,
        methods: Sequence[Method] = METHODS,
        percentile: float = 99.99,
        like: Artifact | None = None,
    ):
        self.calibration, self.safe = calibration, safe
        self.float_prefix, self.measured = float_prefix, dict(measured or {})
        self.scheme, self.like = scheme, like
        self.methods, self.percentile = tuple(methods), percentile

    @cached_property
    @abstractmethod
    def float_model(self) -> onnx.ModelProto:
        """The graph in float, with a name for every node."""

    @abstractmethod
    def finished(self, model: onnx.ModelProto, details: Mapping[str, Any]) -> bytes:
        """The file of a quantized graph."""

    @cached_property
    def graph(self) -> onnx.ModelProto:
        return self.rewritten(self.float_model)

    def rewritten(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A float graph in the form that is calibrated and quantized."""
        return rewrite.for_integers(model)

    def comparison(self) -> Uint8:
        """Of enough images every fourth, which then sets no range."""
        count = len(self.calibration)
        return self.calibration[set_aside(count)] if count >= ENOUGH else self.calibration

    @cached_property
    def ranges(self) -> dict[str, Ranges]:
        """The ranges of each calibration method."""
        images = self.calibration
        if self.like is None and len(self.methods) > 1 and len(images) >= ENOUGH:
            images = np.delete(images, set_aside(len(images)), axis=0)
        return by_method(self.graph, images, self.methods, self.percentile)

    def calibrations(self) -> Iterator[Option]:
        """Each method for each beginning; then the same with weights of 7 bits, which cost no time.

        Those are for processors that saturate (x86 without VNNI), where they can be nearer to fp32: 26.0 dB for 24.3 of
        an EfficientNet-Lite0.  They come last: where nothing saturates, 8 bits are nearer.
        """
        beginnings = self._beginnings()
        for tier, beginning in enumerate(beginnings):
            yield from self._each(beginning, tier, beginning.scheme.reduce_range or self.safe)
        if len(self.methods) > 1 and self.scheme is None and not self.safe:
            for tier, beginning in enumerate(beginnings, start=len(beginnings)):
                yield from self._each(beginning, tier, seven_bits=True)

    def _each(self, beginning: Beginning, tier: int, seven_bits: bool) -> Iterator[Option]:
        scheme = replace(beginning.scheme, reduce_range=seven_bits)
        for method, ranges in self.ranges.items():
            details: dict[str, Any] = {"speed": beginning.about} if beginning.about else {}
            what = f"calibration by {method}"
            if beginning.until:
                what += f", float until {beginning.until}"
            if seven_bits:
                details["safe"] = "weights of 7 bits"
                what += "" if self.safe else ", weights of 7 bits"
            details["calibration"] = f"{method} of {len(self.calibration)} images"
            yield Option(what, Quantization(self.graph, ranges, scheme), tier, details)

    def _beginnings(self) -> list[Beginning]:
        if self.scheme is not None:
            return [Beginning("", self.scheme, {})]
        if self.like is not None:
            return [Beginning("", Scheme(leading_float(self.graph, onnx.load(str(self.like.path)))), {})]
        if self.float_prefix:
            beginning = fixed(self.graph, self.float_prefix)
            return [replace(beginning, about=self.measured or beginning.about)]
        some = self.ranges[self.methods[0]]  # of no influence on time
        return beginnings(self.float_model, self.graph, some, self.calibration[:1])

    def predict(self, option: Option, images: Uint8) -> Float32:
        """One thread: others may be at work."""
        return run(_model(option), images, threads=1)

    def write(self, option: Option, out: Path) -> Path:
        path, details, speed = out / "model.onnx", dict(option.details), dict(option.details.get("speed", {}))
        if CHOICE in speed:
            details["speed"] = {CHOICE: speed.pop(CHOICE)}
        write_bytes(path, self.finished(_model(option), details))
        if speed:
            write_json(path.with_name(TIMES), speed)
        return path

    def layers(self) -> Sequence[str]:
        return Quantization(self.graph, {}).layers()

    def float_layers(self, option: Option) -> frozenset[str]:
        return _quantization(option).scheme.float_nodes

    def with_float(self, option: Option, layers: Sequence[str]) -> Option:
        model = _quantization(option)
        return replace(option, model=model.in_float(model.scheme.float_nodes | frozenset(layers)))

    def alone(self, option: Option, layer: str) -> Option:
        """What follows the layer stays in float, too."""
        model = _quantization(option)
        others = {node.name for node in model.graph.graph.node if node.op_type in FOLLOWERS}
        return replace(option, model=model.in_float(frozenset((set(model.layers()) - {layer}) | others)))

    def describe(self, option: Option, layer: str) -> dict[str, Any]:
        model = _quantization(option)
        node = next(node for node in model.graph.graph.node if node.name == layer)
        weight = numpy_helper.to_array(rewrite.constants(model.graph)[node.input[1]])
        low, high = model.ranges.get(node.input[0], (float("nan"), float("nan")))
        widest = float(np.abs(weight).max())
        return {"weight": node.input[1], "shape": list(weight.shape), "low": low, "high": high, "widest": widest}

    def bias_corrected(self, option: Option) -> Option:
        model = correct_biases(_quantization(option), self.calibration[spread(len(self.calibration), _CORRECTION)])
        return replace(option, what=f"{option.what}; biases corrected", model=model)

    def rounded(self, option: Option, images: Uint8) -> Option | None:
        if not isinstance(option.model, Quantization):
            return None
        result = rounded(option.model.graph, option.model.weight_grids(), images)
        adjusted = replace(option, model=replace(option.model, graph=result.graph))
        if not result.left:
            return adjusted
        left = f"{len(result.left)} of {len(option.model.layers())} layers"
        more = ", ..." if len(result.left) > 1 else ""
        say(
            f"int8: {left} are too wide to be rounded for their output in minutes ({result.left[0]}{more}); they keep "
            "the nearest steps"
        )
        return replace(adjusted, details={**adjusted.details, ROUNDING: f"least error, to the nearest step in {left}"})

    def roundings(self, option: Option, image: Uint8) -> Sequence[Rounding]:
        model = _quantization(option)
        ends = rounded_ranges(model.model())
        values = session(with_outputs(model.graph, list(ends))).run(list(ends), {"image": image})
        return [Rounding(name, *ends[name], value) for name, value in zip(ends, values)]

    def from_file(self, artifact: Artifact) -> Option | None:
        if artifact.path.suffix != ".onnx":
            return None
        return Option(f"the integers of {artifact.name}", onnx.load(str(artifact.path)))

    def weights_only(self) -> Option | None:
        """A quarter of the size at the speed of fp32."""
        return Option("8-bit weights, float arithmetic", WeightsAlone(self.float_model, {}))

    def time_over_fp32(self, option: Option) -> float | None:
        image = np.ascontiguousarray(self.calibration[:1])
        models = {"fp32": self.float_model, "int8": _model(option)}
        ratio = race(models, image, _SECONDS).ratio("int8", "fp32")
        return ratio.median if ratio.sure else None


class OnnxCandidates(GraphCandidates):
    """Of a PyTorch network.  dynamic: any batch size, else 1.  The rest: see ``GraphCandidates``."""

    def __init__(self, deployed: Deployed, calibration: Uint8, *, dynamic: bool = True, **settings: Any):
        super().__init__(calibration, **settings)
        self.deployed, self.dynamic = deployed, dynamic

    @cached_property
    def float_model(self) -> onnx.ModelProto:
        return onnx_graph.trace(self.deployed, dynamic=self.dynamic)

    def finished(self, model: onnx.ModelProto, details: Mapping[str, Any]) -> bytes:
        return onnx_graph.finished(model, self.deployed, "int8", **details)

    def reweighted(self, option: Option, network: Deployed, ranges: Mapping[str, tuple[float, float]]) -> Option:
        model = _quantization(option)
        graph = self.rewritten(onnx_graph.trace(network, dynamic=self.dynamic))
        known = {**model.ranges, **ranges}
        if not set(float_tensors(graph)) <= set(known):  # the tuned network was traced to other names
            known = measure_ranges(graph, self.calibration)
        return replace(option, model=replace(model, graph=graph, ranges=known))


def _quantization(option: Option) -> Quantization:
    assert isinstance(option.model, Quantization), "an option read from a file cannot be changed"
    return option.model


def _model(option: Option) -> onnx.ModelProto:
    return option.model.model() if isinstance(option.model, Quantization) else option.model


def rounded_ranges(model: onnx.ModelProto) -> Ranges:
    """Every activation that a QDQ graph rounds to 8 bits -> the (low, high) it can hold."""
    stored = rewrite.constants(model)
    ranges = {}
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] in stored:
            continue
        scale, zero = float(numpy_helper.to_array(stored[node.input[1]])), stored[node.input[2]]
        if zero.data_type == onnx.TensorProto.UINT8:
            offset = int(numpy_helper.to_array(zero))
            ranges[node.input[0]] = (-offset * scale, (_LEVELS - offset) * scale)
    return ranges


def leading_float(graph: onnx.ModelProto, default: onnx.ModelProto) -> frozenset[str]:
    """Nodes of ``graph`` before the first layer that ``default`` computes in integers.

    The export leaves the first layers in float where that is faster here; what is built on it should do the same.
    """
    makers = {name: node.op_type for node in default.graph.node for name in node.output}
    integer = {
        node.name
        for node in default.graph.node
        if node.op_type in WEIGHTED and all(makers.get(name) == "DequantizeLinear" for name in node.input[:2])
    }
    names = [node.name for node in graph.graph.node]
    first = next((i for i, name in enumerate(names) if name in integer), 0)
    return frozenset(names[:first])
