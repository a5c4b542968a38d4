"""Every registered method at equal epochs on the same small data: k-NN and linear accuracy, time, memory, as Markdown.

    python benchmarks/methods.py --data digits --recipe digits --epochs 50 --out runs/methods
    python benchmarks/methods.py --data CIFAR10_FOLDER --per-class 500 --recipe cifar10-mobilenetv3-large \\
        --set ssl.batch=64 --set optim.lr=0.06 --epochs 20 --out runs/methods    # a part of class folders

The recipe gives data, network, augmentation, optimizer and every ssl setting that a method shares with the recipe's
own; the rest is the method's default, or stands in ROWS. Each row is trained and probed in a process of its own, so
that the peak of memory is its own too. Processor seconds are those of the training alone. A method that cannot run is
printed with its reason. SEED learns from --teacher; without one, from the backbone of the row light-moco.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from softedge import config
from softedge.run import Run

# Row -> method, and settings for small data where those of ImageNet would not fit.
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "light-moco": ("light-moco", {}),
    "moco-v2": ("moco-v2", {}),
    "simclr, Ang's head": ("simclr", {"head": "ang", "projector_norm": False}),
    "simclr, v1 head": ("simclr", {"head": "v1", "projector_norm": False}),
    "simclr, v2 head": ("simclr", {"head": "v2", "projector_norm": False}),
    "simmoco": ("simmoco", {}),
    "simco": ("simco", {}),
    "byol": ("byol", {"predictor": 512}),
    "simsiam": ("simsiam", {"projector": (512, 512, 512), "predictor": 128}),
    "msf": ("msf", {"predictor": 512, "neighbors": 5}),
    "pcl-v2": ("pcl-v2", {}),
    "seed": ("seed", {"projector": (512,), "temperature": 0.2}),
    "supervised": ("supervised", {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--recipe", default="digits")
    parser.add_argument("--per-class", type=int, default=0, help="of train/, and a fifth of it of test/; 0: all")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS), metavar="ROW")
    parser.add_argument("--teacher", type=Path, help="weights for seed (default: those of the row light-moco)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], help="for every row, e.g. ssl.batch=64")
    parser.add_argument("--row", help=argparse.SUPPRESS)  # what a child process does
    options = parser.parse_args()
    if options.row:
        train(options.data, options.out, options.threads)
        return
    if options.per_class:
        options.data = str(part(Path(options.data), options.per_class, options.out / "data"))
    print("| method | k-NN | linear | processor seconds | peak MB |\n|---|---|---|---|---|")
    for number, name in enumerate(options.rows):
        for line in rows(options, name, with_random=number == 0):
            print(line, flush=True)


def rows(options: argparse.Namespace, name: str, with_random: bool) -> list[str]:
    """Train and probe one row; its line of the table (random weights above the first), or why there is none."""
    out = options.out / name.replace(" ", "-").replace(",", "").replace("'", "")
    out.mkdir(parents=True, exist_ok=True)
    teacher = options.teacher or options.out / "light-moco" / "pretrain" / "backbone.safetensors"
    recipe = adapted(options.recipe, name, options.epochs, options.set, teacher, with_random)
    (out / "wanted.toml").write_text(config.to_toml(recipe))
    arguments = ["--row", name, "--data", options.data, "--out", str(out), "--threads", str(options.threads)]
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1][:160]
        return [f"| {name} | not run: {said} | | | |"]
    cost = json.loads(done.stdout.strip().splitlines()[-1])
    probe = Run(out).need("probe", "probe").metrics
    lines = [f"| {name} | {_percent(probe, '')} | {cost['seconds']:.0f} | {cost['peak_mb']} |"]
    return [f"| random weights | {_percent(probe, 'random_')} | | |", *lines] if with_random else lines


def part(source: Path, per_class: int, out: Path) -> Path:
    """Copy the first images of each class in ``source/train`` and ``source/test``, in the order of their names."""
    for split, count in (("train", per_class), ("test", max(1, per_class // 5))):
        for folder in sorted(path for path in (source / split).iterdir() if path.is_dir()):
            (out / split / folder.name).mkdir(parents=True, exist_ok=True)
            for image in sorted(folder.iterdir())[:count]:
                shutil.copyfile(image, out / split / folder.name / image.name)
    return out


def _percent(metrics: dict[str, Any], prefix: str) -> str:
    return " | ".join(f"{100 * metrics[prefix + key]:.1f}" for key in ("knn_top1", "linear_top1"))


def adapted(
    recipe: str, name: str, epochs: int, overrides: list[str], teacher: Path, with_random: bool
) -> config.Recipe:
    """The recipe with the method of the row: what both know is kept, the warm-up is a tenth of the training."""
    method, own = ROWS[name]
    values = config.load(recipe, overrides).model_dump(mode="json")
    known = type(config.build({"ssl": {"method": method}}).ssl).model_fields
    kept = {key: value for key, value in values["ssl"].items() if key in known}
    values["ssl"] = kept | own | {"method": method, "epochs": epochs, "knn_every": 0}
    if method == "seed":
        values["ssl"]["teacher"] = str(teacher)
    if method == "pcl-v2":
        values["ssl"]["instance_epochs"] = epochs // 10
    values["optim"]["warmup_epochs"] = epochs / 10
    values["probe"] |= {"few_labels": 0, "random_baseline": with_random}
    return config.build(values)


def train(data: str, out: Path, threads: int) -> None:
    """In a process of its own: data, pretraining and probe of the recipe that lies in ``out``."""
    import torch

    from softedge.data import load, prepare
    from softedge.errors import UserError
    from softedge.eval.probe import probe
    from softedge.ssl.train import pretrain

    torch.set_num_threads(threads)
    recipe, run = config.load(str(out / "wanted.toml")), Run(out)
    try:
        prepare(run, recipe, data)
        found = load(run)
        began = time.process_time()
        pretrain(run, recipe, found)
        seconds = time.process_time() - began
        probe(run, recipe, found)
    except UserError as error:
        sys.exit(str(error))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"seconds": seconds, "peak_mb": peak}))


if __name__ == "__main__":
    main()
