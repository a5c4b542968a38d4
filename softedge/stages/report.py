"""``softedge report``: report.html, report.json and MODEL_CARD.md from what the stages have left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from softedge.stages.opening import reopen


def report(*runs: str | Path) -> Path:
    """Write report.html, report.json and MODEL_CARD.md of the first run; further runs stand beside it."""
    from softedge.report import report as write

    return write([reopen(run)[0] for run in runs])


def compare(runs: Sequence[str | Path]) -> str:
    """What changed between two runs, as text."""
    from softedge.report import compare_folders

    return compare_folders([Path(run) for run in runs])
