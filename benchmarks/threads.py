"""A training step with one thread, with two, and with two that stop spinning early; alone and beside other work.

    python benchmarks/threads.py --busy 0 1 2
    python benchmarks/threads.py --network tf_efficientnet_lite0 --size 160 --batch 32

``--busy N`` runs N processes that only compute beside it. Forward and backward; the forms take turns, and a cell is the
median over the rounds of the mean wall time of a step.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

FORMS: dict[str, dict[str, str]] = {
    "1 thread": {"OMP_NUM_THREADS": "1"},
    "2 threads, OpenMP's defaults": {"OMP_NUM_THREADS": "2"},
    "2 threads, 10,000 spins": {"OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": "10000"},
    "2 threads, no spins": {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"},
}

STEP = """
import time, torch, timm
from softedge.machine.memory import keep_freed
keep_freed()
network = timm.create_model("{network}", num_classes=0).train().to(memory_format=torch.channels_last)
images = torch.randn({batch}, 3, {size}, {size}).to(memory_format=torch.channels_last)
step = lambda: network(images).square().mean().backward()
for _ in range(3): step()
began, steps = time.perf_counter(), 0
while time.perf_counter() - began < {seconds}: step(); steps += 1
print((time.perf_counter() - began) / steps * 1000)
"""


def milliseconds(form: dict[str, str], asked: argparse.Namespace) -> float:
    """Mean wall time of a step in a fresh process, since the settings are read when OpenMP is loaded."""
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("OMP_", "GOMP_"))} | form
    command = [sys.executable, "-c", STEP.format(**vars(asked))]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--network", default="mobilenetv3_small_050")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    print("| other busy processes | " + " | ".join(f"{name}, ms" for name in FORMS) + " |")
    print("|---" * (len(FORMS) + 1) + "|")
    for busy in options.busy:
        others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
        try:
            rounds = [{n: milliseconds(f, options) for n, f in FORMS.items()} for _ in range(options.rounds)]
        finally:
            for other in others:
                other.kill()
                other.wait()
        print(f"| {busy} | " + " | ".join(f"{statistics.median(r[n] for r in rounds):.0f}" for n in FORMS) + " |")


if __name__ == "__main__":
    main()
