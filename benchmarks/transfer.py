"""Transfer of one run's backbone beside random weights at equal iterations, on a VOC or COCO folder.

    python benchmarks/transfer.py RUN --task voc --data .data/bccd_voc --iterations 250 --batch 8 --side 192

Prints one Markdown row for each initialisation; the stages stay in RUN/transfer for the report.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from softedge import pipeline
from softedge.eval.detection import transfer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--task", default="voc", choices=("voc", "coco"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--inits", nargs="+", default=["random", "ssl"])
    parser.add_argument("--head", default="ssdlite", choices=("ssdlite", "fpn", "c4"))
    parser.add_argument("--iterations", type=int, default=250)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--side", type=int, default=192)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--rois", type=int, default=64)
    parser.add_argument("--points", type=int, default=3, help="measurements while training; 0: at the end only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    every = options.iterations // options.points if options.points else 0
    values = {
        "head": options.head,
        "iterations": options.iterations,
        "batch": options.batch,
        "lr": options.lr,
        "warmup": options.iterations // 10,
        "clip_norm": 5,
        "short_sides": [options.side],
        "test_short_side": options.side,
        "rois": options.rois,
        "evaluate_every": every,
        "checkpoint_every": every or options.iterations,
        "workers": 0,
    }
    overrides = [
        f"transfer.{key}={value if not isinstance(value, str) else repr(value)}" for key, value in values.items()
    ]
    run, recipe = pipeline.reopen(options.run, overrides)
    columns = ("AP", "AP50", "AP75", "mask_AP50", "voc07_AP50", "voc12_AP50")
    print(f"| start | AP50 while training | {' | '.join(columns)} | seconds |")
    print("|---|---|" + "---|" * (len(columns) + 1))
    for init in options.inits:
        result = transfer(run, recipe, options.task, options.data, init=init)
        curve = ", ".join(f"{point['iteration']}: {100 * point['AP50']:.1f}" for point in result.details["curve"])
        cells = [f"{100 * result.metrics[c]:.1f}" if c in result.metrics else "" for c in columns]
        print(f"| {init} | {curve} | {' | '.join(cells)} | {result.seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
