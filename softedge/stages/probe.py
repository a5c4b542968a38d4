"""``softedge probe``: how good the frozen features are; writes the classifier that is exported."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from softedge.config import Recipe
from softedge.data.images import Data
from softedge.errors import UserError, quoted
from softedge.eval import probe as probing
from softedge.records import Outcome, Result
from softedge.run import Run
from softedge.stages.base import BACKBONE, INDEX, Stage, on_run


def probe(
    run: str | PathLike[str], labels: float | None = None, set: Sequence[str] = (), force: bool = False
) -> Result:
    """k-NN and linear accuracy of the frozen features; writes the classifier that is exported.

    labels: fraction of the training labels to use.
    """
    return on_run(stage, run, set, force, probe={"labels": labels})


def _labelled(run: Run, recipe: Recipe, data: Data) -> None:
    if not len(data.train.every):
        raise UserError(
            f"{run.root} has no labelled images to probe with; add class folders, or export features: "
            f"softedge export {quoted(run.root)} --output features"
        )


def _work(run: Run, recipe: Recipe, data: Data, folder: Path) -> Outcome:
    return probing.probe(folder, recipe, data, run.root / BACKBONE)


stage = Stage(
    "probe",
    settings=lambda recipe: recipe.section("seed", "knn", "probe"),
    reads=lambda run, recipe: (INDEX, BACKBONE),
    after=("pretrain",),
    ready=_labelled,
    work=_work,
)
