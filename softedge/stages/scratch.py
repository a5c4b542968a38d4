"""``softedge scratch``: the labels alone, what the run's classifier has to be better than."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softedge import backbones, registry
from softedge.config import Recipe
from softedge.data.images import Data, Images
from softedge.errors import UserError
from softedge.eval.bootstrap import paired
from softedge.eval.features import extract
from softedge.progress import say
from softedge.records import Outcome, Result
from softedge.run import Run
from softedge.stages import classifier, finetune
from softedge.stages.base import INDEX, Stage, hashes, network, on_run
from softedge.stages.opening import replaced

NAME = "scratch"


def scratch(run: str | Path, set: Sequence[str] = (), force: bool = False) -> Result:
    """Train the run's network from random weights on its labels, with as many images as pretraining and fine-tuning
    had together, and compare; write ``scratch/classifier.safetensors``.

    Metrics: epochs, top1, top5 (more than 5 classes), val_top1, n_train, n_test, steps, loss (mean of the last tenth);
    beside a classifier of the run: other_top1, gain (other_top1 - top1), gain_low, gain_high (95 % interval).
    """
    return on_run(stage, run, set, force)


def alone(recipe: Recipe, data: Data) -> Recipe:
    """The recipe of the training on labels alone: as many images through the network as the whole of ``recipe``.

    Every view that pretraining takes of an image counts by its share of the pixels; images are what time follows, and
    they are the same everywhere, so that the comparison does not depend on the machine.
    """
    views = registry.load(registry.METHODS, recipe.ssl.method, "method").views(recipe, recipe.data.size)
    pixels = sum((view.size / recipe.data.size) ** 2 for view in views)
    labelled = max(1, round(recipe.finetune.labels * len(data.train)))
    pretraining = recipe.ssl.epochs * pixels * len(data.pretrain) / labelled
    epochs = recipe.finetune.epochs + math.ceil(pretraining)
    return replaced(recipe, finetune={"init": "random", "epochs": epochs})


def unseen(result: Result, data: Data) -> Images | None:
    """As ``finetune.unseen``."""
    return finetune.unseen(result, data)


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
    compared = _compared(folder, run.folder(other), data.test, recipe.seed)
    details |= {"compared": other, "compared_with": hashes(run, [f"{other}/result.json"])}
    verdict = "clearly better" if compared["gain_low"] > 0 else "not clearly better"
    say(
        f"scratch: the labels alone get {metrics['top1']:.3f} right, the {other} classifier "
        f"{compared['other_top1']:.3f}: {verdict} "
        f"(95 % interval of the difference {compared['gain_low']:+.3f} to {compared['gain_high']:+.3f})"
    )
    return Outcome(metrics | compared, details)


def _compared(folder: Path, other: Path, test: Images, seed: int) -> dict[str, Any]:
    """The classifiers in two folders, on the same test images."""

    def right(path: Path) -> NDArray[np.bool_]:
        model = backbones.load_classifier(path / "classifier.safetensors")
        return np.asarray(extract(model, test, model.spec).argmax(1) == test.labels)

    theirs = right(other)
    gain = paired(theirs, right(folder), seed)
    return {
        "other_top1": float(theirs.mean()),
        "gain": gain.mean,
        "gain_low": gain.low,
        "gain_high": gain.high,
    }


stage = Stage(
    NAME,
    settings=lambda recipe: {
        **recipe.section("seed", "finetune"),
        "flip": recipe.augment.flip,
        "backbone": network(recipe),
        "pretraining": {"epochs": recipe.ssl.epochs, "method": recipe.ssl.method},
    },
    reads=lambda run, recipe: (INDEX,),
    after=("pretrain",),
    ready=_ready,
    work=_work,
    resumable=True,
)
