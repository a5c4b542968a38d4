"""Transfer of one run's backbone beside random weights at equal iterations, on a VOC or COCO folder.

    python benchmarks/transfer.py RUN --task voc --data .data/bccd_voc --iterations 250 --batch 8 --side 192 \\
        --seeds 0 1 2 --out runs/bccd

A seed draws the heads' weights, the batches and the random backbone; the pretrained backbone is the same for all. Each
seed has a run folder of its own below --out with a copy of RUN's backbone, where an interrupted training goes on.
Prints one Markdown row for each start and seed, then the means with their range.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from softedge.detection import transfer as detection
from softedge.detection.inference import detect
from softedge.records import Result
from softedge.stages.opening import reopen

COLUMNS = ("AP", "AP50", "AP75", "mask_AP", "mask_AP50", "voc07_AP50", "voc12_AP50")


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
    parser.add_argument("--train-curve", action="store_true", help="measure on the training photos too (as long again)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, required=True)
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
    print(f"| start | seed | AP50 while training | {' | '.join(COLUMNS)} | seconds |")
    print("|---|---|---|" + "---|" * (len(COLUMNS) + 1))
    found: dict[str, list[Result]] = {init: [] for init in options.inits}
    for seed in options.seeds:
        copy = copied(options.run, options.out / f"seed-{seed}")
        run, recipe = reopen(copy, overrides)
        recipe = recipe.model_copy(update={"seed": seed})
        for init in options.inits:
            with on_training_photos(options.train_curve):
                result = detection.train(run, recipe, options.task, options.data, init=init)
            found[init].append(result)
            curve = ", ".join(f"{point['iteration']}: {100 * point['AP50']:.1f}" for point in result.details["curve"])
            print(f"| {init} | {seed} | {curve} | {cells([result])} | {result.seconds:.0f} |", flush=True)
    for init, results in found.items():
        print(f"| {init} | mean | | {cells(results)} | |")


@contextmanager
def on_training_photos(wanted: bool) -> Iterator[None]:
    """Print what each measurement of the block gives on the training split: has the detector learnt its own photos?"""
    original = detection._Transfer._score

    def both(self: detection._Transfer, model: torch.nn.Module, masks: bool) -> dict[str, Any]:
        found = self.task.score(self.train, detect(model, self.train), masks)
        shown = ", ".join(f"{name} {100 * found[name]:.1f}" for name in COLUMNS if name in found)
        print(f"training photos after {len(self.training.losses)} iterations: {shown}", flush=True)
        return original(self, model, masks)

    if wanted:
        detection._Transfer._score = both  # type: ignore[method-assign]
    try:
        yield
    finally:
        detection._Transfer._score = original  # type: ignore[method-assign]


def copied(source: Path, out: Path) -> Path:
    """A run folder with the recipe, the data's index and the backbone of ``source``."""
    for name in ("recipe.toml", "data", "pretrain/result.json", "pretrain/backbone.safetensors"):
        kept, copy = source / name, out / name
        if kept.exists() and not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if kept.is_dir() else shutil.copyfile)(kept, copy)
    return out


def cells(results: list[Result]) -> str:
    """Percent of each metric: the mean, and the range where there are several."""
    shown = []
    for name in COLUMNS:
        values = [100 * result.metrics[name] for result in results if name in result.metrics]
        spread = f" ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else ""
        shown.append(f"{sum(values) / len(values):.1f}{spread}" if values else "")
    return " | ".join(shown)


if __name__ == "__main__":
    main()
