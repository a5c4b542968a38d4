"""Latency over pixels in fp32 and int8, on a machine that does other work: processor time of ONNX Runtime, one thread.

    python benchmarks/pixels_latency.py --sizes 64 96 128 160 192 224

Random weights: time does not depend on them.  Files take turns; of the p90 of each turn the lowest counts, which other
work on the machine has disturbed least.  Prints a line of JSON for each file.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from softedge import backbones, config
from softedge.export.base import open_format
from softedge.export.deployed import Deployed
from softedge.records import InputSpec

CLASSES = tuple("abcde")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["tf_efficientnet_lite0"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[96, 128, 160, 224])
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--images", type=int, default=150, help="of a turn")
    given = parser.parse_args()
    images = {size: np.random.default_rng(0).integers(0, 256, (8, size, size, 3), np.uint8) for size in given.sizes}
    files, seen = {}, dict[tuple[str, int, str], list[tuple[float, float]]]()
    for network in given.networks:
        for size in given.sizes:
            for precision in ("fp32", "int8"):
                files[network, size, precision] = session(network, precision, images[size])
    for _ in range(given.turns):
        for key, file in files.items():
            taken = timed(file, images[key[1]], given.images)
            seen.setdefault(key, []).append((float(np.percentile(taken, 90)), float(np.median(taken))))
    for (network, size, precision), turns in seen.items():
        row = {"network": network, "size": size, "precision": precision}
        print(json.dumps({**row, "p90_ms": round(min(turns)[0], 3), "p50_ms": round(min(p50 for _, p50 in turns), 3)}))


def session(network: str, precision: str, images: NDArray[np.uint8]) -> onnxruntime.InferenceSession:
    backbone = backbones.build(config.Backbone(name=network))
    spec = InputSpec(images.shape[1], images.shape[1], (0.5,) * 3, (0.5,) * 3)  # type: ignore[arg-type]
    deployed = Deployed(backbones.Classifier(backbone, CLASSES, spec).eval(), spec)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        artifact = open_format("onnx").without_timing().convert(deployed, precision, images, Path(folder))
        return onnxruntime.InferenceSession(artifact.path, options, providers=["CPUExecutionProvider"])


def timed(file: onnxruntime.InferenceSession, images: NDArray[np.uint8], count: int) -> list[float]:
    """Milliseconds of processor time of each image, after 20 that do not count."""
    name, taken = file.get_inputs()[0].name, []
    for number in range(20 + count):
        begun = time.thread_time_ns()
        file.run(None, {name: images[number % len(images)][None]})
        taken.append((time.thread_time_ns() - begun) / 1e6)
    return taken[20:]


if __name__ == "__main__":
    main()
