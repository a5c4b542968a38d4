"""Time of int8 ONNX files over fp32 in onnxruntime, step by step, side by side in one interleaved run.

    OMP_NUM_THREADS=1 taskset -c 1 python benchmarks/int8_onnx_speed.py --models mobilenetv3_small_100 --rounds 200

Networks have random weights and BatchNorm statistics of generated images: speed does not depend on the weights.
The usual tools are onnxruntime's quantize_static: QDQ, u8s8, per channel, preprocessing and softmax left in float.
"""

from __future__ import annotations

import argparse
import datetime
import logging
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from int8_tools import Reader
from onnxruntime.quantization import QuantType, quantize_static
from torch import nn

from softedge import config
from softedge.backbones import Classifier, build, normalise
from softedge.export.deployed import Deployed
from softedge.export.onnx import quantizer as onnx_int8
from softedge.export.onnx import ranges as onnx_ranges
from softedge.export.onnx import rewrite as onnx_rewrite
from softedge.export.onnx import speed as onnx_speed
from softedge.export.onnx.graph import float_nodes, trace
from softedge.machine.provenance import cpu_name
from softedge.records import InputSpec

MODELS = (
    "mobilenetv3_small_100",
    "mobilenetv3_large_100",
    "efficientnet_b0",
    "efficientnet_b1",
    "resnet18",
    "resnet50",
)


def network(name: str, size: int) -> tuple[Deployed, np.ndarray]:
    """A network whose activations have the spread that BatchNorm gives trained ones, and images for it."""
    spec = InputSpec(size, size, config.IMAGENET_MEAN, config.IMAGENET_STD)
    small = np.random.default_rng(0).integers(0, 256, (8, size // 8, size // 8, 3), dtype=np.uint8)
    images = small.repeat(8, axis=1).repeat(8, axis=2)
    net = Classifier(build(config.Backbone(name=name)), tuple(f"class {i}" for i in range(10)), spec)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    net.train()
    with torch.no_grad():
        for _ in range(3):
            net(normalise(torch.from_numpy(images), spec))
    return Deployed(net.eval(), spec), images


def usual(graph: onnx.ModelProto, images: np.ndarray) -> onnx.ModelProto:
    """What onnxruntime's own tool makes of the fp32 file."""
    before, after = float_nodes(graph)
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder) / "in.onnx", Path(folder) / "out.onnx"
        onnx.save(graph, source)
        quantize_static(
            source,
            result,
            Reader(images),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*before, *after],
        )
        return onnx.load(result)


def steps(deployed: Deployed, images: np.ndarray) -> tuple[dict[str, onnx.ModelProto], str]:
    """fp32, the usual tools' int8, and ours with one measure after another."""
    fp32 = trace(deployed)
    models = {"fp32": fp32, "usual tools": usual(fp32, images)}

    def ours(graph: onnx.ModelProto, scheme: onnx_int8.Scheme = onnx_int8.Scheme()) -> onnx.ModelProto:  # noqa: B008
        return onnx_int8.quantize(graph, onnx_ranges.measure(graph, images, "minmax"), scheme)

    models["patterns that fuse"] = ours(fp32)
    gates = onnx_rewrite.split_hard_swish(fp32)
    models["+ gates on integers"] = ours(gates)
    padded = onnx_rewrite.pad_depthwise(gates)
    models["+ padded depthwise"] = ours(padded)
    wide = onnx_rewrite.widen_preprocessing(padded)
    models["+ preprocessing by rows"] = ours(wide)
    ranges = onnx_ranges.measure(wide, images, "minmax")
    choice = onnx_speed.beginnings(fp32, wide, ranges, images[:1])[-1]
    models["+ float part by measured time"] = onnx_int8.quantize(wide, ranges, choice.scheme)
    return models, choice.until


def race(models: dict[str, onnx.ModelProto], image: np.ndarray, rounds: int) -> dict[str, np.ndarray]:
    """Milliseconds (rounds,) of each model, interleaved, one thread."""
    sessions = {name: onnx_ranges.session(model, threads=1) for name, model in models.items()}
    samples: dict[str, list[float]] = {name: [] for name in sessions}
    for session in sessions.values():
        for _ in range(5):
            session.run(None, {"image": image})
    for _ in range(rounds):
        for name, session in sessions.items():
            start = time.perf_counter()
            session.run(None, {"image": image})
            samples[name].append(1e3 * (time.perf_counter() - start))
    return {name: np.array(values) for name, values in samples.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    onnxruntime.set_default_logger_severity(3)
    print(f"{datetime.date.today()}, {cpu_name()}, onnxruntime {onnxruntime.__version__}, one thread, batch 1, ")
    print(f"{arguments.size} pixels, {arguments.rounds} interleaved rounds; ms: fastest twentieth (median)\n")
    print("| model | file | ms | ms / fp32 | median of pairs | size / fp32 |\n|---|---|---|---|---|---|")
    for name in arguments.models:
        deployed, images = network(name, arguments.size)
        models, cut = steps(deployed, images)
        times = race(models, images[:1], arguments.rounds)
        base, size = times["fp32"], len(models["fp32"].SerializeToString())
        for step, values in times.items():
            fast, paired = np.quantile(values, 0.05), np.median(values / base)
            ratio = fast / np.quantile(base, 0.05)
            weight = len(models[step].SerializeToString()) / size
            row = f"{fast:.2f} ({np.median(values):.2f}) | {ratio:.2f} | {paired:.2f} | {weight:.2f}"
            print(f"| {name} | {step} | {row} |", flush=True)
        print(f"| {name} | float until | {cut} | | | |", flush=True)


if __name__ == "__main__":
    main()
