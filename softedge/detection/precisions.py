"""Exported detectors in half and in 8 bits: the graph around the network (resizing, boxes, NMS) stays in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softedge.export.quiet import quiet

Uint8 = NDArray[np.uint8]
Pictures = Callable[[], Iterator[Uint8]]
"""Calibration pictures (H, W, 3), decoded one by one."""

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_SMALL = 256  # numbers; below it a tensor's type does not show in the file's size


def half_weights(model: Any) -> Any:
    """An ONNX model whose weights are stored in float16 and widened when the runtime loads it: half the size, float32
    arithmetic. Boxes are pixels up to thousands, where float16 has steps of a whole pixel; so only weights are halved.
    """
    import onnx

    read = {name for node in model.graph.node if node.op_type in _WEIGHTED for name in node.input[1:2]}
    widen = []
    for tensor in model.graph.initializer:
        if tensor.name not in read or tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < _SMALL:
            continue
        values, stored = onnx.numpy_helper.to_array(tensor), f"{tensor.name}_half"
        widen.append(onnx.helper.make_node("Cast", [stored], [tensor.name], f"widen_{tensor.name}", to=1))
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), stored))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*widen, *nodes])
    return model


def int8_onnx(source: Path, out: Path, pictures: Pictures) -> None:
    """Convolutions and linear layers in int8 by onnxruntime's own tool: QDQ, u8s8, weights per channel.

    Not the export of classifiers (``onnx_int8.py``): that one knows the patterns of a classifier's graph only.
    """
    with quiet():
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

        class Reader(CalibrationDataReader):  # type: ignore[misc]
            def __init__(self) -> None:
                self.stream = pictures()

            def get_next(self) -> dict[str, Uint8] | None:
                image = next(self.stream, None)
                return None if image is None else {"image": image[None]}

        quantize_static(
            source,
            out,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Gemm"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"CalibMovingAverage": True},
        )


def int8_openvino(network: Any, pictures: Pictures) -> Any:
    """NNCF post-training quantization with the settings that classifiers get; what NNCF leaves in float keeps int8
    weights. Left to itself NNCF also quantizes the whole photo before it is resized, and arithmetic on boxes.
    """
    import nncf

    chosen = list(pictures())
    with quiet():
        quantized = nncf.quantize(
            network,
            nncf.Dataset([image[None] for image in chosen]),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(chosen),
            fast_bias_correction=True,
            ignored_scope=nncf.IgnoredScope(names=around_the_network(network), validate=False),
        )
        return nncf.compress_weights(quantized, mode=nncf.CompressWeightsMode.INT8_SYM)


def around_the_network(network: Any) -> list[str]:
    """Names of an OpenVINO model's operations before the first layer with weights, and of those that lead to none."""
    operations = network.get_ordered_ops()
    layers = [op for op in operations if op.get_type_name() in ("Convolution", "GroupConvolution", "MatMul")]
    if not layers:
        return []
    inside = _reach(layers) - _reach([layers[0].input_value(0).get_node()])
    return [op.get_friendly_name() for op in operations if op.get_friendly_name() not in inside]


def _reach(ends: list[Any]) -> set[str]:
    """Names of the operations that lead to ``ends``, and their own."""
    found: set[str] = set()
    waiting = list(ends)
    while waiting:
        op = waiting.pop()
        if op.get_friendly_name() not in found:
            found.add(op.get_friendly_name())
            waiting += [op.input_value(index).get_node() for index in range(op.get_input_size())]
    return found
