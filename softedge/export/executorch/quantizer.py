"""XNNPACK's quantizer for pt2e, with clamps taken into the operator before them.

executorch 1.5 rounds what a convolution gives and clamps it afterwards: of a ReLU6 network, most of the 256 levels
go to values that the clamp throws away. XNNPACK clamps inside the operator, so the range behind the clamp is the
right one.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import fx

ANNOTATION = "quantization_annotation"  # pt2e's key in ``Node.meta``
_CLAMPS = ("aten.hardtanh.default", "aten.hardtanh_.default", "aten.clamp.default", "aten.relu6.default")
_WEIGHTED = ("aten.conv2d.default", "aten.linear.default")
_PRODUCERS = ("aten.conv2d.default", "aten.linear.default", "aten.add.Tensor", "aten.add_.Tensor")


def quantizer(in_float: int = 0) -> Any:
    """Symmetric weights per channel, asymmetric activations; no rounding between an operator and its clamp.

    in_float: how many of the first convolutions and linear layers are left in float.
    """
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )

    class ClampingQuantizer(XNNPACKQuantizer):  # type: ignore[misc,unused-ignore]
        def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
            return without_first(round_behind_clamps(super().annotate(model)), in_float)

    return ClampingQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))


def without_first(model: fx.GraphModule, count: int) -> fx.GraphModule:
    """Leave the first layers in float, the clamp behind each with it, up to the input of the next; changes the
    annotations."""
    layers = [node for node in model.graph.nodes if str(node.target) in _WEIGHTED]
    if not count or count >= len(layers):
        return model
    for node in model.graph.nodes:
        if node is layers[count]:
            break
        node.meta.pop(ANNOTATION, None)
    return model


def round_behind_clamps(model: fx.GraphModule) -> fx.GraphModule:
    """Move the rounding of each output that a clamp alone reads to the clamp's output; changes the annotations."""
    for clamp in model.graph.nodes:
        if str(clamp.target) not in _CLAMPS:
            continue
        before = clamp.args[0]
        rounding = before.meta.get(ANNOTATION)
        if str(before.target) not in _PRODUCERS or len(before.users) > 1 or rounding is None:
            continue
        if rounding.output_qspec is None:
            continue
        before.meta[ANNOTATION] = dataclasses.replace(rounding, output_qspec=None)
        clamp.meta[ANNOTATION] = type(rounding)(output_qspec=rounding.output_qspec, _annotated=True)
    return model
