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
from numpy.typing import NDArray

from softedge import backbones, config
from softedge.data.images import Images
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


def recipe_of(folder: Path, size: int, epochs: int) -> config.Recipe:
    """Fine-tuning for whole epochs from the best starting weights."""
    values = [f"data.size={size}", f"finetune.epochs={epochs}", "finetune.min_steps=1", "data.workers=0"]
    recipe = config.load("photos", [f"data.source={folder.resolve()}", *values])
    return replaced(recipe, backbone={"weights": starting.resolve(recipe.backbone).weights})


def parts_of(images: Images) -> list[NDArray[np.int64]]:
    """``PARTS`` parts of the images by chance, the same for every script."""
    order = np.random.default_rng(7).permutation(len(images))
    return [np.sort(order[part::PARTS]) for part in range(PARTS)]


def measured(folder: Path, size: int, epochs: int, fold: int) -> dict[str, float]:
    recipe = recipe_of(folder, size, epochs)
    with tempfile.TemporaryDirectory() as root:
        data = opened(Run(root), recipe)
        held = parts_of(data.train)[fold]
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
