"""Which measurements of a run are of the files that are there: a result counts only for the file it was made of.

Files are replaced, set aside and removed; what an earlier file of the same name reached stays in the stages' folders.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from softedge.errors import UserError
from softedge.records import Result
from softedge.run import Run, read_json

Digests = Mapping[str, str]


def files(run: Run) -> dict[str, str]:
    """The exported files that are there -> sha256; "" where no record says it.  Never raises."""
    found = {}
    for folder in sorted(run.folder("export").glob("*/")):
        contract, result = _values(folder / "contract.json"), _values(folder / "result.json")
        skipped, details = result.get("skipped"), result.get("details")
        if contract or (result and not (isinstance(skipped, dict) and "model" in skipped)):
            recorded = details.get("sha256") if isinstance(details, dict) else None
            found[folder.name] = str(contract.get("sha256") or recorded or "")
    return found


def _values(path: Any) -> dict[str, Any]:
    try:
        values = read_json(path) if path.is_file() else {}
    except UserError:
        return {"damaged": True}
    return values if isinstance(values, dict) else {"damaged": True}


def is_of(present: Digests, name: str, digest: Any) -> bool:
    """Whether the file ``name`` is there and has that hash; unknown hashes are taken for it."""
    return name in present and (not digest or not present[name] or present[name] == digest)


def timed(results: Mapping[str, Result], present: Digests) -> dict[str, Result]:
    """Of the results of ``bench`` ("onnx-int8@local" -> Result): those of the files that are there."""
    return {
        name: result
        for name, result in results.items()
        if is_of(present, name.partition("@")[0], result.details.get("sha256") or result.inputs.get("model"))
    }


def searched(results: Mapping[str, Result], present: Digests) -> dict[str, Result]:
    """Of the results of ``quantize`` ("onnx-int8" -> Result): those of the files that are there."""
    return {name: result for name, result in results.items() if is_of(present, name, result.inputs.get(name))}


def checked(result: Result, present: Digests) -> Result:
    """A result of ``check`` without what it says of files that are not there, and counted anew."""
    before = _rows(result)
    rows = [row for row in before if is_of(present, row["artifact"], row.get("sha256"))]
    if len(rows) == len(before):
        return result
    there, gone = {row["artifact"] for row in rows}, {row["artifact"] for row in before} - {r["artifact"] for r in rows}
    failed = [line for line in result.details.get("failed") or [] if str(line).partition(": ")[0] not in gone]
    rows = [row if row.get("superseded_by") not in gone else _without(row, "superseded_by") for row in rows]
    refused = [row for row in rows if row.get("passed") is False and "superseded_by" not in row]
    known = {str(line).partition(": ")[0] for line in failed}
    failed += [f"{row['artifact']}: {row.get('why', '')}" for row in refused if row["artifact"] not in known]
    details = {**result.details, "rows": rows, "failed": failed}
    if isinstance(hardware := details.get("hardware"), dict):
        details["hardware"] = {name: value for name, value in hardware.items() if name in there}
    if isinstance(examples := details.get("examples"), list):
        details["examples"] = [_predicted_by(example, there) for example in examples]
    unknown = sum(row.get("passed") is None for row in rows)
    counted = {
        "passed": unknown < len(rows) and not failed,
        "files": len(rows),
        "files_passed": sum(row.get("passed") is True for row in rows),
        "files_failed": len(failed),
        "files_not_run": unknown,
    }
    skipped = {name: why for name, why in result.skipped.items() if name not in gone}
    return dataclasses.replace(result, metrics={**result.metrics, **counted}, details=details, skipped=skipped)


def replaced(result: Result | None, present: Digests) -> list[str]:
    """The files that are there and of which ``check`` saw another version."""
    rows = _rows(result) if result else []
    names = [row["artifact"] for row in rows if not is_of(present, row["artifact"], row.get("sha256"))]
    return [name for name in names if name in present]


def _rows(result: Result) -> list[dict[str, Any]]:
    return [row for row in result.details.get("rows") or [] if isinstance(row, dict) and row.get("artifact")]


def _predicted_by(example: Any, there: set[str]) -> Any:
    predictions = example.get("predictions") if isinstance(example, dict) else None
    if not isinstance(predictions, dict):
        return example
    return {**example, "predictions": {name: value for name, value in predictions.items() if name in there}}


def _without(row: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != key}
