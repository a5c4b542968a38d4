"""How colour.tflite, colour.pte and their int8 kin were made: the colour model for runtimes whose converters are not
among what the tests need.

    pip install ai-edge-litert 'softedge[executorch]' && python tests/make_colour_files.py

Made with ai-edge-litert 2.3.0, executorch 1.5.1, torchao 0.18 and torch 2.15.0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import torch
from colour_model import LABELS, SPEC, colours

from softedge.export.deployed import Deployed
from softedge.export.executorch.format import _lower

HERE = Path(__file__).parent


def tflite(int8: bool = False, size: int = SPEC.size, strict: bool = False) -> bytes:
    """Cast, a 1 x 1 convolution that divides by 25, the mean over the image, softmax.

    int8: the convolution is in integers, with steps of 1 and 1/25, so that it loses nothing.  strict: the mean, too,
    and there is no softmax: bytes go in, bytes in steps of 1/25 come out.
    """
    from ai_edge_litert import schema_py_generated as schema

    kinds, operators, options = schema.TensorType, schema.BuiltinOperator, schema.BuiltinOptions

    def filled(made: Any, **values: Any) -> Any:
        vars(made).update(values)
        return made

    stored = [None, (np.eye(3, dtype=np.float32) / 25), np.zeros(3, np.float32), np.array([1, 2], np.int32)]
    if int8 or strict:
        stored[1:3] = [127 * np.eye(3, dtype=np.int8), np.zeros(3, np.int32)]
    image, answer = [1, size, size, 3], [1, 3]
    tensors = [
        ("image", image, kinds.UINT8, 0),
        ("float", image, kinds.FLOAT32, 0),
        ("weights", [3, 1, 1, 3], kinds.FLOAT32, 1),
        ("bias", [3], kinds.FLOAT32, 2),
        ("mixed", image, kinds.FLOAT32, 0),
        ("axes", [2], kinds.INT32, 3),
        ("logits", answer, kinds.FLOAT32, 0),
        ("probabilities", answer, kinds.FLOAT32, 0),
        ("levels", image, kinds.INT8, 0),
        ("mixed levels", image, kinds.INT8, 0),
        ("mean levels", answer, kinds.INT8, 0),
        ("answer levels", answer, kinds.UINT8, 0),
    ][: 12 if strict else 10 if int8 else 8]
    steps_of = {}
    if int8 or strict:
        tensors[2:4] = [("weights", [3, 1, 1, 3], kinds.INT8, 1), ("bias", [3], kinds.INT32, 2)]
        narrow = 1 / (25 * 127)
        scales = {2: ([narrow] * 3, [0] * 3), 3: ([narrow] * 3, [0] * 3), 8: ([1], [-128]), 9: ([1 / 25], [-128])}
        scales |= {0: ([1], [0]), 10: ([1 / 25], [-128]), 11: ([1 / 25], [0])} if strict else {}
        steps_of = {
            index: filled(
                schema.QuantizationParametersT(),
                scale=np.array(scale, np.float32),
                zeroPoint=np.array(zero, np.int64),
            )
            for index, (scale, zero) in scales.items()
        }
    cast = filled(schema.CastOptionsT(), inDataType=kinds.UINT8, outDataType=kinds.FLOAT32)
    one = dict.fromkeys(("strideW", "strideH", "dilationWFactor", "dilationHFactor"), 1)
    steps = [
        (operators.CAST, [0], [1], options.CastOptions, cast),
        (operators.CONV_2D, [1, 2, 3], [4], options.Conv2DOptions, filled(schema.Conv2DOptionsT(), **one)),
        (operators.MEAN, [4, 5], [6], options.ReducerOptions, filled(schema.ReducerOptionsT(), keepDims=False)),
        (operators.SOFTMAX, [6], [7], options.SoftmaxOptions, filled(schema.SoftmaxOptionsT(), beta=1.0)),
    ]
    if strict:
        steps = [
            (operators.QUANTIZE, [0], [8], options.QuantizeOptions, schema.QuantizeOptionsT()),
            (operators.CONV_2D, [8, 2, 3], [9], *steps[1][3:]),
            (operators.MEAN, [9, 5], [10], *steps[2][3:]),
            (operators.QUANTIZE, [10], [11], options.QuantizeOptions, schema.QuantizeOptionsT()),
        ]
    elif int8:
        steps[1:2] = [
            (operators.QUANTIZE, [1], [8], options.QuantizeOptions, schema.QuantizeOptionsT()),
            (operators.CONV_2D, [8, 2, 3], [9], options.Conv2DOptions, filled(schema.Conv2DOptionsT(), **one)),
            (operators.DEQUANTIZE, [9], [4], options.DequantizeOptions, schema.DequantizeOptionsT()),
        ]
    versions = {operators.CONV_2D: 3, operators.DEQUANTIZE: 2} if int8 or strict else {}
    versions |= {operators.QUANTIZE: 2, operators.MEAN: 2} if strict else {}
    graph = filled(
        schema.SubGraphT(),
        tensors=[
            filled(
                schema.TensorT(),
                name=name.encode(),
                shape=shape,
                type=kind,
                buffer=buffer,
                quantization=steps_of.get(index),
            )
            for index, (name, shape, kind, buffer) in enumerate(tensors)
        ],
        operators=[
            filled(
                schema.OperatorT(),
                opcodeIndex=index,
                inputs=inputs,
                outputs=outputs,
                builtinOptionsType=kind,
                builtinOptions=chosen,
            )
            for index, (_, inputs, outputs, kind, chosen) in enumerate(steps)
        ],
        inputs=[0],
        outputs=[11 if strict else 7],
    )
    model = filled(
        schema.ModelT(),
        version=3,
        buffers=[
            filled(schema.BufferT(), data=None if data is None else np.frombuffer(data.tobytes(), np.uint8))
            for data in stored
        ],
        operatorCodes=[
            filled(schema.OperatorCodeT(), builtinCode=code, deprecatedBuiltinCode=code, version=versions.get(code, 1))
            for code, *_ in steps
        ],
        subgraphs=[graph],
    )
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


class Colour(torch.nn.Module):
    """Of normalised images (x - 127.5) / 127.5 the logits x / 25, averaged over the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 1)
        self.conv.weight.data = torch.eye(3)[:, :, None, None] * 127.5 / 25
        self.conv.bias.data = torch.full((3,), 127.5 / 25)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).mean((2, 3))


if __name__ == "__main__":
    (HERE / "colour.tflite").write_bytes(tflite())
    (HERE / "colour-int8.tflite").write_bytes(tflite(int8=True))
    (HERE / "colour-int8-strict.tflite").write_bytes(tflite(strict=True))
    network = Deployed(Colour(), SPEC, labels=LABELS)
    (HERE / "colour.pte").write_bytes(_lower(network, None))
    (HERE / "colour-int8.pte").write_bytes(_lower(network, colours()[0]))
