"""A step of fine-tuning with one thread and two, with freed memory given back to the system and kept.

    python benchmarks/training_memory.py --sizes 128 160 224

EfficientNet-Lite0, batch 32, forward, backward and update as ``eval/optimising.py`` makes them, each form in a process
of its own; the forms take turns, and a cell is the median over the rounds of the median wall time of a step.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

STEP = """
import sys, time, statistics
import timm, torch
from softedge.machine.memory import keep_freed
from softedge.ssl import cpu_layers
size, steps, keep = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "kept"
if keep and not keep_freed():
    raise SystemExit("this system's C library has no mallopt")
network = timm.create_model("tf_efficientnet_lite0", num_classes=5).train().to(memory_format=torch.channels_last)
cpu_layers.put_on(network, torch.float32)
optimizer = torch.optim.AdamW(network.parameters(), fused=True)
images = torch.randn(32, 3, size, size).to(memory_format=torch.channels_last)
labels = torch.randint(5, (32,))
taken = []
for _ in range(steps + 2):
    began = time.perf_counter()
    loss = torch.nn.functional.cross_entropy(network(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    taken.append(time.perf_counter() - began)
print(1000 * statistics.median(taken[2:]))
"""
FORMS = [(threads, memory) for threads in (1, 2) for memory in ("given back", "kept")]


def milliseconds(size: int, steps: int, threads: int, memory: str) -> float:
    """Of a step, in a fresh process: OpenMP and malloc read their settings once."""
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("OMP_", "GOMP_"))}
    environment |= {"OMP_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": "10000"}
    command = [sys.executable, "-c", STEP, str(size), str(steps), memory]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 160, 224])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    asked = parser.parse_args()
    names = [f"{threads} thread{'s' if threads > 1 else ''}, {memory}" for threads, memory in FORMS]
    print("| pixels | " + " | ".join(f"{name}, ms" for name in names) + " |")
    print("|---" * (len(names) + 1) + "|")
    for size in asked.sizes:
        rounds = [[milliseconds(size, asked.steps, *form) for form in FORMS] for _ in range(asked.rounds)]
        print(f"| {size} | " + " | ".join(f"{statistics.median(cells):.0f}" for cells in zip(*rounds)) + " |")


if __name__ == "__main__":
    main()
