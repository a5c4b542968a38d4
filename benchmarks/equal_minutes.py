"""Every method at equal processor minutes on CIFAR-10, a rate chosen for each; k-NN and Ang's linear protocol.

    python benchmarks/equal_minutes.py --data CIFAR10 --minutes 2 --out DIR [--rows simco byol] [--rates 0.001 0.004]
    python benchmarks/equal_minutes.py --table --out DIR

Network, optimizer, batch and pixels are those of the recipe cifar10-cpu-mobilenetv3-small with the plain stem. The
steps that fit into the minutes are counted with a trial of 20 steps after as many others, on one thread; the schedule
ends with them. Every rate is tried with the same minutes and judged by k-NN on 5,000 held-out training images; only the
best one's features are measured on the test images. Methods with two views have MoCo-v2's augmentation with crops from
a fifth of the area.
SEED takes no part: it learns from a teacher. A row is kept as it ends: the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch
from cifar import knn, probed, read
from cifar_speed import Minutes, held_out, sized
from pace import images_per_second

from softedge import backbones, config
from softedge.data.images import Data
from softedge.errors import Interrupted
from softedge.machine.provenance import cpu_name
from softedge.run import Run
from softedge.ssl.train import Training

RECIPE = "cifar10-cpu-mobilenetv3-small"
SHARED = ("backbone.stem_stride=2", "ssl.knn_every=0", "ssl.checkpoint_every=1000", "optim.weight_decay=0.001")
TWO_VIEWS = ("augment.min_area=0.2", "augment.jitter=0.8", "augment.grey=0.2", "ssl.projector=[1024, 128]")
MOMENTUM = ("ssl.momentum=0.99",)

# What a method has beside SHARED: sizes that fit 50,000 images and some thousand steps.
ROWS: dict[str, tuple[str, ...]] = {
    "light-moco": (*TWO_VIEWS, *MOMENTUM, "ssl.queue=4096", "ssl.temperature=0.1"),
    "moco-v2": (*TWO_VIEWS, *MOMENTUM, "ssl.queue=4096", "ssl.temperature=0.1"),
    "simclr": (*TWO_VIEWS, "ssl.head=ang", "ssl.temperature=0.1"),
    "simmoco": (*TWO_VIEWS, *MOMENTUM, "ssl.projector_norm=true", "ssl.temperature=0.1"),
    "simco": (*TWO_VIEWS, "ssl.projector_norm=true", "ssl.temperature=0.1"),
    "byol": (*TWO_VIEWS, *MOMENTUM, "ssl.predictor=512"),
    "simsiam": (*TWO_VIEWS, "ssl.projector=[512, 512, 512]", "ssl.predictor=128"),
    "msf": (*TWO_VIEWS, *MOMENTUM, "ssl.predictor=512", "ssl.queue=4096"),
    "pcl-v2": (
        *(*TWO_VIEWS, *MOMENTUM, "ssl.queue=4096", "ssl.temperature=0.1", "ssl.negatives=1024"),
        *("ssl.clusters=[500, 1000, 1500]", "ssl.instance_epochs=0"),
    ),
    "visual-words": ("optim.weight_decay=0.02", "ssl.temperature=0.1", "ssl.scales=1", "ssl.whitening=0.5"),
    "supervised": ("augment.min_area=0.4", "augment.jitter=0", "augment.grey=0"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--minutes", type=float, default=2.0, help="processor minutes of a training")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.001, 0.004])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS), metavar="ROW")
    parser.add_argument("--views", type=int, default=10, help="augmented passes of the linear protocol")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", action="store_true", help="print what is there, train nothing")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if not asked.table:
        if not asked.data:
            parser.error("--data is needed")
        refuse_other_settings(asked)
        whole = read(asked.data)
        for row in asked.rows:
            measure(row, whole, asked)
    print(table(asked.out))


def refuse_other_settings(asked: argparse.Namespace) -> None:
    """Rows are kept by their method's name: one folder holds those of one set of settings."""
    wanted = {key: getattr(asked, key) for key in ("minutes", "rates", "views", "seed")}
    kept = asked.out / "asked.json"
    if kept.is_file() and (before := json.loads(kept.read_text())) != wanted:
        sys.exit(f"{asked.out} was measured with {before}; choose another --out")
    asked.out.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(wanted))


