"""What of a run was begun and not finished, and which of its exported files are gone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from softedge import previous
from softedge.config import Recipe
from softedge.errors import UserError, quoted
from softedge.records import SEARCHED
from softedge.run import Run
from softedge.stages.classifier import SOURCES


def files(run: Run, recipe: Recipe) -> dict[str, str]:
    """Exported file -> why it is not there and what to do, of those begun or there before.

    Nobody misses a file that the recipe asks for and that no command has made yet, of this classifier.
    """
    from softedge.stages.export import asked, file_names  # imports torch

    lines = {}
    for path in sorted(run.folder("export").glob(f"*/{previous.BEGUN}")):
        name = path.parent.name
        if not (path.parent / previous.RESULT).is_file():
            lines[name] = f"was not made: its export was interrupted; run: {_command(run, name)}"
    for name in file_names(asked(recipe)):
        if not run.folder(f"export/{name}").is_dir() and _was_there(run, name):
            lines[name] = f"is missing; bring it back, or make it again: {_command(run, name)}"
    return lines


def stages(run: Run) -> Iterator[str]:
    """A line for each interrupted training."""
    for name in ("pretrain", *SOURCES):
        if line := run.interrupted(name, name):
            yield line


def _command(run: Run, name: str) -> str:
    return f"softedge {'quantize' if name.endswith(SEARCHED) else 'export'} {quoted(run.root)}"


def _was_there(run: Run, name: str) -> bool:
    """Whether another stage knows a file of that name, or an earlier version of it is kept; not of one that an export
    of another classifier has set aside.
    """
    if previous.is_retired(run.root, f"export/{name}"):
        return False
    known = (run.folder("quantize") / name / previous.RESULT).is_file() or previous.is_kept(run.root, f"export/{name}")
    if known or any(run.folder("bench").glob(f"{name}@*/{previous.RESULT}")):
        return True
    with contextlib.suppress(UserError):  # damaged: who reads it says so
        checked = run.result("check")
        if checked is not None:
            return name in [*checked.skipped, *(row["artifact"] for row in checked.details.get("rows", []))]
    return False
