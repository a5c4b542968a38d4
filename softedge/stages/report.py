"""``softedge report``: report.html, report.json and MODEL_CARD.md from what the stages have left."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from softedge.errors import UserError, quoted
from softedge.progress import say
from softedge.stages import damage, incomplete
from softedge.stages.opening import reopen


def report(*runs: str | PathLike[str]) -> Path:
    """Write report.html, report.json and MODEL_CARD.md of the first run; further runs stand beside it.

    UserError, after they are written, when something of the runs is damaged: the report is not whole then.
    """
    from softedge.report import report as write
    from softedge.report.unreliable import because

    recipes = [reopen(run) for run in runs]
    opened = [run for run, _ in recipes]
    damaged = [damage.problems(run) for run in opened]
    page = write(opened, damaged=damaged)
    if len(opened) > 1:
        several = ", ".join(run.name for run in opened)
        say(
            f"{page} now shows {several} side by side; of {opened[0].name} alone: "
            f"softedge report {quoted(opened[0].root)}"
        )
    for run, recipe in recipes:
        if not run.in_use():  # else somebody is at it
            for line in (*incomplete.stages(run), *(f"{n} {why}" for n, why in incomplete.files(run, recipe).items())):
                say(f"caution: {line}")
    if lines := [line for of_run in damaged for line in of_run]:
        raise UserError(f"{page} is written, and {because(lines)}")
    return page


def compare(runs: Sequence[str | Path]) -> str:
    """What changed between two runs, as text."""
    from softedge.report import compare_folders

    return compare_folders([Path(run) for run in runs])