def measure(row: str, whole: Data, asked: argparse.Namespace) -> None:
    """One method: all its rates on held-out images, the best one on the test images; row.json in its folder."""
    folder = asked.out / row
    if (folder / "row.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    whole = sized(whole, config.load(RECIPE))
    data = held_out(whole, 5000)
    tried = {}
    for rate in asked.rates:
        place = folder / f"rate-{rate:g}"
        try:
            tried[rate] = trained(row, rate, data, asked, place)
        except Interrupted:
            raise
        except Exception as error:  # a method that cannot run here is a row with its reason
            tried[rate] = {"knn_top1": -1.0, "why": f"{type(error).__name__}: {error}"}
        print(row, rate, json.dumps(tried[rate]), flush=True)
    best = max(tried, key=lambda rate: tried[rate]["knn_top1"])
    values: dict[str, Any] = {"method": row, "rate": best, "tried": tried, "seed": asked.seed, "cpu": cpu_name()}
    if "why" not in tried[best]:
        backbone = backbones.load(folder / f"rate-{best:g}" / "backbone.safetensors")
        left = dataclasses.replace(data, test=whole.test)  # the held-out training images are left out here, too
        values |= probed(backbone, left, views=asked.views)
    values |= {"torch": torch.__version__, "set": list(settings(row, best, 1, asked.seed))}
    (folder / "row.json").write_text(json.dumps(values, indent=1))


def settings(row: str, rate: float, epochs: int, seed: int) -> tuple[str, ...]:
    """What differs from RECIPE."""
    changed = (*SHARED, f"ssl.method={row}", *ROWS[row], f"optim.lr={rate:g}", f"ssl.epochs={epochs}", f"seed={seed}")
    return (*changed, f"optim.warmup_epochs={max(0.25, epochs / 10):g}")


def trained(row: str, rate: float, data: Data, asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train for the minutes; backbone.safetensors in ``folder``."""
    done = folder / "tried.json"
    if done.exists():
        values: dict[str, Any] = json.loads(done.read_text())
        return values
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    trial = config.load(RECIPE, settings(row, rate, 1, asked.seed))
    pace = images_per_second(trial, data, folder, 20, clock=time.process_time)
    epochs = max(1, round(60 * asked.minutes * pace / len(data.pretrain)))
    recipe = config.load(RECIPE, settings(row, rate, epochs, asked.seed))
    training = Training(Run(folder), recipe, data, folder)
    minutes = Minutes(training, folder / "minutes.jsonl")
    training.work()
    minutes.lap()
    backbone = backbones.load(folder / "backbone.safetensors")
    values = {
        "knn_top1": knn(backbone, data),
        "minutes": round(minutes.total, 2),
        "epochs": recipe.ssl.epochs,
        "images_per_second": round(training.steps * recipe.ssl.batch / (60 * minutes.total)),
    }
    done.write_text(json.dumps(values))
    return values


def table(out: Path) -> str:
    """Markdown, best k-NN first."""
    rows = [json.loads(path.read_text()) for path in out.glob("*/row.json")]
    lines = [
        "| method | rate | epochs | processor minutes | k-NN, held-out training images | k-NN | linear |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: -row.get("knn_top1", 0.0)):
        tried = row["tried"]
        best = tried[f"{row['rate']}"]
        if "why" in best:
            lines.append(f"| {row['method']} | | | | not run: {best['why']} | | |")
            continue
        others = ", ".join(
            f"{rate}: " + ("failed" if "why" in value else f"{value['knn_top1']:.3f}")
            for rate, value in tried.items()
            if value is not best
        )
        lines.append(
            f"| {row['method']} | {row['rate']:g} | {best['epochs']} | {best['minutes']:.1f} | {best['knn_top1']:.3f} "
            f"({others}) | {row['knn_top1']:.3f} | {row['linear_top1']:.3f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
