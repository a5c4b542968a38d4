"""Bias correction: what rounding adds to a channel on average is taken off its bias."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

from softedge.export.base import Uint8
from softedge.export.onnx.ranges import session, with_outputs
from softedge.export.onnx.rewrite import constants, copied, set_constant
from softedge.progress import track

if TYPE_CHECKING:
    from softedge.export.onnx.quantization import Quantization


def correct_biases(quantization: Quantization, images: Uint8) -> Quantization:
    """Shift the bias of each quantized layer by the mean difference of its outputs to float.

        b'_c = b_c - (E[y_int8,c] - E[y_fp32,c]),   over images and positions

    Nagel et al. 2019, arXiv 1906.04721, section 4.2 (with data).  One layer after the other: corrected together, one
    would also answer for what it inherits.  images: uint8 (N, S, S, 3), unlabelled.
    """
    graph = copied(quantization.graph)
    nodes = {node.name: node for node in graph.graph.node}
    known = constants(graph)
    layers = [
        name
        for name in quantization.layers()
        if name not in quantization.scheme.float_nodes and len(nodes[name].input) > 2 and nodes[name].input[2] in known
    ]
    tensors = [nodes[name].output[0] for name in layers]
    reference = _channel_means(quantization.graph, tensors, images)
    for name, output in zip(track(layers, "int8 bias correction"), tensors):
        means = _channel_means(replace(quantization, graph=graph).model(), [output], images)
        if output in means:
            bias = known[nodes[name].input[2]]
            value = numpy_helper.to_array(bias)
            set_constant(bias, (value - (means[output] - reference[output])).astype(value.dtype))
    return replace(quantization, graph=graph)


def _channel_means(model: onnx.ModelProto, tensors: list[str], images: Uint8) -> dict[str, np.ndarray]:
    """Mean of each channel (axis 1) of the tensors that the model has, over images and positions."""
    present = {name for node in model.graph.node for name in node.output}
    asked = [name for name in tensors if name in present]
    run = session(with_outputs(model, asked), threads=1)
    step = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 32
    sums: dict[str, np.ndarray] = {}
    for start in range(0, len(images), step):
        for name, value in zip(asked, run.run(asked, {"image": images[start : start + step]})):
            axes = tuple(i for i in range(value.ndim) if i > 1)
            mean = value.mean(axis=axes, dtype=np.float64).sum(axis=0)
            sums[name] = sums.get(name, 0) + mean
    return {name: total / len(images) for name, total in sums.items()}
