"""A trained detector as ONNX and OpenVINO files: average precision, agreement and latency of each file, as Markdown.

python benchmarks/detectors.py RUN/transfer/voc --task voc --data .data/bccd_voc
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from softedge import registry
from softedge.bench.latency import percentiles
from softedge.eval.detection_data import picture
from softedge.export import detector, detector_replay
from softedge.run import read_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a transfer stage")
    parser.add_argument("--task", default="voc", choices=("voc", "coco"))
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = registry.load(registry.TASKS, options.task, "task")
    _, test = task.read(options.data)
    model = detector.load(options.folder)
    images = [(picture(s) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy() for s in test.scenes]
    reference = [model.run(image) for image in images]
    rows = {"PyTorch": (reference, None, 0)}
    for target in detector_replay.RUNNERS:
        out = options.folder / target
        path = detector.export(model, target, out, test)
        runner = detector_replay.RUNNERS[target](path)
        runner(images[0])
        found, spent = [], []
        for image in images:
            clock = time.perf_counter()
            found.append(runner(image))
            spent.append(1000 * (time.perf_counter() - clock))
        rows[target] = (found, percentiles(spent), read_json(out / "contract.json")["size_bytes"])
    print("| file | MB | AP | AP50 | agreement with PyTorch | p50 ms | p90 ms | n |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (found, times, size) in rows.items():
        scores = task.score(test, [detector.detections(f) for f in found], model.masks)
        same = np.mean([detector.agreement(f, r) for f, r in zip(found, reference)])
        latency = f"{times['p50_ms']:.1f} | {times['p90_ms']:.1f} | {len(images)}" if times else " | | "
        megabytes = f"{size / 1e6:.1f}" if size else ""
        print(
            f"| {name} | {megabytes} | {100 * scores['AP']:.1f} | {100 * scores['AP50']:.1f} | {same:.4f} | {latency} |"
        )


if __name__ == "__main__":
    main()
