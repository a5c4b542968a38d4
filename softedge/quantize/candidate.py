"""One way to make an int8 ONNX file, and how far it is from fp32: what the rungs of the ladder pass on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from softedge.data.images import Uint8
from softedge.eval.measures import Float32, Labels, compare
from softedge.export.deployed import Deployed
from softedge.export.onnx import graph as onnx_graph
from softedge.export.onnx import quantizer as onnx_int8
from softedge.export.onnx import rewrite as onnx_rewrite
from softedge.export.onnx.quantizer import Scheme
from softedge.export.onnx.ranges import Ranges, session

_BATCH = 32


@dataclass(frozen=True)
class Candidate:
    """deployed: the network.  graph: its float ONNX graph, rewritten for integers.  ranges: of the activations.

    scheme: what stays in float.  changes: what was done to it so far, in words.
    """

    deployed: Deployed
    graph: onnx.ModelProto
    ranges: Ranges
    scheme: Scheme = field(default_factory=Scheme)
    changes: tuple[str, ...] = ()

    def quantized(self) -> onnx.ModelProto:
        return onnx_int8.quantize(self.graph, self.ranges, self.scheme)

    def with_float(self, names: frozenset[str]) -> Candidate:
        return replace(self, scheme=replace(self.scheme, float_nodes=names))

    def changed(self, what: str, **values: object) -> Candidate:
        return replace(self, changes=(*self.changes, what), **values)  # type: ignore[arg-type]

    def layers(self) -> list[str]:
        """Names of the nodes with weights, in order."""
        return [node.name for node in self.graph.graph.node if node.op_type in onnx_int8.WEIGHTED]


def graph_of(deployed: Deployed) -> onnx.ModelProto:
    """The float graph of a network as the int8 quantizer wants it."""
    return onnx_rewrite.for_integers(onnx_graph.trace(deployed))


def outputs(model: onnx.ModelProto, images: Uint8) -> Float32:
    """Run a model in memory on uint8 (N, S, S, 3); float32 (N, outputs). One thread: others may be at work."""
    run = session(model, threads=1)
    parts = [run.run(None, {"image": images[i : i + _BATCH]})[0] for i in range(0, len(images), _BATCH)]  # type: ignore[attr-defined]
    return np.concatenate(parts).astype(np.float32)


@dataclass(frozen=True)
class Judge:
    """Images with the answers of fp32.  labels: (N,), negative where unknown."""

    images: Uint8
    fp32: Float32
    output: str
    labels: Labels | None = None

    def measure(self, model: onnx.ModelProto) -> Mapping[str, float | int]:
        return compare(self.fp32, outputs(model, self.images), self.labels, self.output)

    def sqnr(self, candidate: Candidate) -> float:
        return float(self.measure(candidate.quantized())["sqnr_db"])


def leading_float(graph: onnx.ModelProto, default: onnx.ModelProto) -> frozenset[str]:
    """Nodes of ``graph`` before the first layer that ``default`` computes in integers.

    The export leaves the first layers in float where that is faster here; what is built on it should do the same.
    """
    makers = {name: node.op_type for node in default.graph.node for name in node.output}
    integer = {
        node.name
        for node in default.graph.node
        if node.op_type in onnx_int8.WEIGHTED and all(makers.get(n) == "DequantizeLinear" for n in node.input[:2])
    }
    names = [node.name for node in graph.graph.node]
    first = next((i for i, name in enumerate(names) if name in integer), 0)
    return frozenset(names[:first])
