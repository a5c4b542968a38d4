"""Training on without labels from good weights, at a small equal cost: which settings make the features better.

    python benchmarks/continued.py trashnet/ --out runs/continued
    python benchmarks/continued.py trashnet/ --out runs/continued --rows start seed --folds 0 1 --finetune 7

EfficientNet-Lite0 starts from its ImageNet weights.  Trained on four fifths of the training photos, judged on the last
fifth by k-NN and a linear layer on frozen features, both fitted on the four fifths.  The test photos are not touched.
Prints a line of JSON for each row and fold, then each row against the start: all folds together, with the 95 %
interval of a paired bootstrap over photos.  ``rows.json`` in --out keeps what is done: it is not done again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pixels_epochs import PARTS, parts_of
from torch import nn

from softedge import backbones, config
from softedge.data.images import Data
from softedge.eval import linear
from softedge.eval.bootstrap import bits, from_bits, paired
from softedge.eval.features import extract
from softedge.eval.finetune import train
from softedge.eval.knn import knn_predict
from softedge.run import Run
from softedge.ssl.train import Training
from softedge.stages.data import opened
from softedge.stages.opening import replaced
from softedge.weights import starting

BATCH = 64


def statistics(net: nn.Module) -> None:
    """Keep BatchNorm's running statistics, and normalise with them while training."""
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()


def early(net: nn.Module) -> None:
    """Freeze the stem and the first three of seven stages, weights and statistics."""
    for part in (net.conv_stem, net.bn1, *net.blocks[:3]):  # type: ignore[misc, index]
        statistics(part.requires_grad_(False))


@dataclasses.dataclass(frozen=True)
class Row:
    """Settings of a training.  views: of an image that pass with a gradient.  frozen: see ``Bench.trained``."""

    values: tuple[str, ...]
    views: int
    frozen: Callable[[nn.Module], None] | None = None


def simco(rate: float, *values: str, frozen: Callable[[nn.Module], None] | None = None) -> Row:
    return Row(("ssl.method=simco", f"optim.lr={rate}", *values), 2, frozen)


def softnce(rate: float, frozen: Callable[[nn.Module], None] | None = None) -> Row:
    keys = "ema" if frozen else "auto"  # frozen statistics are for the keys as well
    values = ("ssl.projector=[1024, 128]", "ssl.queue=512", f"ssl.key_norm={keys}")
    return Row(("ssl.method=light-moco", f"optim.lr={rate}", *values), 2, frozen)


def words(rate: float, frozen: Callable[[nn.Module], None] | None = None) -> Row:
    return Row(("ssl.method=visual-words", f"optim.lr={rate}", "ssl.projector=[512]"), 1, frozen)


def seed(rate: float, frozen: Callable[[nn.Module], None] | None = None) -> Row:
    taught = ("ssl.teacher=package", "ssl.teacher_name=tf_efficientnet_lite2", "ssl.teacher_size=128")
    scale = ("ssl.queue=1024", "ssl.temperature=0.1", "ssl.teacher_temperature=0.1", "ssl.whitening=0.75")
    return Row(("ssl.method=seed", f"optim.lr={rate}", *taught, "ssl.projector=[]", *scale), 1, frozen)


ROWS = {
    "simco-0.003": simco(0.003),
    "simco-0.0003": simco(0.0003),
    "simco-0.00003": simco(0.00003),
    "simco-0.0003-one-temperature": simco(0.0003, "ssl.inter_temperature=0.1"),
    "simco-0.003-statistics": simco(0.003, frozen=statistics),
    "simco-0.0003-statistics": simco(0.0003, frozen=statistics),
    "simco-0.0003-early": simco(0.0003, frozen=early),
    "softnce-0.0003": softnce(0.0003),
    "softnce-0.0003-statistics": softnce(0.0003, statistics),
    "words-0.0003": words(0.0003),
    "words-0.0003-statistics": words(0.0003, statistics),
    "words-0.001-statistics": words(0.001, statistics),
    "seed-0.003": seed(0.003),
    "seed-0.0003": seed(0.0003),
    "seed-0.003-statistics": seed(0.003, statistics),
    "seed-0.0003-statistics": seed(0.0003, statistics),
}
UNTRAINED = ("start", "statistics")  # nothing; BatchNorm's statistics of the photos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder for rows.json and the weights")
    parser.add_argument("--rows", nargs="+", default=[*UNTRAINED, *ROWS], choices=[*UNTRAINED, *ROWS])
    parser.add_argument("--folds", type=int, nargs="+", default=[0], choices=range(PARTS))
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument(
        "--epochs", type=int, default=1, help="of two views; methods that train one view take twice as many"
    )
    parser.add_argument("--finetune", type=int, default=0, help="epochs of fine-tuning from each row besides")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    file = given.out / "rows.json"
    done: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.exists() else {}
    with tempfile.TemporaryDirectory() as root:
        recipe = base(given.data, given.size)
        data = opened(Run(root), recipe)
        for fold in given.folds:
            bench = Bench(data, recipe, fold, given.out)
            for row in dict.fromkeys(["start", *given.rows]):
                trained = f"{row} x{given.epochs}" if row in ROWS else row
                wanted = {trained: bench.judged}
                if given.finetune:
                    wanted[f"{trained} +{given.finetune}"] = bench.finetuned
                for name, measure in wanted.items():
                    key = f"{name} {fold}"
                    if key not in done:
                        done[key] = measure(name)
                        file.write_text(json.dumps(done, indent=1))
                    shown = {k: v for k, v in done[key].items() if not k.endswith("_right")}
                    print(json.dumps({"row": name, "fold": fold} | shown), flush=True)
    for line in against_start(done):
        print(json.dumps(line), flush=True)


