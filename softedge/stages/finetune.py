"""``softedge finetune``: train the whole network on the labels, from the SSL backbone, starting weights or scratch."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softedge import backbones
from softedge.backbones import Classifier
from softedge.config import Recipe
from softedge.data.images import Data, Images
from softedge.eval import validation
from softedge.eval.features import extract
from softedge.eval.finetune import initial, measured, thinned, train
from softedge.progress import plural, say
from softedge.records import Outcome, Result
from softedge.run import Run
from softedge.stages.base import INDEX, Stage, begun_from, hashes, need_labels, network, on_run, start_files
from softedge.stages.classifier import val_top1


def finetune(
    run: str | PathLike[str],
    init: str | None = None,
    labels: float | None = None,
    set: Sequence[str] = (),
    force: bool = False,
) -> Result:
    """Fine-tune and write ``finetune/classifier.safetensors``, which ``export.source = "finetune"`` deploys.

    init: "ssl", "random", "imagenet" or a weights file.  labels: fraction of the training labels to use.
    Metrics: top1, top5 (more than 5 classes), val_top1 on the n_val validation images (where there are
    enough), n_train, n_test, steps, loss (mean of the last tenth), and probe_top1 where the frozen features were probed
    on as many labels.  A network whose val_top1 is below the probe's was trained too little, and a line says so.
    """
    return on_run(stage, run, set, force, finetune={"init": init, "labels": labels})


def _divided(data: Data, share: float, seed: int) -> tuple[NDArray[np.int64], Images, list[NDArray[np.bool_]]]:
    """Of the training images whose labels are used: the rows, the images, and what is held out of them in turn."""
    keep, parts = validation.divided(data.train, share, seed, validation.TRAINED_FOLDS)
    return keep, data.train.subset(keep), parts


def unseen(result: Result, data: Data) -> Images | None:
    """The validation part, on which the network that ``result`` left was not trained; None where folds judged it."""
    _, labelled, parts = _divided(data, result.recipe["finetune"]["labels"], result.recipe["seed"])
    return labelled.subset(np.flatnonzero(parts[0])) if len(parts) == 1 else None


def labelled(run: Run, recipe: Recipe, data: Data) -> None:
    need_labels(run, data, "to fine-tune on")


def work(run: Run, recipe: Recipe, data: Data, folder: Path) -> Outcome:
    """Train as ``recipe.finetune`` says and measure; writes classifier.safetensors into ``folder``."""
    settings = recipe.finetune
    keep, labelled, parts = _divided(data, settings.labels, recipe.seed)
    part = f"{parts[0].sum()} of them for validation" if len(parts) == 1 else f"validated in {len(parts)} folds"
    of_them = plural(len(keep), "labelled image") + (f", {part}" if parts else "")
    start = begun_from(run, recipe, settings.init)
    say(f"{folder.name}: from {start}, {of_them}, {plural(len(data.test), 'test image')}")

    trainings = len(parts) if len(parts) == 1 else len(parts) + 1
    checkpoints: list[Path] = []  # one for each training

    def trained(rows: NDArray[np.bool_]) -> tuple[Classifier, list[float]]:
        checkpoints.append(folder / f"checkpoint-{len(checkpoints)}.pt")
        backbone, images = initial(run, recipe, settings.init, recipe.seed), data.train.subset(keep[rows])
        part = f", training {len(checkpoints)} of {trainings}" if trainings > 1 else ""
        shown = f"{folder.name}{part}, step"
        return train(backbone, data, images, recipe, seed=recipe.seed, shown=shown, checkpoint=checkpoints[-1])

    right = 0
    for held in parts:
        classifier, losses = trained(~held)
        answers = extract(classifier, labelled.subset(np.flatnonzero(held)), data.spec).argmax(1)
        right += int((answers == labelled.labels[held]).sum())
    if len(parts) != 1:  # the folds have judged; all labels train the network that is kept
        classifier, losses = trained(np.ones(len(keep), bool))
    backbones.save(folder / "classifier.safetensors", classifier, data.spec, init=settings.init)
    metrics: dict[str, Any] = {}
    if parts:
        metrics["n_val"] = sum(int(held.sum()) for held in parts)
        metrics["val_top1"] = right / metrics["n_val"]
    metrics |= {**measured(folder, classifier, data, losses), "n_train": len(keep)}
    details: dict[str, Any] = {"init": settings.init, "losses": thinned(losses), "classes": list(data.classes)}
    details["validation_top1"] = metrics.get("val_top1")
    probed = run.result("probe")
    if probed is not None and settings.init == "ssl" and probed.metrics.get("n_train") == len(keep):
        metrics["probe_top1"] = probed.metrics["linear_top1"]
        # A comparison and no input: probing again must not ask for this training again.
        details["compared_with"] = hashes(run, ["probe/result.json"])
        validated = val_top1(probed)  # advice is a choice: the test images have no part in it
        if parts and validated is not None and metrics["val_top1"] < validated:
            say(
                f"finetune: validation accuracy {metrics['val_top1']:.3f} after {plural(len(losses), 'step')} is below "
                f"{validated:.3f} of a linear layer on frozen features; train longer (--set finetune.epochs=...) or "
                "deploy the probe"
            )
    for path in checkpoints:
        path.unlink(missing_ok=True)
    return Outcome(metrics, details)


def settings(recipe: Recipe) -> dict[str, Any]:
    """What a training on the labels depends on."""
    return {**recipe.section("seed", "finetune"), "flip": recipe.augment.flip, "backbone": network(recipe)}


stage = Stage(
    "finetune",
    settings=settings,
    reads=lambda run, recipe: (INDEX, *start_files([recipe.finetune.init])),
    after=lambda recipe: ("pretrain",) if recipe.finetune.init == "ssl" else (),
    ready=labelled,
    work=work,
    resumable=True,
)
