"""One quantization of an ONNX graph: what the int8 steps change and pass on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import onnx

from softedge.export.onnx.quantizer import Quantizer, Scheme, WeightGrid, quantize, store_weights_in_int8
from softedge.export.onnx.ranges import Ranges
from softedge.export.onnx.rewrite import constants, copied, has_weights


@dataclass(frozen=True)
class Quantization:
    """graph: the float graph, rewritten for integers.  ranges: of its activations.  scheme: what stays in float."""

    graph: onnx.ModelProto
    ranges: Ranges
    scheme: Scheme = field(default_factory=Scheme)

    def model(self) -> onnx.ModelProto:
        return quantize(self.graph, self.ranges, self.scheme)

    def weight_grids(self) -> dict[str, WeightGrid]:
        """See ``Quantizer.weight_grids``."""
        return Quantizer.of(self.graph, self.ranges, self.scheme).weight_grids()

    def layers(self) -> list[str]:
        """Names of the nodes with weights, in order."""
        known = constants(self.graph)
        return [node.name for node in self.graph.graph.node if has_weights(node, known)]

    def in_float(self, names: frozenset[str]) -> Quantization:
        """The same with exactly these nodes in float."""
        return replace(self, scheme=replace(self.scheme, float_nodes=names))


@dataclass(frozen=True)
class WeightsAlone(Quantization):
    """8-bit weights, float arithmetic: no tensor has a range.  graph: in float, as it is."""

    def model(self) -> onnx.ModelProto:
        model = copied(self.graph)
        store_weights_in_int8(model)
        return model
