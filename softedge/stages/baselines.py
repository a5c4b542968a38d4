"""``softedge baselines``: what is cheap beside the run's classifier, and whether it is clearly better."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from softedge import backbones
from softedge.config import Recipe
from softedge.data.images import Data
from softedge.errors import UserError
from softedge.eval import baselines as cheap
from softedge.eval.bootstrap import paired
from softedge.eval.features import extract, softmax
from softedge.progress import say
from softedge.records import Outcome, Result
from softedge.run import Run, atomic_path
from softedge.stages import classifier
from softedge.stages.base import INDEX, Stage, on_run

PREDICTIONS = "predictions.npz"


def baselines(run: str | PathLike[str], set: Sequence[str] = (), force: bool = False) -> Result:
    """Majority class, SVMs on colour histogram and HOG, and the paired comparison with the classifier that is exported.

    Metrics: top1 (the classifier), cheap_top1 (of the rival), gain, gain_low, gain_high (95 % interval), useful (the
    interval is above zero), n_train, n_val, n_test.  The rival is the cheap classifier that did best on n_val held-out
    training images; of several that these cannot tell apart, the hardest to beat: "useful" is better than each of them.
    """
    return on_run(stage, run, set, force)


def _ready(run: Run, recipe: Recipe, data: Data) -> None:
    if not len(data.train.every) or not len(data.test.every):
        raise UserError(f"{run.root} needs labelled training and test images to compare with cheap classifiers")


def _reads(run: Run, recipe: Recipe) -> tuple[str, ...]:
    return (INDEX, f"{classifier.source(run, recipe)}/classifier.safetensors")


def _work(run: Run, recipe: Recipe, data: Data, folder: Path) -> Outcome:
    chosen = classifier.source(run, recipe)
    rng = np.random.default_rng(recipe.seed)
    asked = data.test.left(np.sort(rng.permutation(len(data.test.every))[: cheap.AT_MOST]))
    test = data.test.subset(asked)
    fitted = cheap.fit(data.train, test, recipe.seed)
    rivals = cheap.to_beat(fitted, recipe.seed)
    model = backbones.load_classifier(run.folder(chosen) / "classifier.safetensors")
    logits = extract(model, test, model.spec)
    answers, truth = logits.argmax(1), test.labels
    gains = [paired(answers == truth, rival.predictions == truth, recipe.seed) for rival in rivals]
    gain, rival = min(zip(gains, rivals), key=lambda one: (one[0].low, one[0].mean))
    n_val = 0 if rival.val_right is None else len(rival.val_right)
    with atomic_path(folder / PREDICTIONS) as temporary, open(temporary, "wb") as file:
        np.savez(
            file,
            indices=data.test.rows_of(asked),
            test_labels=truth,
            test_predictions=answers,
            test_probabilities=softmax(logits),
            cheap_predictions=np.stack([baseline.predictions for baseline in fitted]),
        )
    metrics: dict[str, Any] = {
        "top1": float((answers == truth).mean()),
        "cheap_top1": float((rival.predictions == truth).mean()),
        **gain.metrics(),
        "useful": gain.low > 0,
        "n_train": rival.n_train,
        "n_val": n_val,
        "n_test": len(test),
    }
    stages = classifier.trained(run).items()
    scores = {name: None if classifier.by_teacher(result) else classifier.val_top1(result) for name, result in stages}
    details: dict[str, Any] = {
        "classifier": chosen,
        "val_top1": scores,
        "rival": rival.name,
        "rivals": [one.name for one in rivals],
        "rows": [baseline.row(truth) for baseline in fitted],
        "classes": list(data.classes),
    }
    hardest = f", the hardest to beat of {len(rivals)} that held-out images cannot tell apart" if rivals[1:] else ""
    say(
        f"baselines: the {chosen} classifier gets {metrics['top1']:.3f} right, "
        f"{rival.name} {metrics['cheap_top1']:.3f}: {gain}{hardest}"
    )
    return Outcome(metrics, details)


stage = Stage(
    "baselines",
    settings=lambda recipe: recipe.section("seed"),
    reads=_reads,
    ready=_ready,
    work=_work,
    renew=True,
)
