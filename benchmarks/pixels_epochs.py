"""Pixels against epochs at equal cost: fine-tuning from starting weights, judged on parts of the training photos.

    python benchmarks/pixels_epochs.py trashnet/ --plans 96x13 128x7 --folds 0 1

The test photos are not touched.  Prints a line of JSON for each training: accuracy and processor seconds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from softedge import backbones, config
from softedge.eval.features import extract
from softedge.eval.finetune import train
from softedge.run import Run
from softedge.stages.data import opened
from softedge.stages.opening import replaced
from softedge.weights import starting

PARTS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--plans", nargs="+", default=["96x13", "128x7"], help="PIXELSxEPOCHS")
    parser.add_argument("--folds", type=int, nargs="+", default=[0], choices=range(PARTS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    for fold in given.folds:
        for plan in given.plans:
            size, epochs = map(int, plan.split("x"))
            row = {"fold": fold, "size": size, "epochs": epochs, **measured(given.data, size, epochs, fold)}
            print(json.dumps(row), flush=True)


def measured(folder: Path, size: int, epochs: int, fold: int) -> dict[str, float]:
    values = [f"data.size={size}", f"finetune.epochs={epochs}", "finetune.min_steps=1", "data.workers=0"]
    recipe = config.load("photos", [f"data.source={folder.resolve()}", *values])
    recipe = replaced(recipe, backbone={"weights": starting.resolve(recipe.backbone).weights})
    with tempfile.TemporaryDirectory() as root:
        data = opened(Run(root), recipe)
        order = np.random.default_rng(7).permutation(len(data.train))
        held = np.sort(order[fold::PARTS])
        backbone = backbones.build(recipe.backbone, seed=recipe.seed)
        begun = time.process_time()
        rest = data.train.subset(np.setdiff1d(np.arange(len(data.train)), held))
        classifier, _ = train(backbone, data, rest, recipe, seed=fold)
        seconds = time.process_time() - begun
        images = data.train.subset(held)
        right = extract(classifier, images, data.spec).argmax(1) == images.labels
    return {"n": len(held), "top1": float(right.mean()), "seconds": seconds}


if __name__ == "__main__":
    main()
