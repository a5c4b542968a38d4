"""CIFAR-10 without labels in processor minutes: k-NN over minutes, then k = 200 and Ang's linear protocol at the end.

    python benchmarks/cifar_speed.py --data CIFAR10 --recipe cifar10-cpu-mobilenetv3-small --out DIR [--set KEY=VALUE]
    python benchmarks/cifar_speed.py --data CIFAR10 --recipe R --validation 5000 --out DIR     to choose settings by

The curve's k-NN is that of the training log: on a held-out fifth of the labelled training images, never on the test
images. Those are asked once, at the end; with --validation that many training images take their place and are not
trained on. Minutes are processor time of the whole training on one thread, views included and k-NN left out. A training
that was stopped goes on where it was (OUT/last.pt, OUT/minutes.jsonl). DATA is as for ``gpu.py``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cifar import probed, read
from torch import nn

from softedge import backbones, config
from softedge.data.images import Data
from softedge.machine.provenance import cpu_name
from softedge.run import Run
from softedge.ssl.train import Training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--set", action="append", default=[], help="e.g. ssl.epochs=4")
    parser.add_argument("--validation", type=int, default=0, help="training images that stand for the test images")
    parser.add_argument(
        "--views", type=int, default=20, help="augmented passes that the linear protocol takes turns with"
    )
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    recipe, data = config.load(asked.recipe, asked.set), read(asked.data)
    if asked.validation:
        data = held_out(data, asked.validation)
    data = sized(data, recipe)
    asked.out.mkdir(parents=True, exist_ok=True)
    training = Training(Run(asked.out), recipe, data, asked.out)
    minutes = Minutes(training, asked.out / "minutes.jsonl")
    training.work()
    backbone = backbones.load(asked.out / "backbone.safetensors")
    pace = training.steps * recipe.ssl.batch / (60 * minutes.total)
    row = {
        "recipe": recipe.name,
        "set": asked.set,
        "seed": recipe.seed,
        "measured_on": f"{len(data.test)} {'training images, held out' if asked.validation else 'test images'}",
        **probed(backbone, data, views=asked.views),
        "minutes": round(minutes.total, 1),
        "epochs": recipe.ssl.epochs,
        "steps": training.steps,
        "images_per_second": round(pace),
        "cpu": cpu_name(),
        "torch": torch.__version__,
    }
    (asked.out / "row.json").write_text(json.dumps(row))
    print(json.dumps(row))
    print("| processor minutes | epochs | k-NN on held-out training images |\n|---|---|---|")
    for at, epoch, top1 in minutes.curve():
        print(f"| {at:.1f} | {epoch:g} | {top1:.3f} |")


def sized(data: Data, recipe: config.Recipe) -> Data:
    """The same images, to be seen at the recipe's pixels."""
    size = recipe.data.size
    return dataclasses.replace(data, spec=dataclasses.replace(data.spec, size=size, resize=recipe.data.resize or size))


def held_out(data: Data, count: int) -> Data:
    """The same images with ``count`` of the training images, drawn at random, in place of the test images."""
    order = np.random.default_rng(0).permutation(len(data.train))
    rest, chosen = data.train.subset(np.sort(order[count:])), data.train.subset(np.sort(order[:count]))
    return dataclasses.replace(data, pretrain=rest, train=rest, test=chosen)


class Minutes:
    """Processor minutes beside the training log, over all starts of a training."""

    def __init__(self, training: Training, file: Path):
        self.training, self.file, self.total = training, file, 0.0
        self._rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
        self._last = time.process_time()
        training.journal.others.append(self)
        if training.knn is not None:
            training.knn = _LeftOut(training.knn, self)  # type: ignore[assignment]

    def __call__(self, entry: Mapping[str, Any]) -> None:
        if not self.total:  # a checkpoint may be older than the last rows
            self.total = max((row["minutes"] for row in self._rows if row["step"] < entry["step"]), default=0.0)
            self._rows = [row for row in self._rows if row["step"] < entry["step"]]
            self.file.write_text("".join(json.dumps(row) + "\n" for row in self._rows))
        self.lap()
        row = {"step": entry["step"], "epoch": entry["epoch"], "minutes": self.total, "knn_top1": entry.get("knn_top1")}
        self._rows.append(row)
        with self.file.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def lap(self, count: bool = True) -> None:
        now = time.process_time()
        self.total += (now - self._last) / 60 if count else 0.0
        self._last = now

    def curve(self) -> list[tuple[float, float, float]]:
        """(minutes, epochs, k-NN) where there is one."""
        return [(row["minutes"], row["epoch"], row["knn_top1"]) for row in self._rows if row["knn_top1"] is not None]


class _LeftOut:
    """k-NN whose time does not count."""

    def __init__(self, knn: Any, minutes: Minutes):
        self.knn, self.minutes = knn, minutes

    def top1(self, backbone: nn.Module) -> float:
        self.minutes.lap()
        found: float = self.knn.top1(backbone)
        self.minutes.lap(count=False)
        return found


if __name__ == "__main__":
    main()
