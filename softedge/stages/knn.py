"""``softedge knn``: weighted k-NN accuracy of the pretrained features on the test images."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from softedge import backbones
from softedge.config import Recipe
from softedge.data.images import Data
from softedge.errors import UserError, did_you_mean
from softedge.eval.features import extract
from softedge.eval.knn import PRESETS, knn_predict, top1
from softedge.records import Outcome, Result
from softedge.run import Run
from softedge.stages.base import BACKBONE, INDEX, Stage, on_run


def knn(
    run: str | PathLike[str],
    k: int | None = None,
    temperature: float | None = None,
    preset: str | None = None,
    force: bool = False,
) -> Result:
    """Weighted k-NN accuracy of the pretrained features; ``preset`` gives a paper's k and temperature."""
    if preset is not None and preset not in PRESETS:
        raise UserError(f"unknown k-NN preset '{preset}'{did_you_mean(preset, tuple(PRESETS))}")
    values = dict(PRESETS[preset]) if preset is not None else {}
    given = {"k": k, "temperature": temperature}
    return on_run(stage, run, force=force, knn=values | {key: v for key, v in given.items() if v is not None})


def _labelled(run: Run, recipe: Recipe, data: Data) -> None:
    if not len(data.train.every):
        raise UserError(f"{run.root} has no labelled images for k-NN; add class folders to the data")


def _work(run: Run, recipe: Recipe, data: Data, folder: Path) -> Outcome:
    backbone = backbones.load(run.root / BACKBONE)
    train, test = (extract(backbone, images, data.spec) for images in (data.train, data.test))
    votes = knn_predict(train, data.train.labels, test, len(data.classes), recipe.knn.k, recipe.knn.temperature)
    return Outcome({"knn_top1": top1(votes, data.test.labels), "n_train": len(train), "n_test": len(test)})


stage = Stage(
    "knn",
    settings=lambda recipe: recipe.section("knn"),
    reads=lambda run, recipe: (INDEX, BACKBONE),
    after=("pretrain",),
    ready=_labelled,
    work=_work,
)
