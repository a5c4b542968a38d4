"""The files table: one row per artifact that was asked for, made or measured, with everything known about that file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from softedge import registry
from softedge.bench import answers
from softedge.config import Export
from softedge.errors import UserError
from softedge.records import SEARCHED, Result
from softedge.report import present, words
from softedge.report.stages import StageRecord
from softedge.report.words import is_number
from softedge.run import Run, read_json

_CHECKED = (
    "top1",
    "top1_fp32",
    "drop",
    "agreement",
    "max_abs_diff",
    "p99_abs_diff",
    "sqnr_db",
    "distance",
    "knn_overlap",
    "n",
    "size_ratio",
    "runtime",
    "why",
    "allowed",
    "quantized_ops",
)
_TIMED = (
    "p50_ms",
    "p90_ms",
    "p99_ms",
    "mean_ms",
    "min_ms",
    "n",
    "load_ms",
    "first_ms",
    "valid",
    "top1",
    "n_images",
    "end_to_end_p90_ms",
    "peak_memory_bytes",
)
_ABOUT = (
    "runtime",
    "accelerator",
    "threads",
    "effective_precision",
    "why_not_valid",
    "drift",
    "end_to_end",
    "quality",
    "preset",
    "session",
    "sha256",
    "tool",
    "measured_elsewhere",
    "caveat",
)
BINS = 120

Row = dict[str, Any]


def rows(
    run: Run,
    done: Mapping[str, StageRecord],
    asked: list[str],
    replaced: Mapping[str, dict[str, str]],
    aside: Mapping[str, str],
) -> list[Row]:
    """One row per artifact, in the order target, precision; see schema.md, ``files``.

    replaced: artifact -> cell -> why it is empty, where another file of that name was measured.
    aside: artifact -> the command that makes it again, of those that were set aside.
    """
    export, check, bench = done["export"], done["check"], done["bench"]
    slow = _too_slow(run)
    checked = {row["artifact"]: row | slow.get((row["artifact"], row.get("sha256")), {}) for row in _check_rows(check)}
    timed: dict[str, dict[str, Result]] = {}
    for name, result in bench.results.items():
        artifact, _, device = name.partition("@")
        timed.setdefault(artifact, {})[device] = result
    names = list(dict.fromkeys([*asked, *export.results, *checked, *timed, *aside]))
    table = [
        _row(run, name, export, check, checked.get(name), timed.get(name, {}), bench)
        | _search(done["quantize"], name)
        | _sure(done["quantize"], name)
        for name in names
    ]
    for row in table:
        if again := aside.get(row["artifact"]):
            row["set_aside"] = again
            row["not_run"] = {"export": f"set aside when the network changed; export again with: {again}"}
        elif "export" not in row["not_run"]:
            cells = replaced.get(row["artifact"], {})
            timed_before = any(cell.startswith("latency on ") for cell in cells)
            row["not_run"] = {k: v for k, v in row["not_run"].items() if k != "bench" or not timed_before} | cells
    present.same_session(table)
    _add_distributions(run, table)
    targets = list(dict.fromkeys(row["target"] for row in table))
    return sorted(table, key=lambda row: targets.index(row["target"]))  # a searched file beside the one it replaces


def _too_slow(run: Run) -> dict[tuple[str, str | None], Row]:
    """(file, hash) -> what the latency gate changes in its row of the check, as it was judged last."""
    try:
        refused = read_json(run.root / "gate.json")["too_slow"]
        return {(row["artifact"], row["sha256"]): {"passed": False, "why": row["why"]} for row in refused}
    except (UserError, KeyError, TypeError):  # no limit was asked for, or an old run
        return {}


def _check_rows(check: StageRecord) -> list[Row]:
    rows = (check.result.details.get("rows") if check.result else None) or []
    return [row for row in rows if isinstance(row, dict) and row.get("artifact")]


def _row(
    run: Run,
    name: str,
    export: StageRecord,
    check: StageRecord,
    checked: Row | None,
    timed: dict[str, Result],
    bench: StageRecord,
) -> Row:
    target, _, precision = name.partition("-")
    row: Row = {"artifact": name, "target": target, "precision": precision, "gate": "not run", "not_run": {}}
    exported = export.results.get(name)
    if exported is not None:
        row |= _exported(run, name, exported)
        reason = exported.skipped.get(name) or next(iter(exported.skipped.values()), "")
        if not row.get("size_bytes"):
            row["not_run"]["export"] = reason or "the export gave no file"
        elif reason:
            row["not_run"]["part of the export"] = reason
    else:
        row["not_run"]["export"] = _part_reason(export, name)
    if checked is not None:
        row |= {key: checked[key] for key in _CHECKED if checked.get(key) is not None}
        for key in ("sha256", "size_bytes"):
            row.setdefault(key, checked.get(key))
        row |= _emulated(check, name)
        if checked.get("superseded_by"):
            row["superseded_by"] = checked["superseded_by"]
        row["gate"] = {True: "passed", False: "failed"}.get(checked.get("passed"), "not run")  # type: ignore[arg-type]
        limit = _gate(check, "max_drop")
        if limit is not None and is_number(row.get("top1_fp32")):
            row["gate_floor"] = row["top1_fp32"] - limit
        if (least := _gate(check, "min_agreement")) is not None:
            row["gate_agreement"] = least
    if row["gate"] == "not run" and "export" not in row["not_run"]:
        row["not_run"]["check"] = (
            _skipped(check, name) or row.get("why") or check.reason or "the check does not mention it"
        )
    row["devices"] = {}
    for device, result in timed.items():
        if result.metrics:
            row["devices"][device] = _timing(result) | _agreement(run, name, device, result)
        for cell, reason in result.skipped.items():
            row["not_run"][f"{cell} on {device}"] = reason
    if not timed and "export" not in row["not_run"]:
        row["not_run"]["bench"] = bench.reason or _anywhere(bench, name) or "not part of the benchmark"
    return row


def _search(quantize: StageRecord, name: str) -> Row:
    """What the int8 search tried for a file; nothing where the exported file was good enough."""
    details = quantize.results[name].details if name in quantize.results else {}
    steps = details.get("steps") or []
    if all(step.get("passed") for step in steps):
        return {}
    values = {
        "search": [_with_verdict(step, details.get("step")) for step in steps],
        "layers": details.get("layers"),
        "selection": details.get("selection"),
        "advice": details.get("recommendation"),
    }
    return {key: value for key, value in values.items() if value}


def _sure(quantize: StageRecord, name: str) -> Row:
    """Whether the int8 search is sure, by its own images, that a file keeps its answers, which images that calibrated
    it do not show; nothing of files that it did not look at."""
    result = quantize.results.get(name.removesuffix(SEARCHED))
    if result is None:
        return {}
    steps, apart = result.details.get("steps") or [], not result.details.get("calibrated_too")
    if result.details.get("file") == name:
        return {"sure": apart and bool(result.metrics.get("good"))}
    return {"sure": apart and bool(steps[0].get("passed"))} if steps and not name.endswith(SEARCHED) else {}


def _emulated(check: StageRecord, name: str) -> Row:
    """The answers of a file on other processors."""
    hardware = check.result.details.get("hardware") if check.result else None
    return {"emulated": hardware[name]} if isinstance(hardware, dict) and hardware.get(name) else {}


def _with_verdict(step: Row, used: Any = None) -> Row:
    """A step of the search with its verdict in a word or two; the numbers beside it say why.

    used: the name of the step whose file was written; where it is not sure to pass, the best of those that are not.
    """
    if not is_number(step.get("sqnr_db")) and not is_number(step.get("agreement")):
        return {**step, "verdict": "not run", "size_bytes": None}
    verdict = "passes" if step.get("passed") else "used, not sure to pass" if step.get("step") == used else "refused"
    return {**step, "verdict": verdict + ("" if step.get("kept", True) else ", not kept")}


def _exported(run: Run, name: str, result: Result) -> Row:
    folder = run.folder(f"export/{name}")
    contract = _json(folder / "contract.json")
    row: Row = {"export_seconds": result.metrics.get("seconds", result.seconds)}
    for key in ("sha256", "size_bytes"):
        value = contract.get(key) or result.metrics.get(key) or result.details.get(key)
        if value:
            row[key] = value
    if contract.get("model"):
        row["file"] = f"export/{name}/{contract['model']}"
    output = contract.get("output")
    if isinstance(output, dict) and output.get("name"):
        row["output"] = f"{output.get('tensor') or output['name']}: {output.get('dtype') or 'float32'}"
    if isinstance(contract.get("calibration"), dict):
        row["calibration"] = {key: contract["calibration"].get(key) for key in ("images", "source", "warnings")}
    if isinstance(contract.get("notes"), dict):
        row["notes"] = contract["notes"]
    source = next((Path(key).parent.name for key in result.inputs if key.endswith("classifier.safetensors")), "")
    if source:
        row["source"] = source
    checkpoint = contract.get("checkpoint")
    if isinstance(checkpoint, dict) and checkpoint.get("checkpoint_sha256"):
        row["checkpoint_sha256"] = checkpoint["checkpoint_sha256"]
    return row


def _part_reason(stage: StageRecord, name: str) -> str:
    return _anywhere(stage, name) or stage.reason or words.NOT_TRIED


def _anywhere(stage: StageRecord, name: str) -> str:
    """A reason for ``name`` in any of the stage's results."""
    for result in stage.results.values():
        for key, reason in result.skipped.items():
            if key == name or key.startswith(f"{name}@"):
                return reason
    return ""


