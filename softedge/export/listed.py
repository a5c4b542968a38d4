"""``exported.json``: the files that exports have made, so that one which is gone is missed.

The recipe does not name those that ``softedge export RUN --targets ...`` adds.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from softedge.errors import UserError
from softedge.export import contract
from softedge.records import SEARCHED
from softedge.run import Run, read_json, write_json


def path(run: Run) -> Path:
    return run.root / "exported.json"


def names(run: Run) -> list[str]:
    """Those of all files that were made and not set aside, without those of the int8 search; never raises.

    Empty in a run of an earlier version.
    """
    try:
        listed = read_json(path(run)) if path(run).is_file() else []
    except UserError:
        return []
    return [str(name) for name in listed] if isinstance(listed, list) else []


def add(run: Run, name: str) -> None:
    """A file was made; others may be there from an earlier version."""
    there = [found.parent.name for found in run.folder("export").glob(f"*/{contract.FILE}")]
    _write(run, [*(names(run) or there), name])


def remove(run: Run, name: str) -> None:
    """A file was set aside."""
    _write(run, [other for other in names(run) if other != name])


def _write(run: Run, known: Iterable[str]) -> None:
    values = sorted({name for name in known if not name.endswith(SEARCHED)})
    if values != names(run):
        write_json(path(run), values)
