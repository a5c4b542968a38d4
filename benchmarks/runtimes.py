"""Does softedge time a model as the runtimes' own tools do?  Side by side, same file, same threads, same core.

    python benchmarks/runtimes.py [RUN] --rounds 7 --seconds 2

OpenVINO: benchmark_app -api sync.  onnxruntime: the test tool of its wheel (onnxruntime.tools.onnxruntime_test), its
session given the same number of threads; onnxruntime_perf_test itself is in no package.  Each round runs softedge and
the tool one after the other, in alternating order; a row is the median over rounds of softedge / tool.
RUN: the exported files of a run; without it two networks at 224 pixels with random weights, calibrated on noise: the
time of these kernels does not depend on the values.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from softedge import config
from softedge.backbones import Classifier, build
from softedge.bench.base import TimingPlan, open_device
from softedge.bench.latency import percentiles
from softedge.export import contract
from softedge.export.base import open_format
from softedge.export.deployed import Deployed
from softedge.records import Artifact, InputSpec

NETWORKS = ("mobilenetv3_large_100", "efficientnet_b0")
FORMATS = ("onnx-fp32", "onnx-int8", "openvino-fp32", "openvino-int8")
SIZE = 224
WITHIN = 0.10
_ORT = """
import sys, onnxruntime
threads, model, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
make = onnxruntime.InferenceSession
def session(path, sess_options=None, providers=None):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return make(path, options, providers=["CPUExecutionProvider"])
onnxruntime.InferenceSession = session
from onnxruntime.tools.onnxruntime_test import run_model
run_model(model, 20)  # the tool itself warms nothing up
run_model(model, count)
"""


def export(folder: Path, network: str) -> list[Artifact]:
    """The network in every format, with softedge's own exporters; files of an earlier call are used again."""
    spec = InputSpec(SIZE, SIZE, config.IMAGENET_MEAN, config.IMAGENET_STD)
    images = np.random.default_rng(0).integers(0, 256, (16, SIZE, SIZE, 3), dtype=np.uint8)
    labels = tuple(f"class {i}" for i in range(1000))
    model = Classifier(build(config.Backbone(name=network)), labels, spec).eval()
    artifacts = []
    for name in FORMATS:
        target, precision = name.split("-")
        out = folder / network / name
        out.mkdir(parents=True)
        artifacts.append(open_format(target).convert(Deployed(model, spec), precision, images, out))
    return artifacts


def softedge(artifact: Artifact, plan: TimingPlan) -> dict[str, float]:
    """p50 and mean by the local device."""
    with open_device("local:precision=f32") as device:
        (measurement,) = device.run([artifact], plan)
    if measurement.skipped:
        sys.exit(f"{artifact.path}: {measurement.skipped}")
    return percentiles(measurement.samples_ms)


def benchmark_app(artifact: Artifact, plan: TimingPlan) -> dict[str, float]:
    """Median and average by OpenVINO's tool."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).with_name("benchmark_app")), "-m", str(artifact.path), "-d", "CPU"]
        command += ["-hint", "none", "-api", "sync", "-nstreams", "1", "-nthreads", str(plan.threads)]
        size = artifact.spec.size
        command += ["-infer_precision", "f32", "-shape", f"image[1,{size},{size},3]"]
        command += ["-t", str(max(1, round(plan.min_seconds)))]
        command += ["-report_type", "no_counters", "-json_stats", "-report_folder", folder]
        subprocess.run(command, check=True, capture_output=True)
        results = json.loads(next(Path(folder).glob("*.json")).read_text())["execution_results"]
    return {"p50_ms": float(results["latency (ms)"]), "mean_ms": float(results["avg latency"])}


def onnxruntime_test(artifact: Artifact, plan: TimingPlan, count: int) -> dict[str, float]:
    """Average by the tool in onnxruntime's wheel, over as many inferences as softedge timed."""
    command = [sys.executable, "-c", _ORT, str(plan.threads), str(artifact.path), str(count)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {"mean_ms": float(re.findall(r"avg latency: ([0-9.]+) ms", text)[-1])}


def compare(artifact: Artifact, plan: TimingPlan, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Per statistic, (softedge, tool) in every round."""
    found: dict[str, list[tuple[float, float]]] = {}
    ours = softedge(artifact, plan)
    count = max(20, int(plan.min_seconds * 1000 / ours["mean_ms"]))

    def tool() -> dict[str, float]:
        if artifact.target == "openvino":
            return benchmark_app(artifact, plan)
        return onnxruntime_test(artifact, plan, count)

    for number in range(rounds):
        both: list[Callable[[], dict[str, float]]] = [lambda: softedge(artifact, plan), tool]
        results = [both[i]() for i in ((0, 1) if number % 2 == 0 else (1, 0))]
        mine, theirs = results if number % 2 == 0 else reversed(results)
        for key, value in theirs.items():
            found.setdefault(key, []).append((mine[key], value))
    return found


def row(network: str, artifact: Artifact, key: str, pairs: list[tuple[float, float]]) -> str:
    """A line of the table."""
    ratios = [a / b for a, b in pairs]
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(ratios)
    spread = f"{ratio:.3f} ({min(ratios):.2f} to {max(ratios):.2f})"
    verdict = "yes" if abs(ratio - 1) < WITHIN else "NO"
    return (
        f"| {network}, {artifact.name} | {key.removesuffix('_ms')} | {ours:.2f} | {theirs:.2f} | {spread} | {verdict} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("run", type=Path, nargs="?", help="a run folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="softedge-runtimes-") as name:
        exported = exports(options.run, Path(name), options.networks)
        if hasattr(os, "sched_setaffinity"):  # inherited by every process that is timed
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-options.threads :])
        print("| network, file | statistic | softedge, ms | tool, ms | ratio: median (range of rounds) | within 10% |")
        print("|---|---|---|---|---|---|", flush=True)
        for network, artifacts in exported.items():
            for artifact in artifacts:
                plan = plan_for(artifact, Path(name), options.seconds, options.threads)
                for key, pairs in compare(artifact, plan, options.rounds).items():
                    print(row(network, artifact, key, pairs), flush=True)


def exports(run: Path | None, folder: Path, networks: list[str]) -> dict[str, list[Artifact]]:
    """What to time: the files of a run that these tools read, or fresh networks."""
    if run is None:
        return {network: export(folder, network) for network in networks}
    found = [contract.read(path.parent) for path in sorted(run.glob("export/*/contract.json"))]
    return {run.name: [artifact for artifact in found if artifact.name in FORMATS]}


def plan_for(artifact: Artifact, folder: Path, seconds: float, threads: int) -> TimingPlan:
    """Noise images of the artifact's size, one slice a second: nothing else takes turns with it."""
    size = artifact.spec.size
    path = folder / f"images-{size}.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (16, size, size, 3), dtype=np.uint8))
    return TimingPlan("", 64, seconds, path, artifact.spec, threads=threads, slice_ms=1000)


if __name__ == "__main__":
    main()
