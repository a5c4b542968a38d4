"""Activation ranges of an ONNX model on calibration images, computed by the runtime that will run the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from softedge.errors import UserError
from softedge.export.base import Float32, Uint8
from softedge.export.contract import INPUT
from softedge.export.onnx.entropy import least_divergence
from softedge.export.onnx.rewrite import copied
from softedge.progress import track

Method = Literal["mean", "minmax", "percentile", "mse", "entropy"]
METHODS: tuple[Method, ...] = ("mean", "minmax", "percentile", "mse", "entropy")
_BY_HISTOGRAM = ("percentile", "mse", "entropy")
Ranges = dict[str, tuple[float, float]]
BINS = 2048
VALUES = 8192  # of one tensor on one image that enter its histogram; the extremes are exact
# Outside, the operators that read a tensor are constant (sigmoid within 3e-4, SiLU 0.003): no integer is spent there.
ALIVE: dict[frozenset[str], tuple[float, float]] = {
    frozenset({"HardSwish"}): (-3.0, np.inf),
    frozenset({"HardSigmoid", "Mul"}): (-3.0, np.inf),  # a hard-swish in two nodes
    frozenset({"HardSigmoid"}): (-3.0, 3.0),
    frozenset({"Relu"}): (0.0, np.inf),
    frozenset({"Sigmoid"}): (-8.0, 8.0),
    frozenset({"Sigmoid", "Mul"}): (-8.0, np.inf),
}
HISTOGRAM_IMAGES = 100  # enough for the bulk of the values, which is what histograms are for
OUTLIER = 4.0
Array = NDArray[np.float64]


def with_outputs(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """A copy of ``model`` that also returns the tensors ``names``."""
    model = copied(model)
    present = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in present)
    return model


def session(model: onnx.ModelProto | bytes, optimise: bool = True, threads: int = 0) -> Any:
    """An onnxruntime session on the CPU that logs errors only. threads: 0 leaves the choice to the runtime."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def run(model: onnx.ModelProto, images: Uint8, threads: int = 0, batch: int = 32) -> Float32:
    """Outputs (N, C) of a model in memory for uint8 (N, H, W, 3)."""
    ort_session = session(model, threads=threads)
    step = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or batch
    parts = [ort_session.run(None, {INPUT: images[start : start + step]})[0] for start in range(0, len(images), step)]
    return np.concatenate(parts).astype(np.float32)


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
    for name, value in zip(layers.values(), run.run(list(layers), {INPUT: batch})):
        yield name, value.astype(np.float32)


def measure(model: onnx.ModelProto, images: Uint8, method: Method = "mse", percentile: float = 99.99) -> Ranges:
    """Ranges (low, high) of every float activation over ``images``, uint8 (N, H, W, 3); see ``Statistics.ranges``."""
    return collect(model, images, histograms=method in _BY_HISTOGRAM).ranges(method, percentile)


@dataclass(frozen=True)
class Statistics:
    """names: T tensors.  lows, highs: (N, T), each image's extremes.  counts: (T, BINS) over [min, max], or None.
    alive: (T, 2), outside of which a tensor makes no difference.
    """

    names: tuple[str, ...]
    lows: Array
    highs: Array
    counts: NDArray[np.int64] | None
    alive: Array

    def typical(self) -> NDArray[np.bool_]:
        """(N,): see ``typical``."""
        return typical(np.maximum(np.abs(self.lows), np.abs(self.highs)))

    def ranges(self, method: Method, percentile: float = 99.99) -> Ranges:
        """mean: the mean over images of each image's extremes, so that outlier images do not stretch the range.
        minmax: over all images.  percentile: the central ``percentile`` % of all values.  mse: what rounding and
        clipping to 8 bits together distort least, Σ (x − q(x))².  entropy: see ``entropy``.
        """
        if method == "mean":
            low, high = self.lows.mean(0), self.highs.mean(0)
        else:
            low, high = self.lows.min(0), self.highs.max(0)
        if method in _BY_HISTOGRAM and self.counts is not None:
            narrow = []
            for c, a, b, alive in zip(self.counts, low, high, self.alive):
                if method == "percentile":
                    narrow.append(_central(c, a, b, percentile))
                elif method == "entropy":
                    narrow.append(least_divergence(c, float(a), float(b)))
                else:
                    narrow.append(_least_distortion(c, a, b, *alive))
            low, high = np.array(narrow).T
        low, high = np.clip(low, *self.alive.T), np.clip(high, *self.alive.T)
        high = np.maximum(high, low + 1e-3)  # a tensor that is dead on every image still needs a range
        return {name: (float(a), float(b)) for name, a, b in zip(self.names, low, high)}