def _gate(check: StageRecord, name: str) -> float | None:
    settings = check.result.recipe.get("check") if check.result else None
    limit = settings.get(name) if isinstance(settings, dict) else None
    return limit if is_number(limit) else None


def _skipped(stage: StageRecord, name: str) -> str:
    return (stage.result.skipped.get(name) or "") if stage.result else ""


def _timing(result: Result) -> Row:
    row: Row = {key: result.metrics[key] for key in _TIMED if result.metrics.get(key) is not None}
    row |= {key: result.details[key] for key in _ABOUT if result.details.get(key) not in (None, "", [], {})}
    conditions = {key: result.details[key] for key in ("before", "after") if result.details.get(key)}
    if conditions:
        row["conditions"] = conditions
    row["valid"] = bool(result.metrics.get("valid", False))
    row["measured"] = result.started
    ratios = _ratios(result.details.get("paired"))
    if ratios:
        row["ratios"] = ratios
    return row


def _agreement(run: Run, name: str, device: str, result: Result) -> Row:
    """How often the device answers as the same file did in the check; nothing where either kept no answers.

    By what both stored, not by the number in the result: earlier versions compared with another bench.
    """
    digest, checked = answers.read(run.folder("check")).get(name, ("", {}))
    stored = _json(run.folder(f"bench/{name}@{device}") / "samples.json")
    found, names = stored.get("predictions"), stored.get("names")
    if digest != result.details.get("sha256") or not isinstance(found, list) or not isinstance(names, list):
        return {}
    compared = answers.agreement(checked, names, found) if len(found) == len(names) else None
    return {"agreement_local": compared[0], "n_compared": compared[1]} if compared else {}


