"""Reads the stages of a run and reports what is missing, unfinished or damaged instead of failing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from softedge.errors import UserError, quoted
from softedge.records import Result
from softedge.report.words import is_number
from softedge.run import Run

# Stage -> the command that does it.
COMMANDS = {
    "data": "softedge pretrain --data DATA --out {run}",
    "pretrain": "softedge pretrain --data DATA --out {run}",
    "probe": "softedge probe {run}",
    "export": "softedge export {run}",
    "quantize": "softedge quantize {run}",
    "check": "softedge check {run}",
    "bench": "softedge bench {run}",
}
_UNREADABLE = (UserError, TypeError, ValueError, AttributeError)
PARTED = ("export", "quantize", "bench", "linear", "transfer")


@dataclass(frozen=True)
class StageRecord:
    """status: "done", "not run", "unfinished" (begun, no result) or "damaged" (a result that cannot be read)."""

    name: str
    status: str
    reason: str
    results: dict[str, Result]

    @property
    def result(self) -> Result | None:
        """The one result of a stage without parts."""
        return self.results.get("")

    def to_dict(self) -> dict[str, Any]:
        values: dict[str, Any] = {"stage": self.name, "status": self.status}
        if self.reason:
            values["reason"] = self.reason
        if self.results:
            values["started"] = min(result.started for result in self.results.values())
            values["seconds"] = round(sum(result.seconds for result in self.results.values()) + self._measuring(), 3)
        return values

    def _measuring(self) -> float:
        """Seconds in which files were measured: those of a session take turns, and each has the time of all of them."""
        if self.name != "bench":
            return 0.0
        rows = [(part.partition("@")[2], result.details) for part, result in self.results.items()]
        sessions: dict[Any, float] = {}
        for device, row in rows:
            if is_number(row.get("seconds")):
                sessions[device, row.get("session"), row["seconds"]] = row["seconds"]
        return sum(sessions.values())


def read(run: Run, name: str) -> StageRecord:
    """A stage with one result (``probe``) or with parts (``export``, ``bench``); never raises."""
    if name in PARTED:
        return _with_parts(run, name)
    try:
        result = run.result(name)
    except _UNREADABLE as error:
        return StageRecord(name, "damaged", _unreadable(run, name, error), {})
    if result is not None:
        return StageRecord(name, "done", "", {"": result})
    if (run.folder(name) / "begun.json").exists():
        return StageRecord(name, "unfinished", f"{command(run, name)} was started and did not finish", {})
    return StageRecord(name, "not run", f"{command(run, name)} has not been run", {})


def _with_parts(run: Run, name: str) -> StageRecord:
    results, troubles = {}, []
    for path in sorted(run.folder(name).glob("*/result.json")):
        part = path.parent.name
        try:
            result = run.result(f"{name}/{part}")
        except _UNREADABLE as error:
            troubles.append(_unreadable(run, f"{name}/{part}", error))
            continue
        if result is not None:
            results[part] = result
    for path in sorted(run.folder(name).glob("*/begun.json")):
        if path.parent.name not in results:
            troubles.append(f"{name}/{path.parent.name} was started and did not finish")
    if results:
        return StageRecord(name, "done", "; ".join(troubles), results)
    if troubles:
        return StageRecord(name, "unfinished", "; ".join(troubles), {})
    return StageRecord(name, "not run", f"{command(run, name)} has not been run", {})


def _unreadable(run: Run, stage: str, error: Exception) -> str:
    """Without the place where the run is stored: a report must not show it."""
    return f"{stage}/result.json cannot be read: {error}".replace(str(run.root), place(run))


def command(run: Run, name: str) -> str:
    """The command that does a stage, in quotation marks."""
    line = COMMANDS.get(name, f"softedge {name} {{run}}").format(run=quoted(place(run)))
    return f'"{line}"' if "'" in line else f"'{line}'"


def place(run: Run) -> str:
    """The run's folder as a command would name it; a report must not show where it is stored."""
    return run.name if run.root.is_absolute() else str(run.root)
