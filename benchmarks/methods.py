"""Every registered method at equal epochs on the same small data: k-NN and linear accuracy, time, memory, as Markdown.

    python benchmarks/methods.py --data digits --recipe digits --epochs 100 --seeds 0 1 2 --out runs/methods
    python benchmarks/methods.py --data CIFAR10_FOLDER --per-class 500 --recipe cifar10-mobilenetv3-large \\
        --set ssl.batch=64 --set optim.lr=0.06 --epochs 20 --out runs/methods    # a part of class folders

The recipe gives data, network, augmentation, optimizer and every ssl setting that a method shares with the recipe's
own; the rest is the method's default, or stands in ROWS. Each row is trained and probed in a process of its own, so
that the peak of memory is its own too. Processor seconds are those of the training alone, in the process that ended it.
A row is kept as it ends (OUT/seed-N/ROW/row.json): the same command goes on after an interruption, and `--table` prints
what is there without training. Cells are means over the seeds with their range; a seed also draws the held-out images
where the data have no test split. A method that cannot run is printed with its reason. SEED learns from --teacher;
without one, from the backbone of the row light-moco of the same seed.
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
    "visual-words": ("visual-words", {"projector": (512,)}),
    "supervised": ("supervised", {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--recipe", default="digits")
    parser.add_argument("--per-class", type=int, default=0, help="of train/, and a fifth of it of test/; 0: all")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS), metavar="ROW")
    parser.add_argument("--teacher", type=Path, help="weights for seed (default: those of the row light-moco)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], help="for every row, e.g. ssl.batch=64")
    parser.add_argument("--table", action="store_true", help="print the rows that are there, train nothing")
    parser.add_argument("--row", help=argparse.SUPPRESS)  # what a child process does
    options = parser.parse_args()
    if options.row:
        train(options.data, options.out, options.threads)
        return
    if options.per_class:
        options.data = str(part(Path(options.data), options.per_class, options.out / "data"))
    for seed in [] if options.table else options.seeds:
        for name in options.rows:
            print(f"seed {seed}, {name}: {measured(options, seed, name)}", file=sys.stderr, flush=True)
    print(table(options))


def folder(options: argparse.Namespace, seed: int, name: str) -> Path:
    """Where one row of one seed lies."""
    out: Path = options.out / f"seed-{seed}" / name.replace(" ", "-").replace(",", "").replace("'", "")
    return out


def measured(options: argparse.Namespace, seed: int, name: str) -> dict[str, Any]:
    """Train and probe one row of one seed, or read what an earlier call kept under the same recipe."""
    out = folder(options, seed, name)
    out.mkdir(parents=True, exist_ok=True)
    teacher = options.teacher or folder(options, seed, "light-moco") / "pretrain" / "backbone.safetensors"
    overrides = [*options.set, f"seed={seed}"]
    recipe = config.to_toml(adapted(options.recipe, name, options.epochs, overrides, teacher, name == options.rows[0]))
    kept = out / "row.json"
    if kept.is_file() and (out / "wanted.toml").read_text() == recipe:
        row: dict[str, Any] = json.loads(kept.read_text())
        return row
    if (out / "wanted.toml").is_file() and (out / "wanted.toml").read_text() != recipe:
        sys.exit(f"{out} was trained with another recipe; choose another --out")
    (out / "wanted.toml").write_text(recipe)
    arguments = ["--row", name, "--data", options.data, "--out", str(out), "--threads", str(options.threads)]
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1][:160]}
    row = json.loads(done.stdout.strip().splitlines()[-1])
    row |= {key: value for key, value in Run(out).need("probe", "probe").metrics.items() if key.endswith("_top1")}
    kept.write_text(json.dumps(row))
    return row


def table(options: argparse.Namespace) -> str:
    """Markdown of the rows that are there, over the seeds that have them."""
    lines = ["| method | seeds | k-NN | linear | processor seconds | peak MB |", "|---|---|---|---|---|---|"]
    for name in options.rows:
        files = [folder(options, seed, name) / "row.json" for seed in options.seeds]
        rows = [json.loads(file.read_text()) for file in files if file.is_file()]
        if not rows:
            lines.append(f"| {name} | not run | | | | |")
            continue
        if name == options.rows[0]:
            lines.append(f"| random weights | {len(rows)} | {_percent(rows, 'random_')} | | |")
        seconds, peak = (sum(row[key] for row in rows) / len(rows) for key in ("seconds", "peak_mb"))
        lines.append(f"| {name} | {len(rows)} | {_percent(rows, '')} | {seconds:.0f} | {peak:.0f} |")
    return "\n".join(lines)


def part(source: Path, per_class: int, out: Path) -> Path:
    """Copy the first images of each class in ``source/train`` and ``source/test``, in the order of their names."""
    for split, count in (("train", per_class), ("test", max(1, per_class // 5))):
        for folder in sorted(path for path in (source / split).iterdir() if path.is_dir()):
            (out / split / folder.name).mkdir(parents=True, exist_ok=True)
            for image in sorted(folder.iterdir())[:count]:
                shutil.copyfile(image, out / split / folder.name / image.name)
    return out


def _percent(rows: list[dict[str, Any]], prefix: str) -> str:
    """Mean and range over the seeds, of k-NN and of linear accuracy."""
    cells = []
    for key in ("knn_top1", "linear_top1"):
        values = [100 * row[prefix + key] for row in rows]
        spread = f" ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else ""
        cells.append(f"{sum(values) / len(values):.1f}{spread}")
    return " | ".join(cells)


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

    from softedge.data import load
    from softedge.errors import UserError
    from softedge.stages import pretrain, probe
    from softedge.stages.data import prepare

    torch.set_num_threads(threads)
    recipe, run = config.load(str(out / "wanted.toml")), Run(out)
    try:
        prepare(run, recipe, data)
        found = load(run)
        began = time.process_time()
        pretrain.stage(run, recipe, found)
        seconds = time.process_time() - began
        probe.stage(run, recipe, found)
    except UserError as error:
        sys.exit(str(error))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"seconds": seconds, "peak_mb": peak}))


if __name__ == "__main__":
    main()
