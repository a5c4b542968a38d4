"""The paper's additive study (Lin et al. 2022, Table II) at a small scale: its seven recipes, really run, as Markdown.

    python benchmarks/additive.py --out runs/additive [--recipe digits] [--data digits] [--epochs 50] [--seeds 0 1 2]
    python benchmarks/additive.py --out runs/minutes --minutes 5    # equal processor minutes instead of equal epochs

The seven recipes of ImageNet (``additive-1-base`` to ``additive-7-softnce``) are read and carried over to the small
recipe, which gives network, images, augmentation, batch and weight decay. What is right at one scale is wrong at the
other, so that a value is carried over by what it is in the last of the seven, which is the small recipe's own:

- learning rate and queue: the same fraction of the small recipe's own (0.3 before step 4, a quarter before step 7);
- momentum: the same multiple of the number of steps that the key encoder averages over (10 before step 5);
- hidden width of the head, warm-up: the small recipe's own where the paper has one, none where it has none;
- temperature, symmetric loss, α, K, cosine schedule: as they are.

The last row is not in the paper: SoftNCE with the queue of the step before, to tell the loss from the queue.
All rows take the same number of steps and see the same images in the same order; with --minutes as many whole epochs
as fit, by the pace of 40 steps after 40 others. A process that was stopped goes on where it was (the minutes of a
training that was stopped are not noted). Every cell is the mean over the seeds, those themselves in brackets.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from softedge import config
from softedge.run import Run
from softedge.ssl.light_moco import LightMoCo, MoCoV2

STEPS = {
    "base": "additive-1-base",
    "+ MLP": "additive-2-mlp",
    "+ lower temperature": "additive-3-temperature",
    "+ larger learning rate, warm-up": "additive-4-lr",
    "+ smaller momentum, cosine": "additive-5-momentum",
    "+ symmetric loss": "additive-6-symmetric",
    "+ SoftNCE (and queue)": "additive-7-softnce",
    "SoftNCE, queue as before": "additive-7-softnce+queue-as-before",
}
MEASURES = ("knn_top1", "linear_top1", "few_linear_top1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--recipe", default="digits", help="the small recipe, of the method light-moco")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--minutes", type=float, help="processor minutes of each training, in place of --epochs")
    parser.add_argument("--rows", nargs="+", default=list(STEPS), choices=list(STEPS), metavar="ROW")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], help="of the small recipe, e.g. ssl.batch=32")
    options = parser.parse_args()
    small = config.load(options.recipe, options.set)
    found: dict[tuple[str, int], dict[str, Any]] = {}
    epochs = {name: epochs_of(small, name, options) for name in options.rows}
    for seed in options.seeds:  # a seed at a time: what is there when it is stopped is complete for some seeds
        for name in options.rows:
            out = options.out / f"{STEPS[name]}-seed{seed}"
            values = carried_over(small, STEPS[name], epochs[name]) | {"seed": seed}
            values["probe"] |= {"random_baseline": name == options.rows[0]}
            found[name, seed] = measured(config.build(values), options.data, out, options.threads)
            print(f"seed {seed}, {name}: {found[name, seed].get('knn_top1', 0):.3f}", file=sys.stderr, flush=True)
    print("| recipe | what is set | epochs | minutes | k-NN | linear | linear, few labels |")
    print("|---|---|---|---|---|---|---|")
    print(f"| random weights | | 0 | 0 | {cells(found, options.rows[0], options.seeds, 'random_')} |")
    for name in options.rows:
        values = carried_over(small, STEPS[name], epochs[name])
        minutes = [found[name, seed]["minutes"] for seed in options.seeds]
        spent = f"{epochs[name]} | {statistics.fmean(minutes):.1f}" if all(minutes) else f"{epochs[name]} | not noted"
        print(f"| {name} | {described(values)} | {spent} | {cells(found, name, options.seeds)} |")


def epochs_of(small: config.Recipe, name: str, options: argparse.Namespace) -> int:
    """Epochs of a row: those asked for, or as many as fit into the processor minutes; kept in OUT/epochs.json."""
    if not options.minutes:
        epochs: int = options.epochs
        return epochs
    options.out.mkdir(parents=True, exist_ok=True)
    kept = options.out / "epochs.json"
    known: dict[str, dict[str, float]] = json.loads(kept.read_text()) if kept.is_file() else {}
    if name not in known:
        known[name] = {"minutes": options.minutes, "pace": pace(small, STEPS[name], options)}
        kept.write_text(json.dumps(known, indent=1))
    if known[name]["minutes"] != options.minutes:
        raise SystemExit(f"{options.out} was measured with --minutes {known[name]['minutes']:g}; choose another --out")
    return max(1, round(60 * options.minutes / known[name]["pace"]))


def pace(small: config.Recipe, paper: str, options: argparse.Namespace) -> float:
    """Processor seconds of an epoch of a row, by its steps in this process."""
    import torch
    from pace import images_per_second

    from softedge.data import load
    from softedge.stages.data import prepare

    torch.set_num_threads(options.threads)
    recipe = config.build(carried_over(small, paper, 1))
    with tempfile.TemporaryDirectory() as place:
        run = Run(Path(place) / "run")
        prepare(run, recipe, options.data)
        data = load(run)
        rate = images_per_second(recipe, data, Path(place) / "pace", 40, clock=time.process_time)
    return len(data.pretrain) / rate


def carried_over(small: config.Recipe, paper: str, epochs: int) -> dict[str, Any]:
    """The plain values of one of the seven recipes at the scale of ``small``."""
    last, here = config.load("additive-7-softnce"), config.load(paper.split("+")[0])
    before = config.load("additive-6-symmetric").ssl
    values, ssl = small.model_dump(mode="json"), here.ssl.model_dump(mode="json")
    own = values["ssl"]
    assert isinstance(small.ssl, LightMoCo.Settings) and isinstance(last.ssl, MoCoV2.Settings)
    assert isinstance(here.ssl, MoCoV2.Settings) and isinstance(before, MoCoV2.Settings)
    queue = before.queue if "+" in paper else here.ssl.queue
    wanted = {key: ssl[key] for key in ("method", "temperature", "momentum_cosine", "symmetric")}
    wanted |= {key: ssl[key] for key in ("alpha", "neighbors", "pattern") if key in ssl}
    kept = {key: own[key] for key in ("batch", "projector_norm", "key_norm", "key_norm_groups", "checkpoint_every")}
    averaged = (1 - last.ssl.momentum) / (1 - here.ssl.momentum)  # times as many steps
    hidden = own["projector"][:-1] if len(here.ssl.projector) > 1 else []
    values["ssl"] = (
        wanted
        | kept
        | {
            "epochs": epochs,
            "knn_every": 0,
            "queue": round(own["queue"] * queue / last.ssl.queue),
            "momentum": round(1 - (1 - own["momentum"]) / averaged, 6),
            "projector": [*hidden, own["projector"][-1]],
        }
    )
    values["optim"]["lr"] = round(small.optim.lr * here.optim.lr / last.optim.lr, 6)
    warmup = small.optim.warmup_epochs / small.ssl.epochs * epochs
    values["optim"]["warmup_epochs"] = warmup if here.optim.warmup_epochs else 0
    return values


def measured(recipe: config.Recipe, data: str, out: Path, threads: int) -> dict[str, Any]:
    """Pretrain and probe in a process of its own; the probe's metrics."""
    out.mkdir(parents=True, exist_ok=True)
    afresh = not (out / "pretrain").exists()
    (out / "wanted.toml").write_text(config.to_toml(recipe))
    child = [sys.executable, str(Path(__file__).with_name("methods.py")), "--row", "additive", "--data", data]
    done = subprocess.run(
        [*child, "--out", str(out), "--threads", str(threads)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{out.name}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    spent = out / "minutes.txt"
    if afresh:
        spent.write_text(f"{json.loads(done.stdout.strip().splitlines()[-1])['seconds'] / 60:.3f}\n")
    return {"minutes": float(spent.read_text()) if spent.is_file() else 0.0} | Run(out).need("probe", "probe").metrics


def described(values: dict[str, Any]) -> str:
    """The settings in which the seven differ."""
    ssl, optim = values["ssl"], values["optim"]
    soft = f", α {ssl['alpha']:g}, K {ssl['neighbors']}" if "alpha" in ssl else ""
    schedule = " cosine" if ssl["momentum_cosine"] else ""
    warmup = f" after {optim['warmup_epochs']:g} epochs" if optim["warmup_epochs"] else ""
    return (
        f"head {ssl['projector']}, τ {ssl['temperature']:g}, rate {optim['lr']:g}{warmup}, momentum "
        f"{ssl['momentum']:g}{schedule}, {'symmetric' if ssl['symmetric'] else 'one-sided'}, queue {ssl['queue']}{soft}"
    )


def cells(found: dict[tuple[str, int], dict[str, Any]], name: str, seeds: list[int], prefix: str = "") -> str:
    """Mean over the seeds of each measure, with the seeds' own."""
    texts = []
    for measure in MEASURES:
        each = [found[name, seed].get(prefix + measure) for seed in seeds]
        numbers = [value for value in each if value is not None]
        own = ", ".join(f"{value:.3f}" for value in numbers)
        texts.append(f"{statistics.fmean(numbers):.3f} ({own})" if len(numbers) == len(seeds) else "not run")
    return " | ".join(texts)


if __name__ == "__main__":
    main()