def base(folder: Path, size: int) -> config.Recipe:
    """The recipe of all rows: that of a folder of photos, without colour jitter and with steps for a few epochs."""
    steps = [f"ssl.batch={BATCH}", "ssl.knn_every=0", "optim.warmup_epochs=0.5", "optim.precision=fp32"]
    views = [f"data.size={size}", "data.workers=0", "augment.jitter=0", "augment.grey=0"]
    recipe = config.load("photos", [f"data.source={folder.resolve()}", *views, *steps])
    return replaced(recipe, backbone={"weights": starting.resolve(recipe.backbone).weights})


class Bench:
    """One held-out fifth of the training photos, the other four to train on."""

    def __init__(self, data: Data, recipe: config.Recipe, fold: int, out: Path):
        held = parts_of(data.train)[fold]
        self.rest = data.train.subset(np.setdiff1d(np.arange(len(data.train)), held))
        self.held, self.data, self.recipe, self.fold, self.out = data.train.subset(held), data, recipe, fold, out

    def judged(self, name: str) -> dict[str, Any]:
        """name: the row and, after " x", its epochs."""
        begun = time.process_time()
        backbone = self.trained(name)
        seconds = time.process_time() - begun
        backbones.save(self.weights(name), backbone, self.data.spec)
        known, asked = (extract(backbone, images, self.data.spec) for images in (self.rest, self.held))
        classes, truth = len(self.data.classes), self.held.labels
        votes = knn_predict(known, self.rest.labels, asked, classes)
        layer = linear.fit(known, self.rest.labels, classes, self.recipe.probe.weight_decays)
        right = {"knn": votes.argmax(1) == truth, "linear": layer(asked).argmax(1) == truth}
        scores = {name: float(values.mean()) for name, values in right.items()}
        return {"n": len(truth), "seconds": seconds} | scores | {f"{n}_right": bits(v) for n, v in right.items()}

    def finetuned(self, name: str) -> dict[str, Any]:
        """name: that of ``judged`` and, after " +", the epochs of fine-tuning."""
        trained, _, epochs = name.partition(" +")
        recipe = replaced(self.recipe, finetune={"epochs": int(epochs), "min_steps": 1})
        begun = time.process_time()
        classifier, _ = train(
            backbones.load(self.weights(trained)).train(), self.data, self.rest, recipe, seed=self.fold
        )
        seconds = time.process_time() - begun
        right = extract(classifier, self.held, self.data.spec).argmax(1) == self.held.labels
        return {"n": len(right), "seconds": seconds, "top1": float(right.mean()), "top1_right": bits(right)}

    def weights(self, name: str) -> Path:
        return self.out / f"{name.replace(' ', '-')}-{self.fold}.safetensors"

    def trained(self, name: str) -> backbones.Backbone:
        row, _, epochs = name.partition(" x")
        if row not in ROWS:
            backbone = backbones.build(self.recipe.backbone, self.recipe.seed)
            return self.with_statistics(backbone) if row == "statistics" else backbone
        asked = ROWS[row]
        length = f"ssl.epochs={int(epochs) * 2 // asked.views}"
        recipe = config.build(self.recipe.model_dump(mode="json"), [*asked.values, length])
        data = dataclasses.replace(self.data, pretrain=self.rest, train=self.rest)
        with tempfile.TemporaryDirectory() as root:
            training = Training(Run(root), recipe, data, Path(root))
            if asked.frozen:  # the optimizer leaves weights alone that get no gradient
                asked.frozen(training.method.backbone.net)
            training.work()
            return backbones.load(Path(root) / "backbone.safetensors")

    @torch.no_grad()
    def with_statistics(self, backbone: backbones.Backbone) -> backbones.Backbone:
        """Mean and variance of each BatchNorm over batches of the photos as they are; no weight changes."""
        for layer in backbone.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.reset_running_stats()
                layer.momentum = None  # the mean over all batches
        order = np.random.default_rng(self.recipe.seed).permutation(len(self.rest))
        for rows in np.array_split(order, len(order) // BATCH):
            images = torch.from_numpy(self.rest.subset(rows).prepared(self.data.spec))
            backbone.train()(backbones.normalise(images, self.data.spec))
        return backbone.eval()


def against_start(done: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Each row and measure: the means, and the difference to the start on the photos of all folds that both have."""
    lines = []
    rows: dict[str, list[str]] = {}
    for key in done:
        row, _, fold = key.rpartition(" ")
        rows.setdefault(row, []).append(fold)
    for row, folds in rows.items():
        start = "start" if " +" not in row else "start +" + row.partition(" +")[2]
        both = [fold for fold in folds if fold in rows.get(start, [])]
        for name in ("knn", "linear", "top1"):
            if row == start or not both or name not in done[f"{row} {both[0]}"]:
                continue
            after, before = (
                np.concatenate([from_bits(done[f"{which} {fold}"][f"{name}_right"]) for fold in both])
                for which in (row, start)
            )
            means = {"start": float(before.mean()), "after": float(after.mean())}
            lines.append({"row": row, "measure": name, "n": len(after)} | means | paired(after, before).metrics())
    return [{k: round(v, 4) if isinstance(v, float) else v for k, v in line.items()} for line in lines]


if __name__ == "__main__":
    main()
