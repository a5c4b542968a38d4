"""The gates that need the results of several stages, judged anew by every command that asks.

``softedge check`` compares with PyTorch, ``softedge bench`` measures latency. Whether a file is fast enough is decided
from both, whichever of them was run last.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from softedge import registry
from softedge.config import Check
from softedge.errors import GateFailed
from softedge.quantize import gates
from softedge.records import Result
from softedge.run import Run
from softedge.stages.opening import reopen


def gate(run: str | Path | Run, max_p90: float | None = None) -> None:
    """GateFailed when a file of the run is refused, naming each and the reason.

    max_p90: milliseconds that an int8 file may take on every device that it was timed on; None: the recipe's.
    """
    root = run.root if isinstance(run, Run) else run
    if plugin := registry.owner(root):
        plugin.gate(run=root)
        return
    opened, recipe = reopen(root)
    checked = opened.result("check")
    if checked is None:
        return
    limits = recipe.check if max_p90 is None else recipe.check.model_copy(update={"max_p90": max_p90})
    failed = with_latency(checked, opened, limits).details.get("failed", [])
    if failed:
        raise GateFailed("; ".join(failed))


def with_latency(checked: Result, run: Run, limits: Check) -> Result:
    """The result of ``softedge check`` with the files that are too slow among those that failed.

    skipped: int8 files that were not timed yet, when there is a limit.  A file that a better one stands in for is not
    judged.
    """
    if not limits.max_p90:
        return checked
    rows, failed, skipped = [], list(checked.details.get("failed", [])), dict(checked.skipped)
    for row in checked.details.get("rows", []):
        slow, unknown = gates.latency(run, row, limits)
        if unknown:
            skipped[f"max_p90 {row['artifact']}"] = unknown
        if slow and "superseded_by" not in row:
            before = [line for line in failed if not line.startswith(f"{row['artifact']}: ")]
            row = {**row, "passed": False, "why": "; ".join(filter(None, [row.get("why"), *slow]))}
            failed = [*before, f"{row['artifact']}: {row['why']}"]
        rows.append(row)
    metrics = {
        **checked.metrics,
        "passed": bool(checked.metrics.get("passed")) and not failed,
        "files_passed": sum(row.get("passed") is True for row in rows),
        "files_failed": len(failed),
    }
    details = {**checked.details, "rows": rows, "failed": failed}
    return dataclasses.replace(checked, metrics=metrics, details=details, skipped=skipped)
