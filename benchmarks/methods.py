"""Every registered method at equal epochs on the same small data: k-NN and linear accuracy, time, memory, as Markdown.

    python benchmarks/methods.py --data digits --recipe digits --epochs 50 --out /tmp/methods

Each method is trained and probed in processes of its own, so that the peak of memory is its own too. A method that
the recipe's settings do not suit is printed with its reason.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from softedge import config, registry
from softedge.run import Run

# Settings of the recipe's method that another one does not have: left to its own defaults.
_SHARED = tuple(config.Pretraining.model_fields)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--recipe", default="digits")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--methods", nargs="+", default=sorted(registry.METHODS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], help="for every method, e.g. ssl.batch=64")
    options = parser.parse_args()
    print("| method | k-NN | linear | random k-NN | random linear | seconds | peak MB |")
    print("|---|---|---|---|---|---|---|")
    for method in options.methods:
        print(row(options, method), flush=True)


def row(options: argparse.Namespace, method: str) -> str:
    """Train and probe one method; its line of the table, or why there is none."""
    out = options.out / method
    recipe = options.out / f"{method}.toml"
    options.out.mkdir(parents=True, exist_ok=True)
    recipe.write_text(config.to_toml(adapted(options.recipe, method, options.epochs, options.set)))
    clock = time.monotonic()
    peak, failed = 0, ""
    commands = (["pretrain", "--data", options.data, "--recipe", str(recipe), "--out", str(out)], ["probe", str(out)])
    for command in commands:
        used, failed = measured([sys.executable, "-m", "softedge", *command])
        peak = max(peak, used)
        if failed:
            return f"| {method} | not run: {failed} | | | | | |"
    probe = Run(out).need("probe", "probe").metrics
    keys = ("knn_top1", "linear_top1", "random_knn_top1", "random_linear_top1")
    cells = [f"{100 * probe[key]:.1f}" if key in probe else "" for key in keys]
    return f"| {method} | {' | '.join(cells)} | {time.monotonic() - clock:.0f} | {peak} |"


def adapted(name: str, method: str, epochs: int, overrides: list[str]) -> config.Recipe:
    """The recipe with another method: what both share is kept, the rest is the method's own default."""
    base = config.load(name, overrides)
    values = base.model_dump(mode="json")
    if values["ssl"]["method"] != method:
        defaults = config.build({"ssl": {"method": method}}).ssl
        kept = {k: v for k, v in values["ssl"].items() if k in _SHARED or k in ("queue", "momentum", "temperature")}
        values["ssl"] = {"method": method, **{k: v for k, v in kept.items() if k in type(defaults).model_fields}}
    values["ssl"]["epochs"] = epochs
    values["name"] = method
    return config.build(values)


def measured(command: list[str]) -> tuple[int, str]:
    """Peak resident memory in MB, and the last line of what it printed when it failed."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    failed = said.strip().splitlines()[-1][:160] if process.returncode else ""
    return usage.ru_maxrss // 1024, failed


if __name__ == "__main__":
    main()
