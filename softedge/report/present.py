"""What the report counts: measurements of the files that are there, and what it says of the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from softedge import previous
from softedge.errors import quoted
from softedge.export import measured
from softedge.records import SEARCHED
from softedge.report import stages
from softedge.report.stages import StageRecord
from softedge.run import Run

Row = dict[str, Any]

TIMED = "the file that was timed is not the file that is there"
CHECKED = "the file that was checked is not the file that is there"


def counted(run: Run, done: Mapping[str, StageRecord], there: measured.Digests) -> dict[str, StageRecord]:
    """The stages without the results of files that are not ``there``."""
    kept = {
        "bench": measured.timed(done["bench"].results, there),
        "quantize": measured.searched(done["quantize"].results, there),
        "check": {name: measured.checked(result, there) for name, result in done["check"].results.items()},
    }
    return {**done, **{name: _with(run, done[name], results) for name, results in kept.items()}}


def _with(run: Run, stage: StageRecord, results: dict[str, Any]) -> StageRecord:
    empty = {name for name, result in results.items() if stage.name == "check" and not result.details.get("rows")}
    if stage.results and (not results or (empty and stage.results[""].details.get("rows"))):
        return StageRecord(
            stage.name, "not run", f"{stages.command(run, stage.name)} has not been run on these files", {}
        )
    return replace(stage, results=results)


def of_names(bench: StageRecord, there: measured.Digests) -> StageRecord:
    """Measurements of files that are there or were replaced: of the devices, one may have timed no other yet."""
    return replace(bench, results={key: one for key, one in bench.results.items() if key.partition("@")[0] in there})


def replaced(done: Mapping[str, StageRecord], kept: Mapping[str, StageRecord]) -> dict[str, dict[str, str]]:
    """File -> cell -> reason, where what was measured is an earlier file of that name."""
    cells: dict[str, dict[str, str]] = {}
    for key in done["bench"].results.keys() - kept["bench"].results.keys():
        artifact, _, device = key.partition("@")
        cells.setdefault(artifact, {})[f"latency on {device}"] = TIMED
    for artifact in _checked(done["check"]) - _checked(kept["check"]):
        cells.setdefault(artifact, {})["check"] = CHECKED
    return cells


def _checked(stage: StageRecord) -> set[str]:
    rows = (stage.result.details.get("rows") if stage.result else None) or []
    return {row["artifact"] for row in rows if isinstance(row, dict) and row.get("artifact")}


def set_aside(run: Run, there: measured.Digests) -> dict[str, str]:
    """File that an export of another network has set aside, and that was not made since -> the command that makes it.

    Without those of the int8 search: it may have no need of them any more.
    """
    lines = {}
    for name in previous.retired(run.root, "export"):
        tried = (run.folder(f"export/{name}") / previous.RESULT).is_file()
        had = (previous.folder(run.root, f"export/{name}") / "contract.json").is_file()
        if had and not tried and name not in there and not name.endswith(SEARCHED):
            target, _, precision = name.partition("-")
            lines[name] = f"softedge export {quoted(stages.place(run))} --targets {target} --precisions {precision}"
    return lines


def same_session(table: list[Row]) -> None:
    """Leave, of the paired ratios, those to the files that are there: measured in the same rounds."""
    for device in dict.fromkeys(name for row in table for name in row["devices"]):
        timings = {row["artifact"]: row["devices"][device] for row in table if device in row["devices"]}
        for timing in timings.values():
            if ratios := timing.pop("ratios", None):
                session = timing.get("session")
                same = {k: v for k, v in ratios.items() if k in timings and timings[k].get("session") == session}
                timing |= {"ratios": same} if same else {}
