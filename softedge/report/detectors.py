"""Exported detectors: files of the transfer folders with their average precision, and the time they take."""

from __future__ import annotations

from typing import Any

from softedge.export import measured
from softedge.report import computed, words
from softedge.run import Run

Values = dict[str, Any]
COLUMNS = ("size_bytes", "AP", "AP50", "drop")


def files(run: Run, task: str) -> list[Values]:
    """A row for each file that was checked, and its p90 on each device: ``devices`` is {name: milliseconds}.

    notes: device -> "in bf16, AP 40.2 %", where another precision was timed than was checked.

    task: name of the folder below RUN/transfer, which holds stages of its own.
    """
    folder = Run(run.folder(f"transfer/{task}"))
    checked = folder.result("check")
    there = measured.files(folder)
    rows = measured.checked(checked, there).details.get("rows", []) if checked else []
    timed: dict[str, dict[str, float]] = {}
    notes: dict[str, dict[str, str]] = {}
    for name, result in measured.timed(folder.results("bench"), there).items():
        artifact, _, device = name.partition("@")
        if "p90_ms" in result.metrics:
            timed.setdefault(artifact, {})[device] = result.metrics["p90_ms"]
            if precision := computed.half(result.details):
                found = result.metrics.get("AP")
                accuracy = "AP not measured" if found is None else f"AP {words.percent(found)}"
                notes.setdefault(artifact, {})[device] = f"in {precision}, {accuracy}"
    return [
        {
            "artifact": row["artifact"],
            "passed": row.get("passed"),
            "why": row.get("why", ""),
            **{key: row[key] for key in COLUMNS if key in row},
            "devices": timed.get(row["artifact"], {}),
            **({"notes": notes[row["artifact"]]} if row["artifact"] in notes else {}),
        }
        for row in rows
        if isinstance(row, dict) and "artifact" in row
    ]


def rows(run: Values) -> list[tuple[str, Values]]:
    """(task, file) of all detectors of a collected run, in the order of the table."""
    return [(task, row) for task, entry in run.get("transfer", {}).items() for row in entry.get("files", [])]


def cautions(run: Values) -> list[str]:
    """What a reader must know of the detectors: one that finds nothing passes every gate, because it cannot lose."""
    return [
        f"Detector {task}: {line}"
        for task, entry in run.get("transfer", {}).items()
        for line in entry.get("cautions", [])
    ]
