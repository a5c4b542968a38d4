"""Runs inside LiteRT's own environment, as a script: converts a torch.export program, or runs a .tflite file.

    python worker.py convert program.pt2 out.tflite [calibration.npy]
    python worker.py run model.tflite images.npy outputs.npy [feed.json]

And for files of others:

    python worker.py read model.tflite about.json
    python worker.py observe model.tflite images.npy feed.json extremes.npz
    python worker.py quantize model.tflite plan.json out.tflite
    python worker.py race float.tflite int8.tflite images.npy feed.json seconds times.json

feed.json: what a file takes for an image, where that is not the image itself (``_feeder``).  Needs litert-torch (which
brings torch, ai-edge-litert and ai-edge-quantizer), and nothing of softedge.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def convert(source: str, result: str, calibration: str | None = None) -> None:
    """A program (.pt2) -> a .tflite file; int8 weights and activations with calibration images, uint8 (N, H, W, 3)."""
    import litert_torch  # type: ignore[import-not-found]
    import torch

    program = torch.export.load(source)
    example = program.example_inputs[0]
    litert_torch.convert(program.module(), example).export(result)
    if calibration is not None:
        _quantize_ours(result, np.load(calibration))


def _quantize_ours(path: str, images: np.ndarray) -> None:
    """Static int8 in place; the preprocessing, the softmax and the output stay in float."""
    from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-not-found]
    from ai_edge_quantizer import (  # type: ignore[import-not-found]
        algorithm_manager,
        qtyping,
        quantizer,
        recipe,
    )

    worker = quantizer.Quantizer(path)
    worker.load_quantization_recipe(recipe.static_wi8_ai8())
    kinds = qtyping.TFLOperationName
    for kind in (kinds.SUB, kinds.DIV, kinds.SOFTMAX, kinds.OUTPUT):
        worker.update_quantization_recipe(".*", kind, algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE)
    signatures = Interpreter(path).get_signature_list()
    name = next(iter(signatures))
    entry = signatures[name]["inputs"][0]
    ranges = worker.calibrate({name: [{entry: image[None]} for image in images]})
    worker.quantize(ranges).export_model(path, overwrite=True)


def run(path: str, images: str, outputs: str, feed: str | None = None) -> None:
    """Write float32 (N, outputs) for uint8 (N, H, W, 3)."""
    infer, fed = _inferring(path), _feeder(feed)
    rows = [infer(fed(image[None]))[0].copy() for image in np.load(images)]
    np.save(outputs, np.stack(rows).astype(np.float32))


def read(path: str, about: str) -> None:
    """Write inputs, outputs and operators, in order of computation, of a file.

    dims: 0 where the file takes any.  type: of an operator's weights, None where it has none.
    """
    interpreter = _interpreter(path)
    tensors = {one["index"]: one for one in interpreter.get_tensor_details()}
    operators = interpreter._get_ops_details()
    given = {one["index"] for one in interpreter.get_input_details()}
    made = given | {index for operator in operators for index in operator["outputs"]}

    def weights(operator: Any) -> str | None:
        inputs = [index for index in operator["inputs"][:2] if index in tensors]
        constant = len(inputs) == 2 and inputs[1] not in made and len(tensors[inputs[1]]["shape"]) > 1
        return np.dtype(tensors[inputs[1]]["dtype"]).name if constant else None

    values = {
        "inputs": [_tensor(one) for one in interpreter.get_input_details()],
        "outputs": [_tensor(one) for one in interpreter.get_output_details()],
        "operators": [
            {
                "kind": operator["op_name"],
                "outputs": [tensors[index]["name"] for index in operator["outputs"]],
                "weights": weights(operator),
            }
            for operator in operators
        ],
    }
    with open(about, "w") as file:
        json.dump(values, file)


def _tensor(one: Any) -> dict[str, Any]:
    shape = [int(size) for size in one.get("shape_signature", one["shape"])] or [int(size) for size in one["shape"]]
    return {"name": one["name"], "dims": [max(size, 0) for size in shape], "kind": np.dtype(one["dtype"]).name}


def observe(path: str, images: str, feed: str, extremes: str) -> None:
    """Write the smallest and the largest value of every float tensor that is computed, on each image: (N, tensors)."""
    interpreter, fed = _interpreter(path, experimental_preserve_all_tensors=True), _feeder(feed)
    tensors = {one["index"]: one for one in interpreter.get_tensor_details()}
    entry = interpreter.get_input_details()[0]["index"]
    computed = [entry, *(index for operator in interpreter._get_ops_details() for index in operator["outputs"])]
    floats = [index for index in dict.fromkeys(computed) if tensors[index]["dtype"] == np.float32]
    rows = []
    for image in np.load(images):
        interpreter.set_tensor(entry, fed(image[None]))
        interpreter.invoke()
        values = [interpreter.get_tensor(index) for index in floats]
        rows.append([[value.min() for value in values], [value.max() for value in values]])
    lows, highs = np.array(rows, np.float64).transpose(1, 0, 2)
    np.savez(extremes, names=np.array([tensors[index]["name"] for index in floats]), lows=lows, highs=highs)


def quantize(path: str, plan: str, result: str) -> None:
    """int8 as a plan says; input, output, softmax and normalisation stay in float.

    ranges: tensor -> (low, high).  float: operators, by the regular expression of their scope, that stay in float.
    weights_only: 8-bit weights, float arithmetic.
    """
    from ai_edge_quantizer import algorithm_manager, qtyping, quantizer, recipe

    with open(plan) as file:
        asked = json.load(file)
    worker = quantizer.Quantizer(_with_signatures(path, result))
    whole = recipe.weight_only_wi8_afp32() if asked["weights_only"] else recipe.static_wi8_ai8()
    worker.load_quantization_recipe(whole)
    kinds, never = qtyping.TFLOperationName, algorithm_manager.AlgorithmName.NO_QUANTIZE
    for kind in (kinds.SUB, kinds.DIV, kinds.SOFTMAX, kinds.INPUT, kinds.OUTPUT):
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
    """Write milliseconds of processor time of one image in each round, one thread: {"fp32": [...], "int8": [...]}."""
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
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(path, num_threads=1, experimental_op_resolver_type=plain, **settings)
    interpreter.allocate_tensors()
    return interpreter


def _inferring(path: str) -> Callable[[np.ndarray], np.ndarray]:
    """By XNNPACK where it can: what goes in -> what comes out."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter: Any = Interpreter(path, num_threads=1)
    interpreter.allocate_tensors()
    entry, result = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def infer(values: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(entry, values)
        interpreter.invoke()
        answers: np.ndarray = interpreter.get_tensor(result)
        return answers

    return infer


def _feeder(feed: str | None) -> Callable[[np.ndarray], np.ndarray]:
    """uint8 (1, H, W, 3) -> what the file takes.

    feed.json: shift and scale, per channel, where it takes floats: (x - shift) / scale; planes: channels come first.
    """
    asked: dict[str, Any] = {}
    if feed is not None:
        with open(feed) as file:
            asked = json.load(file)

    def fed(image: np.ndarray) -> np.ndarray:
        if "shift" in asked:
            shift, scale = np.array(asked["shift"], np.float32), np.array(asked["scale"], np.float32)
            image = (image.astype(np.float32) - shift) / scale
        return np.ascontiguousarray(image.transpose(0, 3, 1, 2)) if asked.get("planes") else image

    return fed


if __name__ == "__main__":
    verbs: dict[str, Any] = {
        "convert": convert,
        "run": run,
        "read": read,
        "observe": observe,
        "quantize": quantize,
        "race": race,
    }
    verbs[sys.argv[1]](*sys.argv[2:])
