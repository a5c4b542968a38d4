"""The verdicts of ``softedge check``: what the limits refuse of what was measured, also by limits that change later."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from softedge.config import Check, Recipe
from softedge.errors import UserError
from softedge.export import parity
from softedge.export.base import open_format
from softedge.export.tolerance import of
from softedge.progress import say
from softedge.quantize.gates import against, allowance, quality_on_test, size
from softedge.records import SEARCHED, Artifact
from softedge.run import Run, differences, write_json

LIMITS = ("max_drop", "min_agreement", "max_size", "against")  # settings that need no file to be run again
EARLIER = "check/result.json"  # the input of ``against``
_VERDICT = ("passed", "why", "allowed", "too_large", "contradicted", "superseded_by")


def verdict(row: Mapping[str, Any], gates: Check, artifact: Artifact, contradicted: list[str]) -> dict[str, Any]:
    """passed, why, what was allowed, and what a limit in bytes or the file's own contract refuses.

    row: the measures.
    """
    large = size(row, gates)
    why = contradicted + refusals(row, gates, artifact) + large
    marks = {"too_large": bool(large), "contradicted": bool(contradicted)}
    allowed = {} if why else {"allowed": allowance(row, gates, artifact.output)}
    marked = {key: value for key, value in {**allowed, **marks}.items() if value}
    return {"passed": not why, "why": "; ".join(why), **marked}


def refusals(row: Mapping[str, Any], gates: Check, artifact: Artifact) -> list[str]:
    """Why the gates refuse a file, one line per reason; empty when it passes.

    fp32 and fp16: too far from PyTorch, as at the export.  All: accuracy drop and agreement as the recipe says.
    """
    allowed = of(open_format(artifact.target).tolerance(artifact.precision), artifact.output)
    departs = parity.refusal(row, artifact.precision, artifact.output, allowed)
    return [*([departs] if departs else []), *quality_on_test(row, gates, artifact.output)]


def totals(rows: list[dict[str, Any]]) -> tuple[list[str], dict[str, float | int | bool]]:
    """A line for each file that fails, and the metrics of all; completes the rows by what depends on other rows."""
    passed = {row["artifact"] for row in rows if row["passed"]}
    fp32 = {row["target"]: row["size_bytes"] for row in rows if row["precision"] == "fp32"}
    for row in rows:
        if row["passed"] is False and "contradicted" not in row and f"{row['artifact']}{SEARCHED}" in passed:
            row["superseded_by"] = f"{row['artifact']}{SEARCHED}"
        if row["target"] in fp32:
            row["size_ratio"] = row["size_bytes"] / fp32[row["target"]]
    failed = [
        f"{row['artifact']}: {row['why']}" for row in rows if row.get("passed") is False and "superseded_by" not in row
    ]
    measured = [row for row in rows if row["passed"] is not None]
    return failed, {
        "passed": bool(measured) and not failed,
        "files": len(rows),
        "files_passed": sum(row["passed"] is True for row in rows),
        "files_failed": len(failed),
        "files_not_run": len(rows) - len(measured),
    }


def compared(rows: list[dict[str, Any]], gates: Check) -> dict[str, Any]:
    """The comparison with an earlier run, where one is asked for, as a detail of the result."""
    return {"against": against(rows, Run(gates.against))} if gates.against else {}


def again(
    run: Run,
    recipe: Recipe,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str],
    artifacts: Sequence[Artifact],
    contradicting: Mapping[str, list[str]],
) -> bool:
    """Judge a finished check by other limits, from its measures.  Returns whether it has to be measured again.

    That is where files have changed as well; where other settings differ, ``run.perform`` says so.
    """
    try:
        done = run.result("check")
    except UserError:  # damaged: perform says so, or replaces it
        return False
    if done is None:
        return False
    limits = differences(_of(done.recipe, LIMITS), _of(settings, LIMITS))
    if not limits and done.inputs.get(EARLIER) == inputs.get(EARLIER):
        return False
    if differences(_without(done.recipe, LIMITS), _without(settings, LIMITS)):
        return False
    if {**done.inputs, EARLIER: ""} != {**inputs, EARLIER: ""}:
        return True
    by_name = {artifact.name: artifact for artifact in artifacts}
    rows = []
    for before in done.details["rows"]:
        row = before
        if before["passed"] is not None:
            row = {key: value for key, value in before.items() if key not in _VERDICT}
            name = row["artifact"]
            row |= verdict(row, recipe.check, by_name[name], contradicting.get(name, []))
        rows.append(row)
    failed, metrics = totals(rows)
    details = {key: value for key, value in done.details.items() if key != "against"}
    details |= {"rows": rows, "failed": failed, **compared(rows, recipe.check)}
    judged = dataclasses.replace(
        done, recipe=dict(settings), inputs=dict(inputs), metrics={**done.metrics, **metrics}, details=details
    )
    write_json(run.folder("check") / "result.json", judged.to_dict())
    say(f"check: judged by what was measured before ({'; '.join(limits) or 'the earlier run was checked anew'})")
    return False


def _of(settings: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {key: settings.get("check", {}).get(key) for key in keys}


def _without(settings: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    kept = {key: value for key, value in settings.get("check", {}).items() if key not in keys}
    return {**settings, "check": kept}
