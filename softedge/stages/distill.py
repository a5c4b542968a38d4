"""``softedge distill``: a teacher's soft labels train the network that is deployed, on all training images."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from softedge import backbones
from softedge.backbones import Classifier
from softedge.config import Recipe
from softedge.data.images import Data, Images
from softedge.eval.distillation import teach
from softedge.eval.features import extract
from softedge.eval.finetune import fresh, measured, thinned
from softedge.eval.knn import top1
from softedge.progress import plural, say
from softedge.records import Outcome, Result
from softedge.run import Run
from softedge.stages import classifier, following, spreading, teachers
from softedge.stages.base import BACKBONE, INDEX, Stage, need_labels, network, on_run
from softedge.stages.opening import replaced

_CHECKPOINT = "checkpoint.pt"


def distill(
    run: str | PathLike[str],
    teacher: str | None = None,
    backbone: str | None = None,
    size: int | None = None,
    set: Sequence[str] = (),
    force: bool = False,
) -> Result:
    """Teach a network with soft labels of all training images and write ``distill/classifier.safetensors``.

    teacher: "auto", "best", "probe", "finetune", "spread", "ensemble", a run, a classifier file or a timm network.
    backbone, size: the network that learns and its pixels; by default those of the run.
    Metrics: top1, top5 (more than 5 classes), val_top1 and teacher_top1 on n_val validation images, n_train,
    n_unlabelled, n_test, steps, loss (mean of the last tenth).  Where labels are few, val_top1 is teacher_top1,
    cross-validated over the labelled images, and agreement, linear_agreement and kept say whether the network follows
    its teacher.
    """
    return on_run(stage, run, set, force, distill={"teacher": teacher, "backbone": backbone, "size": size})


def stage(run: Run, recipe: Recipe, data: Data, force: bool = False) -> Result:
    """The stage with what "auto" and "best" mean now in its settings."""
    need_labels(run, data, "to learn classes from")
    run.need("pretrain", "pretrain")
    named = teachers.resolve(run, recipe, data)
    teachers.refuse_unknown(named)
    over = spreading.networks(recipe) if named in teachers.SPREADING else recipe.distill.spread_over
    return _stage(run, replaced(recipe, distill={"teacher": named, "spread_over": over}), data, force)


def unseen(result: Result, data: Data) -> Images | None:
    """The validation part, on which the student was not trained; None where labels are too few for one."""
    held = teachers.parts(data, result.recipe["seed"]).validation
    return data.pretrain.subset(held) if len(held) else None


def _work(run: Run, recipe: Recipe, data: Data, folder: Path) -> Outcome:
    settings, parts = recipe.distill, teachers.parts(data, recipe.seed)
    images = parts.images
    say(
        f"distill: {settings.teacher} teaches with {plural(len(images), 'image')}, {parts.n_labelled} of them "
        f"labelled; {plural(len(data.test), 'test image')}"
    )
    taught = teachers.make(run, recipe, parts)
    backbone, spec = teachers.student(run, recipe, data)
    student = fresh(backbone, data.classes, spec, recipe.seed)
    losses = teach(student, images, taught.teacher, recipe, checkpoint=folder / _CHECKPOINT, show=True)
    backbones.save(folder / "classifier.safetensors", student, spec, teacher=settings.teacher)
    metrics: dict[str, Any] = {}
    details: dict[str, Any] = {"teacher": settings.teacher, "losses": thinned(losses), "classes": list(data.classes)}
    if taught.top1 is not None:
        metrics["teacher_top1"] = metrics["val_top1"] = taught.top1
        metrics["n_val"] = len(parts.validation) or parts.n_labelled
    if len(parts.validation):
        validated = data.pretrain.subset(parts.validation)
        metrics["val_top1"] = top1(extract(student, validated, spec), validated.labels)
    elif taught.answers is not None:
        details |= {"validated": classifier.BY_TEACHER} if taught.top1 is not None else {}
        metrics |= _followed(run, taught, parts, student, recipe.seed)
    metrics |= {
        "n_train": parts.n_labelled,
        "n_unlabelled": len(images) - parts.n_labelled,
        **measured(folder, student, data, losses),
    }
    (folder / _CHECKPOINT).unlink(missing_ok=True)
    if settings.backbone:
        details["network"] = {"name": backbone.settings.name, "weights": backbone.settings.weights}
    return Outcome(metrics, details | taught.details)


def _followed(
    run: Run, taught: teachers.Taught, parts: teachers.Parts, student: Classifier, seed: int
) -> dict[str, Any]:
    """Where labels are few the student cannot be validated itself: it must follow its teacher, which was."""
    if not len(parts.unseen):
        return {}
    unseen = parts.data.pretrain.subset(parts.unseen)
    answers, plain = extract(student, unseen, student.spec).argmax(1), following.plainly(run, parts, seed)
    scores = following.follows(taught, parts, answers, plain, seed)
    if scores is None:
        return {}
    if scores.clearly_below:
        say(
            f"distill: the network answers as its teacher for {scores.student:.3f} of the images held out, a linear "
            f"layer on the labels alone for {scores.linear:.3f}; it is not deployed. Train longer: "
            "--set distill.epochs=..."
        )
    return {
        "agreement": scores.student,
        "linear_agreement": scores.linear,
        "kept": not scores.clearly_below,
    }


_stage = Stage(
    "distill",
    settings=lambda recipe: {
        **recipe.section("seed", "distill"),
        "flip": recipe.augment.flip,
        "backbone": network(recipe),
        "weight_decays": list(recipe.probe.weight_decays),
    },
    reads=lambda run, recipe: (INDEX, BACKBONE, *teachers.files(run, recipe)),
    work=_work,
    resumable=True,
    needs=("pretrain", "train", "test"),
)