def _ratios(stored: Any) -> dict[str, dict[str, Any]]:
    """other artifact -> {"ratio", "low", "high", "different"}: this file's latency over the other's."""
    if not isinstance(stored, dict):
        return {}
    keys = ("ratio", "low", "high", "different", "rounds")
    return {
        other: {key: value.get(key) for key in keys}
        for other, value in stored.items()
        if isinstance(value, dict) and is_number(value.get("ratio"))
    }


def samples(run: Run, artifact: str, device: str) -> list[float]:
    """The raw latencies of a file on a device, milliseconds; empty when they are not there."""
    stored = _json(run.folder(f"bench/{artifact}@{device}") / "samples.json")
    values = stored.get("samples_ms") or []
    return [float(v) for v in values if is_number(v) and v > 0] if isinstance(values, list) else []


def _add_distributions(run: Run, table: list[Row]) -> None:
    """Histograms on bins shared by all files of a device (logarithmic, every sample inside): comparable shapes."""
    for device in dict.fromkeys(d for row in table for d in row["devices"]):
        raw = {row["artifact"]: samples(run, row["artifact"], device) for row in table if device in row["devices"]}
        everything = [value for values in raw.values() for value in values]
        if not everything:
            continue
        low, high = math.log(min(everything) / 1.02), math.log(max(everything) * 1.02)
        edges = [math.exp(low + (high - low) * i / BINS) for i in range(BINS + 1)]
        for row in table:
            values = raw.get(row["artifact"])
            if values:
                counts = [0] * BINS
                for value in values:
                    counts[min(BINS - 1, int((math.log(value) - low) / (high - low) * BINS))] += 1
                row["devices"][device]["histogram"] = {"edges_ms": [round(e, 5) for e in edges], "counts": counts}


def _json(path: Path) -> dict[str, Any]:
    """A JSON object, or nothing when it is absent or damaged."""
    try:
        value = read_json(path)
    except UserError:
        return {}
    return value if isinstance(value, dict) else {}


def asked_for(recipe: dict[str, Any]) -> list[str]:
    """The artifacts that the recipe asks for, target by target; by default in the precisions that each has."""
    section = recipe.get("export", {})
    targets, precisions = section.get("targets", []), section.get("precisions", [])
    named = tuple(precisions) != Export().precisions
    has = {} if named else {format_.name: format_.precisions for format_ in registry.formats()}
    return [f"{t}-{p}" for t in targets for p in precisions if p in has.get(t, precisions)]
