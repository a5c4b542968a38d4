"""Latency of the steps of the int8 search and of other tools' defaults, all files interleaved in one run.

    python benchmarks/int8_latency.py make --model mobilenetv3_large_100 --quality large.json --out DIR
    python benchmarks/int8_latency.py time DIR --rounds 60

``make`` writes the files for a network with random weights (which have no influence on time); ``--quality`` is a file
of ``int8_quality.py`` of the same architecture, whose step "mixed" says which layers stay in float. ``time`` runs them
on one thread, batch 1, in f32 or integers, in a new random order every round, and prints each file's ratio to
onnxruntime fp32: the median over rounds of the ratio within the round, with a bootstrap interval.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx

SIZE = 224


def make(name: str, quality: Path | None, out: Path) -> None:
    """Write every file into ``out``."""
    import nncf
    import openvino as ov
    import torch
    from int8_tools import Reader
    from onnxruntime.quantization import quantize_static

    from softedge import backbones, config
    from softedge.export.deployed import Deployed
    from softedge.export.onnx import graph as onnx_graph
    from softedge.export.onnx import ranges as onnx_ranges
    from softedge.export.onnx import rewrite
    from softedge.export.onnx.candidates import leading_float
    from softedge.export.onnx.format import Onnx
    from softedge.export.onnx.quantization import Quantization
    from softedge.export.onnx.quantizer import Scheme
    from softedge.export.openvino.int8 import better_in_float, compressed, with_float, with_ranges
    from softedge.export.openvino.network import from_onnx, write
    from softedge.export.quiet import quiet
    from softedge.records import InputSpec

    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    spec = InputSpec(SIZE, SIZE, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    labels = tuple(map(str, range(10)))
    classifier = backbones.Classifier(backbones.build(config.Backbone(name=name)), labels, spec).eval()
    for module in classifier.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as after training: exporters drop a bias of zeros
            torch.nn.init.normal_(module.bias, 0, 0.1)
    deployed = Deployed(classifier, spec)
    images = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)
    steps = json.loads(quality.read_text()) if quality else {}

    fp32 = onnx_graph.trace(deployed)
    onnx.save(fp32, out / "onnx-fp32.onnx")
    with tempfile.TemporaryDirectory() as folder:
        default = onnx.load(str(Onnx().convert(deployed, "int8", images, Path(folder)).path))
    onnx.save(default, out / "onnx-default.onnx")
    with tempfile.TemporaryDirectory() as folder, quiet():
        source = Path(folder) / "source.onnx"
        onnx.save(fp32, str(source))
        quantize_static(str(source), str(out / "onnx-quantize_static.onnx"), Reader(images))
    rewritten = rewrite.for_integers(fp32)
    plain_ranges = onnx_ranges.measure(rewritten, images)
    integers_only = Quantization(rewritten, plain_ranges)
    front = leading_float(rewritten, default)
    chosen = float_layers(steps.get("onnx-int8", {}), set(integers_only.layers()) - front)
    if chosen:
        mixed = integers_only.in_float(front | frozenset(chosen)).model()
        onnx.save(mixed, out / "onnx-mixed.onnx")
    every = frozenset(node.name for node in fp32.graph.node)
    onnx.save(Quantization(fp32, plain_ranges, Scheme(every)).model(), out / "onnx-weights.onnx")

    with quiet():
        network = from_onnx(deployed)
        write(network, deployed, "fp32", out / "openvino-fp32.xml")
        integers = compressed(with_ranges(network, images, "minmax", ignored=better_in_float(network)))
        write(integers, deployed, "int8", out / "openvino-default.xml")
        speed = compressed(with_ranges(network, images, "defaults", ignored=better_in_float(network)))
        write(speed, deployed, "int8", out / "openvino-default, symmetric.xml")
        step = next((r for r in steps.get("openvino-int8", {}).get("steps", []) if r["step"] == "mixed"), None)
        if step is not None:
            order = [layer["name"] for layer in steps["onnx-int8"]["layers"]][: step["float_layers"]]
            write(with_float(integers, order), deployed, "int8", out / "openvino-mixed.xml")
        write(compressed(from_onnx(deployed)), deployed, "int8", out / "openvino-weights.xml")
        plain = nncf.quantize(from_onnx(deployed), nncf.Dataset([image[None] for image in images]))
        ov.save_model(plain, out / "openvino-NNCF.xml")


def float_layers(found: dict[str, Any], known: set[str]) -> list[str]:
    """The layers that step "mixed" of a quality file puts in float."""
    step = next((r for r in found.get("steps", []) if r["step"] == "mixed" and "float_layers" in r), None)
    if step is None:
        return []
    return [layer["name"] for layer in found["layers"] if layer["name"] in known][: step["float_layers"]]


def measure(folder: Path, rounds: int, calls: int) -> None:
    """Print a table of the files in ``folder``."""
    from int8_tools import runner

    image = np.random.default_rng(1).integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)
    files = sorted([*folder.glob("*.onnx"), *folder.glob("*.xml")])
    runners = {path.stem: runner(path, image) for path in files}
    for run in runners.values():
        for _ in range(10):
            run()
    rng = np.random.default_rng(0)
    samples: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds):
        for name in rng.permutation(list(runners)):
            times = []
            for _ in range(calls):
                start = time.perf_counter()
                runners[name]()
                times.append(1e3 * (time.perf_counter() - start))
            samples[name].append(min(times))  # another process can only make a call slower
    base = np.array(samples["onnx-fp32"])
    print("| file | ms | over onnxruntime fp32 | 95% interval | bytes over ONNX fp32 |\n|---|---|---|---|---|")
    size = (folder / "onnx-fp32.onnx").stat().st_size
    for path in files:
        ratios = np.array(samples[path.stem]) / base
        draws = np.median(rng.choice(ratios, (2000, len(ratios))), axis=1)
        low, high = np.quantile(draws, (0.025, 0.975))
        weights = path.with_suffix(".bin")
        total = path.stat().st_size + (weights.stat().st_size if path.suffix == ".xml" else 0)
        ms, ratio = np.median(samples[path.stem]), np.median(ratios)
        print(f"| {path.stem} | {ms:.2f} | {ratio:.2f} | {low:.2f} to {high:.2f} | {total / size:.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "time"])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--model", default="mobilenetv3_large_100")
    parser.add_argument("--quality", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--calls", type=int, default=4, help="of each file in a round; the fastest counts")
    options = parser.parse_args()
    if options.what == "make":
        make(options.model, options.quality, options.out)
    else:
        measure(options.folder, options.rounds, options.calls)


if __name__ == "__main__":
    main()
