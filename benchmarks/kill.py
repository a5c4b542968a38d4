"""Kill a training with SIGKILL at random instants, resume it, and compare every bit with a run that was left alone.

    python benchmarks/kill.py [--points 20] [--workers 2]

Each point is a training of its own, killed at a random share of the time that the undisturbed one took; every second
one is killed again after it was resumed. Compared are weights, key encoder, queue and pointer, momentum, optimizer,
schedule, position, running statistics and random states (the whole of last.pt), and backbone.safetensors.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import tempfile
import time
import traceback
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from PIL import Image

from softedge import config
from softedge.data.images import Data, FileImages
from softedge.records import InputSpec
from softedge.run import Run, sha256
from softedge.ssl.train import pretrain

SPEC = InputSpec(32, 32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def photographs(folder: Path, count: int) -> Data:
    """Generated JPEG files, large enough to go through loader processes."""
    rng = np.random.default_rng(0)
    names, labels = [f"{i}.jpg" for i in range(count)], np.arange(count) % 3
    for name, label in zip(names, labels):
        coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        coarse[:, :, label] |= 128
        Image.fromarray(coarse).resize((112, 96), Image.Resampling.BICUBIC).save(folder / name, quality=90)
    images = FileImages(folder, names, labels)
    return Data(str(folder), ("a", "b", "c"), SPEC, images, images, images.subset([]))


def recipe(workers: int) -> config.Recipe:
    return config.build(
        {
            "data": {"size": 32, "resize": 32, "workers": workers},
            "backbone": {"name": "mobilenetv3_small_050"},
            "ssl": {
                "epochs": 5,
                "batch": 16,
                "queue": 64,
                "neighbors": 8,
                "projector": [64, 32],
                "projector_norm": True,
                "knn_every": 3,
                "alpha_schedule": "incremental",
            },
            "optim": {"lr": 0.05, "warmup_epochs": 1},
        }
    )


def train(folder: Path, data: Data, workers: int, kill_after: float | None) -> bool:
    """Train in a child process; SIGKILL it after ``kill_after`` seconds. Returns whether it came to its end."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        torch.set_num_threads(1)
        folder.mkdir(exist_ok=True)
        os.dup2(os.open(folder / "messages.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        code = 1
        try:
            pretrain(Run(folder), recipe(workers), data)
            code = 0
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    if kill_after is not None:
        time.sleep(kill_after)
        with contextlib.suppress(ProcessLookupError):  # it was through already
            os.killpg(child, signal.SIGKILL)  # its loader processes with it
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit((folder / "messages.txt").read_text())
    return (folder / "pretrain" / "result.json").exists()


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(same, a, b))
    return a == b


def outcome(folder: Path) -> tuple[dict, str]:
    stage = folder / "pretrain"
    return torch.load(stage / "last.pt", weights_only=True), sha256(stage / "backbone.safetensors")


def step_reached(folder: Path) -> int:
    try:
        return torch.load(folder / "pretrain" / "last.pt", weights_only=True)["position"]["step"]
    except Exception:  # killed before the first checkpoint
        return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    with tempfile.TemporaryDirectory(prefix="softedge-kill-") as root:
        (pictures := Path(root, "pictures")).mkdir()
        data = photographs(pictures, 80)
        whole = Path(root, "whole")
        began = time.monotonic()
        assert train(whole, data, asked.workers, None)
        seconds = time.monotonic() - began
        expected = outcome(whole)
        print(
            f"undisturbed: {expected[0]['position']['step']} steps in {seconds:.1f} s, {asked.workers} workers\n",
            flush=True,
        )
        print("| point | killed after, s | checkpoint at step | same bits at the end |\n|---|---|---|---|", flush=True)
        failures = 0
        for point in range(1, asked.points + 1):
            folder = Path(root, str(point))
            kills: list[float] = []
            steps, done = [], False
            for _ in range(1 + point % 2):
                kills.append(rng.uniform(0.05, 1.0) * seconds)
                done = train(folder, data, asked.workers, kills[-1])
                steps.append("finished" if done else str(step_reached(folder)))
                if done:
                    seconds *= 0.8  # the machine has become faster than it was at the beginning
                    break
            if not done:
                train(folder, data, asked.workers, None)
            found = outcome(folder)
            identical = same(found, expected)
            failures += not identical
            after = ", ".join(f"{k:.1f}" for k in kills)
            print(f"| {point} | {after} | {', '.join(steps)} | {'yes' if identical else 'NO'} |", flush=True)
    print(f"\n{asked.points - failures} of {asked.points} identical")
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
