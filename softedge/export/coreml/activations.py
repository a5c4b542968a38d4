"""8-bit activations for Core ML, calibrated on any system: coremltools' own calibration needs a Mac.

The float program runs in the reference interpreter; the range of every tensor goes to coremltools' graph passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from softedge.export.base import Float32, Uint8
from softedge.export.coreml.interpreter import Program
from softedge.export.coreml.package import rewritten
from softedge.export.coreml.predict import planes, probabilities
from softedge.files import temporary_folder

# Which of the images' own extremes makes the range. None: their mean, which clips images with outliers; 1: the largest.
# Networks differ: MobileNetV3-Large needs the mean (27 dB against 5.5), a Small one did not (20, 24).
OPTIONS: dict[str, float | None] = {"mean": None, "quantile 0.9": 0.9, "minmax": 1.0}

Extremes = dict[str, tuple[np.ndarray, np.ndarray]]
Ranges = dict[str, dict[str, float]]


def float_parts(package: Any) -> list[list[str]]:
    """Names of operations that may stay in float, from none to many: the first two layers, depthwise layers, sums.

    On a MobileNetV3-Small at 64 pixels (CIFAR-10, 300 images) 85.7 % of the answers of fp32 with none of them in float,
    96.7 with the first two layers, 98.0 with all.  They are a small part of the arithmetic and of the weights.
    """
    operations = _operations(package)
    layers = layer_names(package)
    depthwise = [_name(op) for op in operations if op.type == "conv" and _groups(op, operations) > 1]
    sums = [_name(op) for op in operations if op.type == "add"]
    first = layers[:2]
    parts = [[], first, list(dict.fromkeys([*first, *depthwise])), list(dict.fromkeys([*first, *depthwise, *sums]))]
    return [part for index, part in enumerate(parts) if part not in parts[:index]]


def measure(package: Any, calibration: Uint8) -> Extremes:
    """Smallest and largest value of every tensor on each image, (N,) each."""
    low: dict[str, list[np.ndarray]] = {}
    high: dict[str, list[np.ndarray]] = {}

    def observe(kind: str, name: str, value: Tensor) -> None:
        del kind
        flat = value.reshape(value.shape[0], -1).float()
        low.setdefault(name, []).append(flat.amin(1).numpy())
        high.setdefault(name, []).append(flat.amax(1).numpy())

    run(package, calibration, observe)
    return {name: (np.concatenate(low[name]), np.concatenate(high[name])) for name in low}


def ranges_of(extremes: Extremes, option: float | None) -> Ranges:
    """One range for each tensor, as coremltools expects: the mean of the images' extremes or a quantile of them."""
    ranges = {}
    for name, (low, high) in extremes.items():
        ends = (
            (low.mean(), high.mean()) if option is None else (np.quantile(low, 1 - option), np.quantile(high, option))
        )
        ranges[name] = {"rmin": float(ends[0]), "rmax": float(ends[1])}
    return ranges


def run(package: Any, images: Uint8, observe: Any = None) -> Float32:
    """The outputs of a package in memory, float32 (N, C), computed by the reference interpreter."""
    with temporary_folder("mlpackage") as folder:
        path = folder / "model.mlpackage"
        package.save(str(path))
        program = Program(path)
        parts = []
        step = program.at_once(planes(images[:2]))
        for start in range(0, len(images), step):
            image = planes(images[start : start + step])
            if observe is not None:
                observe("input", program.inputs[0], image)
            parts.append(probabilities(program.run({program.inputs[0]: image}, observe), program.outputs[-1]))
    return np.concatenate(parts)


def layer_names(package: Any) -> list[str]:
    """Names of the convolutions and linear layers of a package in memory, in order of computation."""
    return [_name(operation) for operation in _operations(package) if operation.type in ("conv", "linear")]


def _operations(package: Any) -> list[Any]:
    function = package.get_spec().mlProgram.functions["main"]
    return list(function.block_specializations[function.opset].operations)


def _name(operation: Any) -> str:
    return operation.attributes["name"].immediateValue.tensor.strings.values[0]


def _groups(convolution: Any, operations: Sequence[Any]) -> int:
    """The groups of a convolution, given in place or as a constant."""
    argument = convolution.inputs["groups"].arguments[0]
    if argument.HasField("value"):
        return argument.value.immediateValue.tensor.ints.values[0]
    constant = next(op for op in operations if op.type == "const" and op.outputs[0].name == argument.name)
    return constant.attributes["val"].immediateValue.tensor.ints.values[0]


def with_pairs(package: Any, ranges: Ranges, float_ops: Sequence[str] = ()) -> Any:
    """Put quantize / dequantize pairs before convolutions, linear layers, additions and pooling.

    Only before them: coremltools would also round what a convolution gives, before its hard-swish or SiLU rounds it
    again for the next one, which costs 4 dB on MobileNetV3-Small and saves nothing.  float_ops: names of operations to
    leave in float, see ``float_parts``.
    """
    import coremltools.optimize.coreml as optimize
    from coremltools.converters.mil.mil.passes.graph_pass import PassOption
    from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY

    config = optimize.OptimizationConfig(
        global_config=optimize.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8"),
        op_name_configs=dict.fromkeys(float_ops),
    )
    pairs = PASS_REGISTRY["compression::insert_prefix_quantize_dequantize_pair"]
    pairs.set_options([PassOption("config", config), PassOption("activation_stats", ranges)])
    joined = PASS_REGISTRY["common::dequantize_quantize_pair_elimination"]
    return rewritten(package, [pairs, joined])
