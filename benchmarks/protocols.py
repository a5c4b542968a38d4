"""The papers' linear protocols beside the fast probe, at their own number of epochs and at as many as their data had.

    python benchmarks/protocols.py RUN --views 20

A protocol that was made for 1.28 million images takes few and small steps on a small set. LARS moves a weight by at
most 0.001 x rate of its norm a step (tenfold with momentum), and the rate is 0.1 x batch / 256: how far the weights get
depends on images x epochs alone, whatever the batch. So each protocol runs twice: as written, and with the epochs that
give images x epochs of the set it was made for (SimSiam: ImageNet, 90 epochs; Ang: CIFAR-10, 100 epochs). The backbone
is frozen, so the features of --views augmented epochs are computed once and used in turn; they must fit into memory.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from softedge import backbones
from softedge import data as data_module
from softedge.backbones import normalise
from softedge.data.images import Data
from softedge.eval import linear
from softedge.eval.crops import Crops
from softedge.eval.features import extract
from softedge.eval.knn import top1
from softedge.eval.protocols import PROTOCOLS, evaluate, fit
from softedge.stages.opening import reopen

MADE_FOR = {"simsiam": ("ImageNet", 1_281_167), "ang-2022": ("CIFAR-10", 50_000)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--views", type=int, default=20, help="augmented epochs whose features are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    torch.set_num_threads(1)
    run, recipe = reopen(options.run)
    data = data_module.load(run)
    backbone = backbones.load(run.folder("pretrain") / "backbone.safetensors").eval()
    views = features(backbone, data, options.views, recipe.augment.flip)
    shape, labels = (backbone.num_features, len(data.classes)), data.test.labels
    test = extract(backbone, data.test, data.spec)
    whole = extract(backbone, data.train, data.spec)
    fitted = linear.fit(whole, data.train.labels, len(data.classes), recipe.probe.weight_decays, recipe.seed)
    print("| protocol | epochs | batch | steps | last loss | top-1, mean (range) |\n|---|---|---|---|---|---|")
    print(f"| cached probe | | | | | {100 * top1(fitted(test), labels):.1f} |", flush=True)
    for name, protocol in PROTOCOLS.items():
        batch = min(protocol.batch, len(data.train))
        of, images = MADE_FOR[name]
        for epochs in (protocol.epochs, round(protocol.epochs * images / len(data.train))):
            scores: list[float] = []
            losses: list[float] = []
            for seed in options.seeds:
                head, losses = fit(protocol, Batches(views, batch, seed), shape, epochs, batch, seed)
                scores.append(100 * top1(evaluate(protocol, backbone, head, data.test, data.spec), labels))
            text = f"{epochs}" if epochs == protocol.epochs else f"{epochs} (images x epochs of {of})"
            spread = f"{np.mean(scores):.1f} ({min(scores):.1f} to {max(scores):.1f})"
            print(f"| {name} | {text} | {batch} | {len(losses)} | {np.mean(losses[-10:]):.3f} | {spread} |", flush=True)


def features(backbone: backbones.Backbone, data: Data, views: int, flip: float) -> list[tuple[Tensor, Tensor]]:
    """(N, features) of random crops and flips of every training image, and their labels (N,); one pair a view."""
    crops = Crops(data.train, data.spec, len(data.train), 0, min_area=0.08, flip=flip)
    found = []
    for view in range(views):
        pictures, labels = next(crops.epoch(view))
        with torch.no_grad():
            parts = [backbone(normalise(part, data.spec)) for part in pictures.split(256)]
        found.append((torch.cat(parts), labels))
    return found


class Batches:
    """Batches of an epoch from the kept features: one view of every image, in a new order, without the last part."""

    def __init__(self, views: list[tuple[Tensor, Tensor]], batch: int, seed: int):
        self.views, self.batch, self.seed = views, batch, seed

    def __call__(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        view, labels = self.views[epoch % len(self.views)]
        if self.batch == len(labels):
            yield view, labels
            return
        order = torch.from_numpy(np.random.default_rng([self.seed, epoch]).permutation(len(labels)))
        for start in range(0, len(order) - self.batch + 1, self.batch):
            chosen = order[start : start + self.batch]
            yield view[chosen], labels[chosen]


if __name__ == "__main__":
    main()
