"""``softedge scratch``: the labels alone, what the run's classifier has to be better than."""

from __future__ import annotations

import math
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softedge.config import Recipe
from softedge.data.images import Data
from softedge.errors import UserError
from softedge.eval.bootstrap import paired
from softedge.files import read_arrays
from softedge.progress import say
from softedge.records import Outcome, Result
from softedge.run import Run, sha256_of
from softedge.stages import classifier, finetune
from softedge.stages.base import INDEX, Stage, hashes, on_run
from softedge.stages.opening import replaced
from softedge.stages.plan import views

NAME = "scratch"


def scratch(run: str | PathLike[str], set: Sequence[str] = (), force: bool = False) -> Result:
    """Train the run's network from random weights on its labels, with as many images as pretraining and fine-tuning
    had together, and compare; write ``scratch/classifier.safetensors``.

    Metrics: epochs, top1, top5 (more than 5 classes), val_top1, n_val, n_train, n_test, steps, loss (mean of the last
    tenth); beside a classifier of the run: other_top1, gain (other_top1 - top1), gain_low, gain_high (95 % interval).
    """
    return on_run(stage, run, set, force)


def alone(recipe: Recipe, data: Data) -> Recipe:
    """The recipe of the training on labels alone: as many images through the network as the whole of ``recipe``.

    Every view that pretraining takes of an image counts by its share of the pixels; images are what time follows, and
    they are the same everywhere, so that the comparison does not depend on the machine.
    """
    pixels = sum((view.size / recipe.data.size) ** 2 for view in views(recipe))
    labelled = max(1, round(recipe.finetune.labels * len(data.train.every)))
    pretraining = recipe.ssl.epochs * pixels * len(data.pretrain.every) / labelled
    epochs = recipe.finetune.epochs + math.ceil(pretraining)
    return replaced(recipe, finetune={"init": "random", "epochs": epochs})


def _ready(run: Run, recipe: Recipe, data: Data) -> None:
    """UserError without labels, or where the comparison would be with a longer or shorter fine-tuning."""
    finetune.labelled(run, recipe, data)
    done = run.result("finetune")
    epochs = recipe.finetune.epochs if done is None else done.recipe["finetune"]["epochs"]
    if epochs != recipe.finetune.epochs:
        raise UserError(
            f"{run.root} was fine-tuned for {epochs} epochs, asked are {recipe.finetune.epochs}: the comparison needs "
            f"equal epochs; use --set finetune.epochs={epochs}"
        )


def _work(run: Run, recipe: Recipe, data: Data, folder: Path) -> Outcome:
    longer = alone(recipe, data)
    say(f"scratch: the labels alone, {longer.finetune.epochs} epochs from random weights")
    outcome = finetune.work(run, longer, data, folder)
    details, metrics = dict(outcome.details), {"epochs": longer.finetune.epochs, **outcome.metrics}
    others = {name: result for name, result in classifier.trained(run).items() if name != NAME}
    if not others:
        return Outcome(metrics, details)
    other = classifier.best_of(others)
    theirs, ours = _both(_right(run, other), _right(run, NAME))
    gain = paired(theirs, ours, recipe.seed)
    metrics |= {"other_top1": float(theirs.mean()), **gain.metrics()}
    details |= {"compared": other, "compared_with": hashes(run, [f"{other}/result.json"])}
    say(
        f"scratch: the labels alone get {metrics['top1']:.3f} right, the {other} classifier "
        f"{metrics['other_top1']:.3f}: {gain}"
    )
    return Outcome(metrics, details)


def _both(a: dict[int, bool], b: dict[int, bool]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The answers of two classifiers to the test images that both were asked: some may have been set aside between."""
    rows = sorted(a.keys() & b.keys())
    return np.array([a[row] for row in rows], bool), np.array([b[row] for row in rows], bool)


def _right(run: Run, stage: str) -> dict[int, bool]:
    """Test image -> whether the classifier that a stage left answered it right, by the answers that it left, too."""
    answers = f"{stage}/features.npz"
    sha256_of(run, answers)
    arrays = read_arrays(run.root / answers)
    right = arrays["test_predictions"] == arrays["test_labels"]
    rows = arrays.get("test_rows", np.arange(len(right)))  # earlier versions had the answers to all of them
    return dict(zip(rows.tolist(), right.tolist(), strict=True))


stage = Stage(
    NAME,
    settings=lambda recipe: {
        **finetune.settings(recipe),
        "pretraining": {"epochs": recipe.ssl.epochs, "method": recipe.ssl.method},
    },
    reads=lambda run, recipe: (INDEX,),
    after=("pretrain",),
    ready=_ready,
    work=_work,
    resumable=True,
)