def collect(model: onnx.ModelProto, images: Uint8, histograms: bool = True) -> Statistics:
    """Run the model on every image, one at a time; a second pass fills the histograms."""
    names = float_tensors(model)
    run = session(with_outputs(model, names))
    lows, highs = np.empty((2, len(images), len(names)))
    for row, image in enumerate(track(images, "calibrating")):
        for column, value in enumerate(run.run(names, {INPUT: image[None]})):
            lows[row, column], highs[row, column] = value.min(), value.max()
    broken = ~(np.isfinite(lows) & np.isfinite(highs)).all(axis=0)
    if broken.any():
        raise UserError(
            f"the values of '{names[int(broken.argmax())]}' in the network are NaN or infinite on real images, "
            "so that int8 has no range for them; its weights are damaged, or make a mask with a finite number, as -100"
        )
    alive = _alive(model, names)
    if not histograms:
        return Statistics(tuple(names), lows, highs, None, alive)
    low, high = lows.min(0), np.maximum(highs.max(0), lows.min(0) + 1e-12)
    counts = np.zeros((len(names), BINS), np.int64)
    some_images = images[:: max(1, len(images) // HISTOGRAM_IMAGES)]
    for image in track(some_images, "calibrating (histograms)"):
        for column, value in enumerate(run.run(names, {INPUT: image[None]})):
            some = value.reshape(-1)[:: max(1, value.size // VALUES) | 1]  # an odd step visits every channel
            bins = ((some - low[column]) * (BINS / (high[column] - low[column]))).astype(np.int64)
            counts[column] += np.bincount(np.clip(bins, 0, BINS - 1), minlength=BINS)
    return Statistics(tuple(names), lows, highs, counts, alive)


def by_method(
    model: onnx.ModelProto, images: Uint8, methods: Sequence[Method] = METHODS, percentile: float = 99.99
) -> dict[str, Ranges]:
    """The ranges of each calibration method; of several also without outliers among the images, if there are any.

    Which one is best differs between networks: on CIFAR-10 the least distortion of each tensor (mse) led on two and
    lost 3 dB to percentiles on EfficientNet-B0.
    """
    statistics = collect(model, images)
    ranges: dict[str, Ranges] = {method: statistics.ranges(method, percentile) for method in methods}
    inliers = statistics.typical()
    if len(methods) > 1 and not inliers.all():
        some = collect(model, images[inliers])
        ranges |= {f"{method} without outliers": some.ranges(method, percentile) for method in methods}
    return ranges


def typical(extremes: Array) -> NDArray[np.bool_]:
    """Which images to calibrate on when a few reach much farther than the others.

    extremes: (N, T), the largest absolute value of each tensor on each image.  False for images of which a tensor goes
    beyond ``OUTLIER`` times its median over images; the most typical nine tenths are always kept.  One such image of
    100 stretched the ranges of a MobileNetV3-Large up to a hundredfold and cost 11 dB on all others.
    """
    middle = np.maximum(np.median(extremes, axis=0), 1e-12)
    reach = (extremes / middle).max(axis=1, initial=0.0)
    return reach <= max(OUTLIER, float(np.quantile(reach, 0.9)) if len(reach) else 0.0)


def _alive(model: onnx.ModelProto, names: list[str]) -> Array:
    """(T, 2): the interval in which each tensor matters to the operators that read it."""
    readers: dict[str, set[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    return np.array([ALIVE.get(frozenset(readers.get(name, ())), (-np.inf, np.inf)) for name in names])


def _central(counts: NDArray[np.int64], low: float, high: float, percentile: float) -> tuple[float, float]:
    tail = (100 - percentile) / 200
    share = np.cumsum(counts) / max(int(counts.sum()), 1)
    width = (high - low) / BINS
    return low + float((share > tail).argmax()) * width, low + float((share >= 1 - tail).argmax() + 1) * width


def _least_distortion(
    counts: NDArray[np.int64], low: float, high: float, alive_low: float = -np.inf, alive_high: float = np.inf
) -> tuple[float, float]:
    """Try shrinking each end; distortion of a bin is its clipping error squared plus step²/12."""
    centre = np.clip(low + (np.arange(BINS) + 0.5) * (high - low) / BINS, alive_low, alive_high)
    low, high = float(np.clip(low, alive_low, alive_high)), float(np.clip(high, alive_low, alive_high))
    shares = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
    best, chosen = np.inf, (low, high)
    for a in shares if low < 0 else (1.0,):
        for b in shares if high > 0 else (1.0,):
            x, y = (low * a if low < 0 else low), (high * b if high > 0 else high)
            clipped = np.maximum(x - centre, 0) + np.maximum(centre - y, 0)
            step = (max(y, 0) - min(x, 0)) / 255
            loss = float((counts * (clipped**2 + step**2 / 12 * (clipped == 0))).sum())
            if loss < best:
                best, chosen = loss, (x, y)
    return chosen
