"""Kill a training with SIGKILL at random instants, resume it, and compare every bit with a run that was left alone.

    python benchmarks/kill.py [--points 20] [--workers 2]

Each point is a training of its own, killed at an instant drawn from the time that the undisturbed one took, start and
end included; every second one is killed again after it was resumed. A kill that comes when all is done is drawn again,
so that every point has hit a training at work. Compared are weights, key encoder, queue and pointer, momentum,
optimizer, schedule, position, running statistics and random states (the whole of last.pt), and backbone.safetensors.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from PIL import Image

from softedge import config
from softedge.data.images import Data, FileImages
from softedge.records import InputSpec
from softedge.run import Run, sha256
from softedge.ssl.train import Training
from softedge.stages import pretrain

IMAGES, BATCH, EPOCHS = 80, 16, 5
STEPS = IMAGES // BATCH * EPOCHS
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
                "epochs": EPOCHS,
                "batch": BATCH,
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


class Progress:
    """When each update of a child process ended, seen from its parent."""

    def __init__(self, steps: int):
        self.ended = multiprocessing.Array("d", steps + 1, lock=False)  # [n]: when step n was through; [0]: the start

    def reset(self) -> None:
        self.ended[:] = [0.0] * len(self.ended)
        self.ended[0] = time.monotonic()

    def watch(self) -> None:
        """In the child: note every update of the training."""
        update = Training.update

        def noted(training: Training, views: Any, index: Any) -> None:
            update(training, views, index)
            self.ended[training.step] = time.monotonic()

        Training.update = noted  # type: ignore[method-assign, assignment]

    def reached(self) -> int:
        """The last step that is through."""
        return max(step for step, when in enumerate(self.ended) if when)


@dataclass(frozen=True)
class Kill:
    """``after`` seconds after step ``step`` has ended (0: after the start of the process)."""

    step: int
    after: float

    def wait_in(self, progress: Progress, child: int) -> None:
        """Sleep until it is time, or the child has ended."""
        while progress.reached() < self.step:
            if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return
            time.sleep(0.0005)
        time.sleep(self.after)


def drawn(rng: random.Random, durations: list[float], step: int) -> Kill:
    """An instant of the undisturbed training, uniform in time, among its start and what follows step ``step``.

    It is kept as a part of a certain step, so that it stays within the training when the machine's speed changes.
    """
    open_to = [0, *range(max(step, 1), len(durations))]
    chosen = rng.choices(open_to, [durations[i] for i in open_to])[0]
    return Kill(chosen, rng.random() * durations[chosen])


def train(folder: Path, data: Data, workers: int, progress: Progress, kill: Kill | None = None) -> bool:
    """Train in a child process; SIGKILL it at ``kill``. Returns whether it came to its end."""
    progress.reset()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        torch.set_num_threads(1)
        folder.mkdir(exist_ok=True)
        os.dup2(os.open(folder / "messages.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        code = 1
        try:
            progress.watch()
            pretrain.stage(Run(folder), recipe(workers), data)
            code = 0
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    with contextlib.suppress(OSError):  # whoever is first; the child may be gone
        os.setpgid(child, child)
    if kill is not None:
        kill.wait_in(progress, child)
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
        data = photographs(pictures, IMAGES)
        progress, whole = Progress(STEPS), Path(root, "whole")
        assert train(whole, data, asked.workers, progress)
        ends = [*progress.ended, time.monotonic()]
        durations = [after - before for before, after in itertools.pairwise(ends)]
        expected = outcome(whole)
        print(f"undisturbed: {STEPS} steps in {ends[-1] - ends[0]:.1f} s, {asked.workers} workers\n", flush=True)
        print("| point | killed | checkpoint at step | same bits at the end |\n|---|---|---|---|", flush=True)
        failures = too_late = point = 0
        while point < asked.points:
            folder = Path(root, str(point + 1))
            shutil.rmtree(folder, ignore_errors=True)
            killed: list[str] = []
            checkpoints: list[int] = []
            while len(killed) < 1 + (point + 1) % 2:
                kill = drawn(rng, durations, checkpoints[-1] if checkpoints else 0)
                if train(folder, data, asked.workers, progress, kill):
                    break
                reached = progress.reached()
                killed.append(f"after step {reached}" if reached else "in the start")
                checkpoints.append(step_reached(folder))
            else:
                train(folder, data, asked.workers, progress)
                point += 1
                identical = same(outcome(folder), expected)
                failures += not identical
                steps = ", ".join(map(str, checkpoints))
                print(f"| {point} | {', '.join(killed)} | {steps} | {'yes' if identical else 'NO'} |", flush=True)
                continue
            too_late += 1
    print(f"\n{asked.points - failures} of {asked.points} identical; {too_late} more were through before the kill")
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
