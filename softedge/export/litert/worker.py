"""Runs inside LiteRT's own environment, as a script: converts a torch.export program, or runs a .tflite file.

    python worker.py try out.tflite
    python worker.py convert program.pt2 out.tflite
    python worker.py run model.tflite images.npy outputs.npy [feed.json]

And to quantize a float file:

    python worker.py read model.tflite about.json
    python worker.py observe model.tflite images.npy feed.json statistics.npz
    python worker.py quantize model.tflite plan.json out.tflite
    python worker.py race float.tflite int8.tflite images.npy feed.json seconds times.json

feed.json: what a file takes for an image, where that is not the image itself (``_feeder``).  Needs litert-torch (which
brings torch, ai-edge-litert and ai-edge-quantizer), and nothing of softedge.
"""

from __future__ import annotations

import copy
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

BINS = 2048  # of a histogram, as of softedge's for ONNX
VALUES = 8192  # of one tensor on one image that enter its histogram


def convert(source: str, result: str) -> None:
    """A program (.pt2) -> a float .tflite file."""
    import litert_torch  # type: ignore[import-not-found]
    import torch

    program = torch.export.load(source)
    litert_torch.convert(program.module(), program.example_inputs[0]).export(result)


def attempt(result: str) -> None:
    """Convert a convolution and run it: whether this torch and this litert-torch work together."""
    import litert_torch
    import torch

    module, image = torch.nn.Conv2d(3, 4, 3).eval().requires_grad_(False), torch.rand(1, 3, 8, 8)
    litert_torch.convert(module, (image,)).export(result)
    if not np.allclose(_inferring(result)(image.numpy()), module(image).numpy(), atol=1e-4):
        raise SystemExit(f"with torch {torch.__version__} litert-torch gives other outputs")


def run(path: str, images: str, outputs: str, feed: str | None = None) -> None:
    """Write float32 (N, outputs) for uint8 (N, H, W, 3); integers as the values that they stand for."""
    infer, fed = _inferring(path), _feeder(feed)
    values = np.stack([infer(fed(image[None]))[0].copy() for image in np.load(images)])
    scale, zero = _interpreter(path).get_output_details()[0]["quantization"] if values.dtype.kind in "iu" else (1, 0)
    np.save(outputs, (values.astype(np.float32) - np.float32(zero)) * np.float32(scale))


def read(path: str, about: str) -> None:
    """Write inputs, outputs and operators, in order of computation, of a file.

    dims: 0 where the file takes any.  source: what an operator reads first.  weights: their type in the file, None
    where it has none.  input, output: the types of its first ones.  scale, zero_point: of integers.
    """
    interpreter = _interpreter(path)
    tensors = {one["index"]: one for one in interpreter.get_tensor_details()}
    operators = interpreter._get_ops_details()
    given = {one["index"] for one in interpreter.get_input_details()}
    made = given | {index for operator in operators for index in operator["outputs"]}

    stored = {  # what a DEQUANTIZE makes of a constant, by that constant
        operator["outputs"][0]: operator["inputs"][0]
        for operator in operators
        if operator["op_name"] == "DEQUANTIZE" and operator["inputs"][0] not in made
    }

    def weights(operator: Any) -> str | None:
        inputs = [stored.get(index, index) for index in operator["inputs"][:2] if index in tensors]
        constant = len(inputs) == 2 and inputs[1] not in made and len(tensors[inputs[1]]["shape"]) > 1
        return np.dtype(tensors[inputs[1]]["dtype"]).name if constant else None

    values = {
        "inputs": [_tensor(one) for one in interpreter.get_input_details()],
        "outputs": [_tensor(one) for one in interpreter.get_output_details()],
        "operators": [
            {
                "kind": operator["op_name"],
                "outputs": [tensors[index]["name"] for index in operator["outputs"]],
                "source": next((tensors[index]["name"] for index in operator["inputs"][:1] if index in tensors), None),
                "weights": weights(operator),
                **{
                    end: np.dtype(tensors[operator[f"{end}s"][0]]["dtype"]).name if len(operator[f"{end}s"]) else None
                    for end in ("input", "output")
                },
            }
            for operator in operators
        ],
    }
    with open(about, "w") as file:
        json.dump(values, file)


def _tensor(one: Any) -> dict[str, Any]:
    shape = [int(size) for size in one.get("shape_signature", one["shape"])] or [int(size) for size in one["shape"]]
    scale, zero = one["quantization"]
    about = {"name": one["name"], "dims": [max(size, 0) for size in shape], "kind": np.dtype(one["dtype"]).name}
    return {**about, "scale": float(scale), "zero_point": int(zero)}


