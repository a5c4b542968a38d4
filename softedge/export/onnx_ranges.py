"""Activation ranges of an ONNX model on calibration images, computed by the runtime that will run the file."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from softedge.export.contract import INPUT
from softedge.export.target import Float32, Uint8
from softedge.progress import track

Method = Literal["mean", "minmax", "percentile"]
Ranges = dict[str, tuple[float, float]]
_BINS = 4096


def with_outputs(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """A copy of ``model`` that also returns the tensors ``names``."""
    model = copy.deepcopy(model)
    present = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in present)
    return model


def session(model: onnx.ModelProto | bytes, optimise: bool = True, threads: int = 0) -> object:
    """An onnxruntime session on the CPU that logs errors only. threads: 0 leaves the choice to the runtime."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def float_tensors(model: onnx.ModelProto) -> list[str]:
    """Every float32 activation of the graph, in order of computation."""
    inferred = onnx.shape_inference.infer_shapes(model)
    known = [*inferred.graph.value_info, *inferred.graph.output]
    floats = {v.name for v in known if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    return [output for node in model.graph.node for output in node.output if output in floats]


def layer_outputs(path: Path, images: Uint8) -> Iterator[tuple[str, Float32]]:
    """(module name, output) of every convolution and linear layer of a file, by adding them to the graph's outputs.

    A layer is known by its weight, ``backbone.conv_stem.weight``, which keeps its name through every precision.
    """
    model = onnx.load(path)
    layers = {}
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm") and ".weight" in node.input[1]:
            layers[node.output[0]] = node.input[1].split(".weight")[0]
    run = session(with_outputs(model, list(layers)), optimise=False)
    dynamic = not model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    batch = images if dynamic else images[:1]
    for name, value in zip(layers.values(), run.run(list(layers), {INPUT: batch})):  # type: ignore[attr-defined]
        yield name, value.astype(np.float32)


def measure(model: onnx.ModelProto, images: Uint8, method: Method = "mean", percentile: float = 99.99) -> Ranges:
    """Ranges (low, high) of every float activation over ``images``, uint8 (N, H, W, 3).

    mean: the mean over images of each image's smallest and largest value: outlier images do not stretch the range (3 dB
    better than minmax on mobile networks).  minmax: over all images.  percentile: the central ``percentile`` % of all
    values pooled; safest when single images have far outliers.
    """
    names = float_tensors(model)
    run = session(with_outputs(model, names))
    lows, highs = np.empty((2, len(images), len(names)))
    for row, image in enumerate(track(images, "calibrating")):
        for column, value in enumerate(run.run(names, {INPUT: image[None]})):  # type: ignore[attr-defined]
            lows[row, column], highs[row, column] = value.min(), value.max()
    if method == "mean":
        low, high = lows.mean(0), highs.mean(0)
    else:
        low, high = lows.min(0), highs.max(0)
    if method == "percentile":
        low, high = _central(run, names, images, low, high, percentile)
    return {name: (float(a), float(b)) for name, a, b in zip(names, low, high)}


def _central(
    run: object, names: list[str], images: Uint8, low: np.ndarray, high: np.ndarray, percentile: float
) -> tuple[np.ndarray, np.ndarray]:
    """Narrow [low, high] to the central ``percentile`` % of the values, by histograms in a second pass."""
    counts = np.zeros((len(names), _BINS), np.int64)
    for image in track(images, "calibrating (percentile)"):
        for column, value in enumerate(run.run(names, {INPUT: image[None]})):  # type: ignore[attr-defined]
            span = (low[column], max(high[column], low[column] + 1e-12))
            counts[column] += np.histogram(value, _BINS, span)[0]
    tail = (100 - percentile) / 200
    share = np.cumsum(counts, axis=1) / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    first = (share > tail).argmax(axis=1)
    last = (share >= 1 - tail).argmax(axis=1)
    width = (high - low) / _BINS
    return low + first * width, low + (last + 1) * width
