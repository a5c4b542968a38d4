"""What of a run was begun and not finished, and which of its exported files are gone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from softedge import previous
from softedge.config import Recipe
from softedge.errors import UserError, quoted
from softedge.export import contract, listed
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
    own, made = file_names(asked(recipe)), listed.names(run)
    recorded = [path.parent.name for path in sorted(run.folder("export").glob(f"*/{previous.RESULT}"))]
    for name in dict.fromkeys([*own, *made, *recorded]):
        if name in lines or _is_there(run, name):
            continue
        if name in (*made, *recorded) or _was_there(run, name):
            lines[name] = f"is missing; bring it back, or make it again: {_command(run, name, name not in own)}"
            if name in made and name not in own:
                lines[name] += f"; to do without it, take it out of {listed.path(run)}"
    return lines


def stages(run: Run) -> Iterator[str]:
    """A line for each interrupted training."""
    for name in ("pretrain", *SOURCES):
        if line := run.interrupted(name, name):
            yield line


def _command(run: Run, name: str, added: bool = False) -> str:
    """What makes a file.  added: the recipe does not ask for it."""
    if name.endswith(SEARCHED):
        return f"softedge quantize {quoted(run.root)}"
    target, _, precision = name.partition("-")
    return f"softedge export {quoted(run.root)}{f' --targets {target} --precisions {precision}' if added else ''}"


def _is_there(run: Run, name: str) -> bool:
    """Also where a record says that none could be made, or is damaged: who reads it says so."""
    folder = run.folder(f"export/{name}")
    if (folder / contract.FILE).is_file():
        return True
    try:
        result = run.result(f"export/{name}")
    except UserError:
        return True
    return result is not None and "model" in result.skipped


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
