"""Static int8 for ONNX: QDQ, unsigned activations, signed per-channel weights.

u8s8 because s8s8 is 3 times slower on x86 with VNNI and loses more; per channel because depthwise convolutions need it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from softedge.errors import UserError
from softedge.export.onnx_graph import float_nodes
from softedge.export.onnx_ranges import Ranges
from softedge.export.quiet import quiet

WEIGHTED = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Scheme:
    """What is computed in integers.

    op_types: operators to quantize.  float_nodes: names of nodes that stay in float; their weights are stored in int8
    all the same.  reduce_range: 7-bit weights, for x86 without VNNI, where u8s8 products saturate 16 bits.
    """

    op_types: tuple[str, ...] = ("Conv", "Gemm", "MatMul", "Add")
    float_nodes: tuple[str, ...] = ()
    reduce_range: bool = False


def quantize(model: onnx.ModelProto, ranges: Ranges, scheme: Scheme = Scheme()) -> onnx.ModelProto:
    """Insert QuantizeLinear / DequantizeLinear around the chosen nodes of a float model.

    ranges: tensor name -> (low, high), from ``onnx_ranges.measure``.  Preprocessing and softmax stay in float.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    if not ranges:
        raise UserError("int8 needs calibration images, found none; give some, or leave int8 out of --precisions")
    before, after = float_nodes(model)
    data = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    with quiet():
        quantizer = QDQQuantizer(
            onnx.shape_inference.infer_shapes(model),
            per_channel=True,
            reduce_range=scheme.reduce_range,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, data),
            nodes_to_quantize=[],
            nodes_to_exclude=[*before, *after, *scheme.float_nodes],
            op_types_to_quantize=list(scheme.op_types),
            extra_options={},
        )
        quantizer.quantize_model()
    quantized = quantizer.model.model
    store_weights_in_int8(quantized)
    return quantized


def store_weights_in_int8(model: onnx.ModelProto, smallest: int = 1024) -> None:
    """Store the float weights that are left as int8 per output channel, decoded when the file is loaded.

    The decoding is Cast and Mul of constants, which runtimes fold once at load; a DequantizeLinear they would keep and
    run at every inference.  smallest: number of values below which a tensor stays in float.
    """
    weights = {t.name: t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) >= 2}
    users = {name: node for node in model.graph.node if node.op_type in WEIGHTED for name in node.input[1:2]}
    decoding = []
    for name, node in users.items():
        if name not in weights or np.prod(weights[name].dims) < smallest:
            continue
        weight = onnx.numpy_helper.to_array(weights[name])
        axis = _output_axis(node)
        largest = np.abs(weight).max(axis=tuple(i for i in range(weight.ndim) if i != axis), keepdims=True)
        scale = (np.maximum(largest, 1e-12) / 127).astype(np.float32)
        coded = np.clip(np.rint(weight / scale), -127, 127).astype(np.int8)
        model.graph.initializer.remove(weights[name])
        model.graph.initializer.append(onnx.numpy_helper.from_array(coded, f"{name}_int8"))
        model.graph.initializer.append(onnx.numpy_helper.from_array(scale, f"{name}_scale_int8"))
        cast = onnx.helper.make_node(
            "Cast", [f"{name}_int8"], [f"{name}_cast"], f"{name}_cast", to=onnx.TensorProto.FLOAT
        )
        decode = onnx.helper.make_node("Mul", [f"{name}_cast", f"{name}_scale_int8"], [name], f"{name}_decode")
        decoding += [cast, decode]
    nodes = [*decoding, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _output_axis(node: onnx.NodeProto) -> int:
    if node.op_type == "Conv":
        return 0
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if transposed else 1


def quantized_ops(model: onnx.ModelProto) -> dict[str, int]:
    """How many operators of each type read dequantized activations (run in integers), and how many weights are int8."""
    producers = {name: node for node in model.graph.node for name in node.output}
    counts: dict[str, int] = {}
    for node in model.graph.node:
        source = producers.get(node.input[0]) if node.input else None
        if source is not None and source.op_type == "DequantizeLinear" and node.op_type != "QuantizeLinear":
            counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts
