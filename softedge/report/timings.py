"""Every number that was measured on a device, as a table: a row for each measure, a column for each file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from markupsafe import Markup, escape

from softedge.records import disturbance
from softedge.report import phrases, words

Values = dict[str, Any]
Cell = Callable[[Values], Markup | str]

_NONE = Markup('<span class="none">&ndash;</span>')


def _measure(key: str, kind: str) -> Cell:
    return lambda timing: phrases.SHOW[kind](timing[key]) if words.is_number(timing.get(key)) else ""


def _word(key: str) -> Cell:
    return lambda timing: escape(timing.get(key) or "")


def _part(name: str) -> Cell:
    """The p50 of a part of the way from a file to an answer."""

    def show(timing: Values) -> Markup | str:
        part = (timing.get("end_to_end") or {}).get(name) or {}
        return phrases.SHOW["number"](part["p50_ms"]) if words.is_number(part.get("p50_ms")) else ""

    return show


def _drift(timing: Values) -> Markup | str:
    drift = timing.get("drift") or {}
    if not words.is_number(drift.get("ratio")):
        return ""
    text = phrases.SHOW["number"](drift["ratio"])
    return Markup('{}<span class="small warn">flagged</span>').format(text) if drift.get("flagged") else text


def _quality(timing: Values) -> Markup | str:
    """Accuracy over that of fp32, and the highest of MLPerf's gates that it keeps."""
    quality = timing.get("quality") or {}
    if not words.is_number(quality.get("ratio")):
        return ""
    kept = [gate for gate, passed in (quality.get("passed") or {}).items() if passed]
    gate = f"keeps {max(kept)}" if kept else "below every gate"
    small = Markup('<span class="small{}">{}</span>').format("" if kept else " warn", gate)
    return phrases.SHOW["percent"](quality["ratio"]) + small


def _accelerator(timing: Values) -> Markup | str:
    return escape(str(timing.get("accelerator") or "").replace("ExecutionProvider", ""))


def _valid(timing: Values) -> Markup | str:
    if "p90_ms" not in timing:
        return ""
    if timing.get("valid"):
        ratio = disturbance(timing.get("p50_ms"), timing.get("p90_ms"))
        note = Markup('<span class="small warn">disturbed: p90 {} p50</span>').format(words.times(ratio or 0))
        return Markup("yes{}").format(note) if ratio else "yes"
    why = timing.get("why_not_valid")
    return Markup('<span class="warn">no</span>') + (Markup(": {}").format(why) if why else "")


def _agreement(timing: Values) -> Markup | str:
    """With the answers of the check; those of earlier versions kept none."""
    if words.is_number(timing.get("agreement_local")):
        return phrases.SHOW["percent"](timing["agreement_local"])
    return "not known" if words.is_number(timing.get("top1")) else ""


MEASURES: tuple[tuple[str, Cell], ...] = (
    *((f"{name}, ms", _measure(f"{name}_ms", "number")) for name in ("p50", "p90", "p99", "mean", "min")),
    ("samples", _measure("n", "count")),
    ("preset kept", _valid),
    ("drift (last third / first)", _drift),
    ("load, ms", _measure("load_ms", "number")),
    ("first inference, ms", _measure("first_ms", "number")),
    ("end to end p90, ms", _measure("end_to_end_p90_ms", "number")),
    *((f"{name}, p50 ms", _part(name)) for name in ("decode", "resize", "model")),
    ("peak memory", _measure("peak_memory_bytes", "size")),
    ("top-1 on the device", _measure("top1", "percent")),
    ("of the fp32 accuracy", _quality),
    ("agreement with the check", _agreement),
    ("computed in", _word("effective_precision")),
    ("runs on", _accelerator),
)


def _paired(timing: Values, than: str) -> Markup | str:
    """Latency over that of another file, paired by rounds, with its 95 % interval."""
    pair = (timing.get("ratios") or {}).get(than)
    if not pair:
        return ""
    text = phrases.SHOW["number"](pair["ratio"])
    if pair.get("low") is None:
        return text + Markup('<span class="small">too few rounds for an interval</span>')
    ends = phrases.SHOW["number"](pair["low"]), phrases.SHOW["number"](pair["high"])
    text += Markup('<span class="small">{} to {}</span>').format(*ends)
    return text if pair.get("different") else text + Markup('<span class="small">no measurable difference</span>')


def rows(run: Values, device: str) -> list[tuple[str, list[Markup | str]]]:
    """(measure, one cell per file that ran on the device); measures that none of them has are left out."""
    timings = [(row, row["devices"][device]) for row in run["files"] if row["devices"].get(device)]
    table = [(title, [cell(timing) for _, timing in timings]) for title, cell in MEASURES]
    pick = next((pick["artifact"] for pick in run["verdict"]["picks"] if pick["device"] == device), "")
    if pick:
        title = f"time / {words.artifact_name(pick)}"
        table.insert(5, (title, [_paired(timing, pick) for _, timing in timings]))
    return [(title, [_shown(cell) for cell in cells]) for title, cells in table if any(cells)]


def _shown(cell: Markup | str) -> Markup:
    return (cell if "<" in cell else Markup("<span>{}</span>").format(cell)) if cell else _NONE  # type: ignore[return-value]
