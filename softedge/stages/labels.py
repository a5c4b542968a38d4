"""``softedge labels``: accuracy by number of labels, with and without pretraining, and what it was worth."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from softedge.config import Recipe
from softedge.data.images import Data
from softedge.errors import UserError
from softedge.eval.labels import measure, name_of
from softedge.export.base import open_format
from softedge.records import Outcome, Result
from softedge.run import Run
from softedge.stages.base import INDEX, Stage, network, on_run, start_files


def labels(run: str | PathLike[str], set: Sequence[str] = (), force: bool = False) -> Result:
    """Accuracy by number of labels, with and without pretraining, and a sentence that says what it was worth."""
    return on_run(stage, run, set, force)


def _starts(recipe: Recipe) -> list[str]:
    return ["random", "ssl", *recipe.labels.given]


def _settings(recipe: Recipe) -> dict[str, Any]:
    section = {**recipe.section("seed", "finetune", "probe", "labels"), "flip": recipe.augment.flip}
    section["backbone"] = network(recipe)
    section["finetune"] = {k: v for k, v in section["finetune"].items() if k not in ("init", "labels")}
    if recipe.labels.int8:
        section["calibration_images"] = recipe.export.calibration_images
    return section


def _ready(run: Run, recipe: Recipe, data: Data) -> None:
    if recipe.labels.int8:
        open_format(recipe.labels.int8)  # a mistyped name shows now
    starts = _starts(recipe)
    if len({name_of(start) for start in starts}) < len(starts):
        raise UserError(f"labels.given: two weights of the same name in {', '.join(recipe.labels.given)}; rename one")
    if not len(data.train.every) or not len(data.test.every):
        raise UserError(f"{run.root} needs labelled training and test images to say what pretraining is worth")


def _work(run: Run, recipe: Recipe, data: Data, folder: Path) -> Outcome:
    return measure(run, recipe, data, _starts(recipe), folder)


stage = Stage(
    "labels",
    settings=_settings,
    reads=lambda run, recipe: (INDEX, *start_files(_starts(recipe))),
    after=("pretrain",),
    ready=_ready,
    work=_work,
    resumable=True,
)
