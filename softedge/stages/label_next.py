"""``softedge label-next``: which unlabelled images to label next, in an order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from softedge.config import Recipe
from softedge.data.images import Data
from softedge.errors import UserError, whole
from softedge.eval import active_learning
from softedge.files import csv_table, read_table
from softedge.progress import plural, say
from softedge.records import Outcome, Result
from softedge.run import Run, perform, write_text
from softedge.stages import features
from softedge.stages.base import INDEX, hashes
from softedge.stages.reviewed import opened_for_review, say_what_follows

NAME = "label_next"
FILE = "label_next.csv"
_SHOWN = 20  # in the result


@dataclass(frozen=True)
class Next:
    """Image to label.  why: a key of ``active_learning.REASONS``.  suggested: its class by the labels so far, or ""."""

    rank: int
    name: str
    why: str
    suggested: str


def label_next(
    source: str | PathLike[str],
    number: int = 50,
    out: str | Path | None = None,
    set: Sequence[str] = (),
    force: bool = False,
) -> Result:
    """The next ``number`` images to label of a run or a folder; writes ``label_next/label_next.csv`` into the run.

    out: the run that is made of a folder.  ``details["images"]`` of the result has the first ones.
    """
    number = whole("--number", number, why=": how many images you want to label, such as 50")
    with opened_for_review(source, out, set, _unlabelled) as (run, recipe, data):
        result = stage(run, recipe, data, force, number)
        say_what_follows(data, run.root / NAME / FILE)
        return result


def _unlabelled(data: Data) -> None:
    if len(data.pretrain) == len(data.train):
        raise UserError(f"every training image of {data.source} has a label; put images without one into unlabeled/")


def stage(run: Run, recipe: Recipe, data: Data, force: bool = False, number: int = 50) -> Result:
    """As every stage: a list of another length is refused without ``force``, new labels make a new one."""
    _unlabelled(data)
    extracted = features.stage(run, recipe, data)

    def work(folder: Path) -> Outcome:
        labels = np.asarray(data.pretrain.labels)
        order, why, guesses = active_learning.order(extracted.pretrain, labels, len(data.classes), number, recipe.seed)
        chosen = [
            Next(rank, data.pretrain.names[row], why, data.classes[guess] if guess >= 0 else "")
            for rank, (row, guess) in enumerate(zip(order.tolist(), guesses.tolist(), strict=True), start=1)
        ]
        write_text(folder / FILE, table(chosen))
        images = plural(len(chosen), "image")
        say(f"label next: {images}, {active_learning.REASONS[why]}; all in {run.root / NAME / FILE}")
        metrics: dict[str, float | int | bool] = {
            "n_next": len(chosen),
            "n_unlabelled": int((labels < 0).sum()),
            "n_labelled": int((labels >= 0).sum()),
        }
        shown = [asdict(one) for one in chosen[:_SHOWN]]
        return Outcome(metrics, {"features": extracted.origin, "reason": active_learning.REASONS[why], "images": shown})

    values = {**recipe.section("seed"), "number": number}
    inputs = hashes(run, [INDEX, features.FILE])
    return perform(run, NAME, work, recipe=values, inputs=inputs, force=force, renew=True)


def table(images: Sequence[Next]) -> str:
    """CSV with a header, the first to label first."""
    return csv_table(Next, images)


def read(run: Run) -> list[dict[str, str]]:
    """The rows of ``label_next.csv``; empty where the stage was not run."""
    if run.result(NAME) is None:
        return []
    return read_table(run.folder(NAME) / FILE)