def observe(path: str, images: str, feed: str, statistics: str) -> None:
    """Write what every float tensor that is computed holds: its least and its largest value on each image, (N, T), and
    a histogram over all images, (T, BINS), from the least to the largest of them.
    """
    interpreter, fed = _interpreter(path, experimental_preserve_all_tensors=True), _feeder(feed)
    tensors = {one["index"]: one for one in interpreter.get_tensor_details()}
    entry = interpreter.get_input_details()[0]["index"]
    computed = [entry, *(index for operator in interpreter._get_ops_details() for index in operator["outputs"])]
    floats = [index for index in dict.fromkeys(computed) if tensors[index]["dtype"] == np.float32]
    given = np.load(images)

    def values() -> Iterator[list[np.ndarray]]:
        for image in given:
            interpreter.set_tensor(entry, fed(image[None]))
            interpreter.invoke()
            yield [_finite(interpreter.get_tensor(index)) for index in floats]

    rows = [[(float(value.min()), float(value.max())) for value in found] for found in values()]
    lows, highs = np.array(rows, np.float64).reshape(len(given), len(floats), 2).transpose(2, 0, 1)
    least = lows.min(0)
    width = np.maximum(highs.max(0) - least, 1e-12) / BINS
    counts = np.zeros((len(floats), BINS), np.int64)
    for found in values():
        for row, value in enumerate(found):
            some = value[:: max(1, value.size // VALUES) | 1]  # an odd step visits every channel
            bins = np.clip((some - least[row]) / width[row], 0, BINS - 1).astype(np.int64)
            counts[row] += np.bincount(bins, minlength=BINS)
    names = np.array([tensors[index]["name"] for index in floats])
    np.savez(statistics, names=names, lows=lows, highs=highs, counts=counts)


def _finite(values: np.ndarray) -> np.ndarray:
    """In one row: what is padded for a maximum is padded with minus infinity.  One zero where nothing is left."""
    finite: np.ndarray = values[np.isfinite(values)]
    return finite if finite.size else np.zeros(1, np.float32)


def quantize(path: str, plan: str, result: str) -> None:
    """A smaller file, as a plan says.

    scheme: int8; int8-strict, everything in integers, from uint8 to uint8; w8a16; w8a32 and fp16, whose weights are
    stored in 8 or 16 bits, and whose arithmetic is in float.  In all but int8-strict input, output, softmax and
    normalisation stay in float.
    ranges: tensor -> (low, high).  float: operators, by the regular expression of their scope, that stay in float.
    """
    from ai_edge_quantizer import (  # type: ignore[import-not-found]
        algorithm_manager,
        qtyping,
        quantizer,
        recipe,
        recipe_manager,
    )

    with open(plan) as file:
        asked = json.load(file)
    worker = quantizer.Quantizer(_with_signatures(path, result))
    kinds, never = qtyping.TFLOperationName, algorithm_manager.AlgorithmName.NO_QUANTIZE
    half = recipe_manager.RecipeManager()
    casting = algorithm_manager.AlgorithmName.FLOAT_CASTING
    half.add_weight_only_config(".*", kinds.ALL_SUPPORTED, 16, algorithm_key=casting)
    schemes = {
        "int8": recipe.static_wi8_ai8(),
        "int8-strict": recipe.static_wi8_ai8(),
        "w8a16": recipe.static_wi8_ai16(),
        "w8a32": recipe.weight_only_wi8_afp32(),
        "fp16": half.get_quantization_recipe(),
    }
    worker.load_quantization_recipe(schemes[asked["scheme"]])
    edges = (kinds.SUB, kinds.DIV, kinds.SOFTMAX, kinds.INPUT, kinds.OUTPUT)
    for kind in () if asked["scheme"] == "int8-strict" else edges:
        worker.update_quantization_recipe(".*", kind, algorithm_key=never)
    for scope in asked["float"]:
        worker.update_quantization_recipe(scope, kinds.ALL_SUPPORTED, algorithm_key=never)
    shapes = {one["name"]: (1,) * len(one["shape"]) for one in _interpreter(path).get_tensor_details()}
    ranges = {
        name: {"min": np.full(shapes[name], low, np.float32), "max": np.full(shapes[name], high, np.float32)}
        for name, (low, high) in asked["ranges"].items()
    }
    worker.quantize(ranges or None).export_model(result, overwrite=True)
    _keep_names(result, [one["name"] for one in _interpreter(path).get_output_details()])
    if asked["scheme"] == "int8-strict":
        _bytes_at_both_ends(result)


def _bytes_at_both_ends(path: str) -> None:
    """uint8 for the int8 that goes in and comes out, by a QUANTIZE at each end: pixels go in as they are."""
    from ai_edge_litert import schema_py_generated as schema  # type: ignore[import-not-found]
    from ai_edge_litert.tools import flatbuffer_utils  # type: ignore[import-not-found]

    model = flatbuffer_utils.read_model(path)
    graph, kinds = model.subgraphs[0], schema.TensorType
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    if schema.BuiltinOperator.QUANTIZE not in codes:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.QUANTIZE
        model.operatorCodes.append(code)
        codes.append(code.builtinCode)
    at = codes.index(schema.BuiltinOperator.QUANTIZE)
    model.operatorCodes[at].version = max(2, model.operatorCodes[at].version)  # the first one takes no integers

    def twin(index: int) -> int:
        """A tensor of the same values in uint8, with the name; the other gets a new one."""
        signed = graph.tensors[index]
        if signed.type != kinds.INT8:
            raise SystemExit(f"{signed.name!r} is not in int8 after the quantization")
        made = copy.copy(signed)
        made.type, made.quantization = kinds.UINT8, copy.copy(signed.quantization)
        made.quantization.zeroPoint = np.asarray(signed.quantization.zeroPoint, np.int64) + 128
        name = signed.name if isinstance(signed.name, bytes) else signed.name.encode()
        signed.name = name + b"_int8"
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    def between(source: int, result: int) -> Any:
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = at, [source], [result]
        operator.builtinOptionsType = schema.BuiltinOptions.QuantizeOptions
        operator.builtinOptions = schema.QuantizeOptionsT()
        return operator

    entry, answer = int(graph.inputs[0]), int(graph.outputs[0])
    first, last = twin(entry), twin(answer)
    graph.operators = [between(first, entry), *graph.operators, between(answer, last)]
    graph.inputs, graph.outputs = [first], [last]
    for signature in model.signatureDefs or []:
        for one in signature.inputs:
            one.tensorIndex = first
        for one in signature.outputs:
            one.tensorIndex = last
    flatbuffer_utils.write_model(model, path)


def _keep_names(path: str, names: list[str]) -> None:
    """The outputs get the names that they had: the quantizer gives those to the integers before them."""
    from ai_edge_litert.tools import flatbuffer_utils  # type: ignore[import-not-found]

    model = flatbuffer_utils.read_model(path)
    graph = model.subgraphs[0]
    for index, name in zip(graph.outputs, names):
        for tensor in graph.tensors:
            if tensor.name in (name, name.encode()):
                tensor.name = f"{name}_integers"
        graph.tensors[index].name = name
    flatbuffer_utils.write_model(model, path)


def _with_signatures(path: str, copy: str) -> str:
    """The file, or where it has no list of signatures, a copy with an empty one: the quantizer walks through it."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(path)
    if model.signatureDefs is not None:
        return path
    model.signatureDefs = []
    flatbuffer_utils.write_model(model, copy)
    return copy


def race(fp32: str, int8: str, images: str, feed: str, seconds: str, times: str) -> None:
    """Write milliseconds of processor time of one image in each round, one thread: {"fp32": [...], "int8": [...]}.

    A file in integers alone takes the grey levels that its float file takes, in bytes.
    """
    image = _feeder(feed)(np.load(images)[:1])
    runs = {"fp32": _inferring(fp32), "int8": _inferring(int8)}
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for infer in runs.values():
        for _ in range(3):
            infer(image)
    order, end = list(runs), time.process_time() + float(seconds)
    while len(samples["fp32"]) < 200 and (len(samples["fp32"]) < 9 or time.process_time() < end):
        random.shuffle(order)
        for name in order:
            start = time.process_time()
            runs[name](image)
            samples[name].append(1e3 * (time.process_time() - start))
    with open(times, "w") as file:
        json.dump(samples, file)


def _interpreter(path: str, **settings: Any) -> Any:
    """With the file's own operators, which a delegate would hide."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType  # type: ignore[import-not-found]

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(path, num_threads=1, experimental_op_resolver_type=plain, **settings)
    interpreter.allocate_tensors()
    return interpreter


def _inferring(path: str) -> Callable[[np.ndarray], np.ndarray]:
    """By XNNPACK where it can: what goes in -> what comes out."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter: Any = Interpreter(path, num_threads=1)
    interpreter.allocate_tensors()
    entry, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]["index"]

    def infer(values: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(entry["index"], values.astype(entry["dtype"], copy=False))
        interpreter.invoke()
        answers: np.ndarray = interpreter.get_tensor(result)
        return answers

    return infer


def _feeder(feed: str | None) -> Callable[[np.ndarray], np.ndarray]:
    """uint8 (1, H, W, 3) -> what the file takes.

    feed.json: shift and scale, per channel, where it takes floats: (x - shift) / scale; planes: channels come first;
    grey: parts of 65,536 of red, green and blue, where it takes one channel.  bgr: blue comes first.
    """
    asked: dict[str, Any] = {}
    if feed is not None:
        with open(feed) as file:
            asked = json.load(file)

    def fed(image: np.ndarray) -> np.ndarray:
        if asked.get("grey"):
            image = ((image.astype(np.int32) @ np.array(asked["grey"], np.int32) + 32768) >> 16).astype(np.uint8)[
                ..., None
            ]
        image = image[..., ::-1] if asked.get("bgr") else image
        if "shift" in asked:
            shift, scale = np.array(asked["shift"], np.float32), np.array(asked["scale"], np.float32)
            image = (image.astype(np.float32) - shift) / scale
        return np.ascontiguousarray(image.transpose(0, 3, 1, 2)) if asked.get("planes") else image

    return fed


if __name__ == "__main__":
    verbs: dict[str, Any] = {"try": attempt, "convert": convert, "run": run, "read": read, "observe": observe}
    verbs |= {"quantize": quantize, "race": race}
    verbs[sys.argv[1]](*sys.argv[2:])
