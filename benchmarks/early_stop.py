"""Does an early stop pay?  Fine-tuning asked after every epoch: the one that validation photos choose, and the last.

    python benchmarks/early_stop.py trashnet/ --out runs/stop --size 128 --epochs 18 --folds 0 1 2

Of the training photos one fifth chooses the epoch and another judges it; the other three are trained on, by the
settings of ``softedge finetune``.  The averaged weights are asked, which a stop would export; the test photos are not.
Prints a line of JSON for each fold, then both choices over all folds: their difference with the 95 % interval of a
paired bootstrap over photos.  ``rows.json`` in --out keeps what is done: it is not done again.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pixels_epochs import PARTS, parts_of, recipe_of

from softedge import backbones
from softedge.data.images import Data, Images
from softedge.eval import optimising
from softedge.eval.bootstrap import bits, from_bits, paired
from softedge.eval.features import extract
from softedge.eval.finetune import train
from softedge.run import Run
from softedge.stages.data import opened


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder for rows.json")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=18)
    parser.add_argument("--folds", type=int, nargs="+", default=[0], choices=range(PARTS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    file = given.out / "rows.json"
    done: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.exists() else {}
    rows = []
    for fold in given.folds:
        key = f"{given.size}x{given.epochs} {fold}"
        if key not in done:
            done[key] = watched(given.data, given.size, given.epochs, fold)
            file.write_text(json.dumps(done, indent=1))
        rows.append(done[key])
        print(json.dumps({"fold": fold} | {k: v for k, v in done[key].items() if not k.endswith("_right")}), flush=True)
    chosen, last = (np.concatenate([from_bits(row[f"{which}_right"]) for row in rows]) for which in ("chosen", "last"))
    means = {"n": len(last), "chosen": float(chosen.mean()), "last": float(last.mean())}
    print(json.dumps(means | paired(chosen, last).metrics()))


def watched(folder: Path, size: int, epochs: int, fold: int) -> dict[str, Any]:
    """One training: accuracies (epochs,) of the averaged weights on the photos that choose and on those that judge."""
    recipe = recipe_of(folder, size, epochs)
    with tempfile.TemporaryDirectory() as root:
        data = opened(Run(root), recipe)
        parts = parts_of(data.train)
        choosing, judging = parts[fold], parts[(fold + 1) % PARTS]
        rest = data.train.subset(np.setdiff1d(np.arange(len(data.train)), np.concatenate([choosing, judging])))
        answers: list[list[NDArray[np.bool_]]] = []

        class Watching(optimising.Average):
            """Asks after every epoch."""

            def update(self, model: torch.nn.Module) -> None:
                super().update(model)
                if self.steps % steps == 0:
                    asked = copy.deepcopy(model)
                    self.copy_to(asked)
                    asked.eval()
                    answers.append([right(asked, data, data.train.subset(part)) for part in (choosing, judging)])

        batch = recipe.finetune.batch
        steps = max(1, len(rest) // batch)
        plain, optimising.Average = optimising.Average, Watching  # type: ignore[misc]
        begun = time.process_time()
        try:
            train(backbones.build(recipe.backbone, seed=recipe.seed), data, rest, recipe, seed=fold)
        finally:
            optimising.Average = plain  # type: ignore[misc]
    choose, judge = (np.array([pair[place].mean() for pair in answers]) for place in (0, 1))
    best = len(choose) - 1 - int(choose[::-1].argmax())  # of equals the last
    return {
        "n": len(judging),
        "seconds": time.process_time() - begun,
        "choosing": choose.round(4).tolist(),
        "judging": judge.round(4).tolist(),
        "chosen_epoch": best + 1,
        "chosen": float(judge[best]),
        "last": float(judge[-1]),
        "chosen_right": bits(answers[best][1]),
        "last_right": bits(answers[-1][1]),
    }


def right(classifier: Any, data: Data, images: Images) -> NDArray[np.bool_]:
    """Which photos a classifier is right about, (M,)."""
    found: NDArray[np.bool_] = extract(classifier, images, data.spec).argmax(1) == images.labels
    return found


if __name__ == "__main__":
    main()
