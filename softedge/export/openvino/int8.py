"""int8 for OpenVINO: NNCF's post-training quantization, layers put back into float, and a smaller file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from softedge.export.base import Uint8
from softedge.export.onnx.quantizer import WeightGrid, largest_weights, output_axis
from softedge.export.onnx.ranges import typical
from softedge.export.onnx.rewrite import attribute, constants, has_weights
from softedge.export.openvino.core import shared
from softedge.export.openvino.network import Feed, as_it_is, compiled, from_graph
from softedge.export.rounding import LARGEST

WEIGHTED = ("Convolution", "GroupConvolution", "MatMul")
COMPRESSED = 128  # steps to the largest weight where NNCF compresses alone; it is -128, whatever its sign
_FREE = 1 << 18  # bytes of a float map up to which the first layer stays in float: 64 KB cost nothing, 0.5 MB did
_CACHED = 3 << 18  # bytes of a float map up to which a depthwise layer is faster in float; at 0.9 MB it was slower


def calibration_sets(network: Any, images: Uint8, feed: Feed = as_it_is) -> dict[str, Uint8]:
    """The images, and where some reach much farther than the others (``onnx.ranges.typical``), those without them."""
    kept = typical(_extremes(network, images, feed))
    return {"": images} if kept.all() else {"": images, " without outliers": images[kept]}


def _extremes(network: Any, images: Uint8, feed: Feed) -> np.ndarray:
    """(N, T): the largest absolute output of each convolution and linear layer on each image."""
    observed = network.clone()
    observed.add_outputs([op.output(0) for op in observed.get_ordered_ops() if op.get_type_name() in WEIGHTED])
    run = compiled(observed)
    return np.array([[np.abs(value).max() for value in run(feed(image[None])).values()] for image in images])


def with_ranges(
    network: Any,
    calibration: Uint8,
    ranges: str,
    safe: bool = False,
    fast: bool = True,
    ignored: Sequence[str] = (),
    feed: Feed = as_it_is,
) -> Any:
    """One quantization by NNCF.  ranges: "mean" or "minmax" of the images' extremes; "defaults": NNCF's own, with the
    preset for speed.

    safe: weights of 7 bits in all but depthwise layers (NNCF's overflow fix), so that sums of u8 x s8 products never
    leave 16 bits on x86 without VNNI; NNCF alone does so in the first layer only.  fast: bias correction in its fast
    form; the full one took 5 points from a MobileNetV3-Large.  ignored: operations that are left in float.  feed:
    images -> what the network takes.
    """
    import nncf
    from nncf.quantization.advanced_parameters import OverflowFix
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    advanced = nncf.AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE if safe else OverflowFix.FIRST_LAYER)
    estimators = {"mean": RangeEstimatorParametersSet.MEAN_MINMAX, "minmax": RangeEstimatorParametersSet.MINMAX}
    if ranges in estimators:
        advanced.activations_range_estimator_params = estimators[ranges]
    with shared():
        return nncf.quantize(
            network,
            nncf.Dataset([image[None] for image in calibration], feed),
            preset=nncf.QuantizationPreset.MIXED if ranges in estimators else nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(calibration),
            fast_bias_correction=fast,
            ignored_scope=nncf.IgnoredScope(names=list(ignored), validate=False),
            advanced_parameters=advanced,
        )


def better_in_float(network: Any, shape: Sequence[int] = ()) -> list[str]:
    """Names of the operations where integers cost accuracy and gain no time, measured on x86 with AVX512-VNNI.

    Depthwise layers whose maps fit into the processor's cache (integer kernels multiply no faster there: 100 to 160 µs
    against 130 to 200), the squeeze-excite products (half the time in float) and the means before them.

    shape: of the input with one image, where the network takes images of any size.
    """
    network = network.clone()
    network.reshape({network.inputs[0]: list(shape) or [1, *network.inputs[0].get_partial_shape()[1:]]})
    names = []
    for op in network.get_ordered_ops():
        kind = op.get_type_name()
        if kind == "GroupConvolution":
            largest = max(math.prod(op.input(0).get_shape()), math.prod(op.output(0).get_shape()))
            chosen = 4 * largest <= _CACHED
        else:
            chosen = kind == "ReduceMean" or (kind == "Multiply" and _products(op))
        if chosen:
            names.append(op.get_friendly_name())
    return names


def first_layer(network: Any) -> list[str]:
    """Name of the convolution or linear layer that comes first; empty where there is none.

    NNCF stores its weights in 7 bits: on an EfficientNet-Lite0 that alone cost 8 dB.
    """
    return [op.get_friendly_name() for op in network.get_ordered_ops() if op.get_type_name() in WEIGHTED][:1]


def free_in_float(network: Any, shape: Sequence[int], graph: onnx.ModelProto, floats: Iterable[str]) -> bool:
    """Whether the first layer costs no time in float: its map is small, and what reads it is in float as well.

    Before a ReLU a MobileNetV4-Conv-Small at 64 pixels took 0.54 of fp32's time with it in float, in integers 0.50.
    shape: of the input with one image.  graph, floats: see ``faster_in_float``.
    """
    first, behind = first_node(graph), set(floats)
    results = {name for node in graph.graph.node if node.name in first for name in node.output}
    if not any(node.name in behind for node in graph.graph.node if results & set(node.input)):
        return False
    network = network.clone()
    network.reshape({network.inputs[0]: list(shape)})
    names = first_layer(network)
    maps = [op.output(0).get_shape() for op in network.get_ordered_ops() if op.get_friendly_name() in names]
    return all(4 * math.prod(one) <= _FREE for one in maps)


def faster_in_float(graph: onnx.ModelProto, floats: Iterable[str]) -> frozenset[str]:
    """Nodes of an ONNX graph (``rewrite.for_integers``) that OpenVINO computes faster in float.

    floats: from ``better_in_float``, of which the depthwise layers count; besides them gates with their products (one
    kernel with the layer before them where they are a hard-swish or a SiLU), and where there is either, global means.
    """
    known, small = constants(graph), {name.split("/")[0] for name in floats}
    chosen = {
        node.name
        for node in graph.graph.node
        if node.op_type in ("HardSigmoid", "Sigmoid")
        or (node.op_type == "Mul" and not any(name in known for name in node.input))
        or (node.op_type == "Conv" and node.name in small and attribute(node, "group", 1) != 1)
    }
    means = {node.name for node in graph.graph.node if node.op_type == "GlobalAveragePool"}
    return frozenset(chosen | means if chosen else chosen)


def first_node(graph: onnx.ModelProto) -> frozenset[str]:
    """The convolution or linear layer that comes first in an ONNX graph; empty where there is none."""
    known = constants(graph)
    return frozenset([node.name for node in graph.graph.node if has_weights(node, known)][:1])


def _products(op: Any) -> bool:
    """Whether an operation reads two computed values, no constant."""
    return all(op.input_value(index).get_node().get_type_name() != "Constant" for index in range(2))


def compressed(network: Any) -> Any:
    """8 bits for the weights that are still in float (NNCF leaves squeeze-excite there): they would double the file."""
    import nncf

    with shared():
        return _shared_limits(nncf.compress_weights(network, mode=nncf.CompressWeightsMode.INT8_SYM))


def _shared_limits(network: Any) -> Any:
    """FakeQuantize with one constant for both its input and its output limit: two layers of the .xml less for each."""
    for op in network.get_ordered_ops():
        if op.get_type_name() != "FakeQuantize":
            continue
        for source, twin in ((1, 3), (2, 4)):
            first, second = (op.input_value(port).get_node() for port in (source, twin))
            constant = first.get_type_name() == second.get_type_name() == "Constant"
            if constant and np.array_equal(first.get_data(), second.get_data()):
                op.input(twin).replace_source_output(op.input_value(source))
    return network


def layers(network: Any) -> dict[str, Any]:
    """Convolutions and linear layers by the name of the ONNX node that they came from, else by their own."""
    known = {op.get_friendly_name(): op for op in network.get_ordered_ops() if op.get_type_name() in WEIGHTED}
    nodes = {name.split("/")[0]: op for name, op in known.items()}
    return nodes if len(nodes) == len(known) else known


def weight_grids(graph: onnx.ModelProto, largest: int = LARGEST) -> dict[str, WeightGrid]:
    """``largest`` steps to the largest weight of each output channel, by the node of a float graph: NNCF's grid in 8
    bits, or that of weights it only compresses (``COMPRESSED``).

    Beside layers in integers it rounds the latter once more, and layers of 7 bits.
    """
    known = constants(graph)
    grids = {}
    for node in graph.graph.node:
        if has_weights(node, known):
            widest = largest_weights(numpy_helper.to_array(known[node.input[1]]), output_axis(node))
            grids[node.name] = WeightGrid(widest / largest, largest)
    return grids


def reads_rounded(op: Any) -> bool:
    """Whether an operation computes on a rounded activation."""
    return op.input_value(0).get_node().get_type_name() == "FakeQuantize"


def leading_float(network: Any) -> bool:
    """Whether the convolution or linear layer that comes first computes on floats, in a network with integers."""
    operations = list(layers(network).values())
    return bool(operations) and not reads_rounded(operations[0]) and any(reads_rounded(op) for op in operations)


def with_float(network: Any, names: Iterable[str]) -> Any:
    """A copy in which these layers read their input before it was rounded; their weights stay in 8 bits."""
    changed = network.clone()
    known = layers(changed)
    for name in names:
        op = known.get(name)
        if op is not None and reads_rounded(op):
            op.input(0).replace_source_output(op.input_value(0).get_node().input_value(0))
    return changed


def from_onnx_int8(source: Path) -> Any:
    """The integers of a QDQ ONNX file instead of NNCF's.

    Its biases, 32-bit integers with a scale for each, become the float constants that they stand for: half the bytes,
    and the same values that OpenVINO would compute.
    """
    model = onnx.load(source)
    known = constants(model)
    biases = [node for node in model.graph.node if node.op_type == "DequantizeLinear" and _is_bias(node, known)]
    for node in biases:
        value, scale = (numpy_helper.to_array(known[name]).astype(np.float32) for name in node.input[:2])
        model.graph.initializer.append(numpy_helper.from_array(value * scale, node.output[0]))
        model.graph.node.remove(node)
    return from_graph(model)


def _is_bias(node: onnx.NodeProto, known: Mapping[str, onnx.TensorProto]) -> bool:
    stored = known.get(node.input[0])
    return stored is not None and stored.data_type == onnx.TensorProto.INT32 and node.input[1] in known
