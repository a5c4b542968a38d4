"""What changed between two runs: recipe, data, how good the features are, and every file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from softedge.errors import UserError
from softedge.report import set_aside, words
from softedge.report.collect import collect
from softedge.run import Run, differences, read_json

Values = dict[str, Any]

_PROBES = {
    "linear_top1": "linear probe",
    "knn_top1": "k-NN",
    "few_linear_top1": "linear probe, few labels",
    "few_knn_top1": "k-NN, few labels",
}
_DATA = {"n_pretrain": "pretraining images", "n_train": "labelled", "n_test": "test images", "n_bad": "unreadable"}
_FILE = {"top1": ("top-1", "percent"), "agreement": ("agreement", "percent"), "size_bytes": ("size", "size")}


def compare_folders(folders: Sequence[Path]) -> str:
    """The same for the folders of a command line; UserError unless they are two runs."""
    if len(folders) != 2:
        raise UserError(f"--compare takes two runs, found {len(folders)}; for example: softedge report --compare A B")
    for folder in folders:
        if not (folder / "recipe.toml").is_file():
            why = "it has no recipe.toml" if folder.exists() else "there is no such folder"
            raise UserError(f"{folder} is not a softedge run ({why})")
    return compare(Run(folders[0]), Run(folders[1]))


def compare(a: Run, b: Run) -> str:
    """The changes from run ``a`` to run ``b`` as plain text for a terminal."""
    entries = changes(collect(a, layout=False), collect(b, layout=False), images_tested(a), images_tested(b))
    if not entries:
        return f"{a.name} and {b.name}: no differences"
    lines = [f"from {a.name} to {b.name}"]
    group = ""
    for change in entries:
        if change["group"] != group:
            group = change["group"]
            lines.append(f"\n{group}")
        lines.append(f"  {change['what']}: {_text(change, 'before')} -> {_text(change, 'after')}{_moved(change)}")
    return "\n".join(lines)


def images_tested(run: Run) -> frozenset[str]:
    """What a run was tested on: hashes of files, those of the originals where copies were made smaller; empty where
    nothing says."""
    try:
        rows = read_json(run.folder("data") / "index.json")["items"]
        return frozenset(str(row.get("original") or row["sha256"]) for row in rows if row["split"] == "test")
    except (UserError, KeyError, TypeError, AttributeError):
        return frozenset()


def changes(
    a: Values, b: Values, tested_a: frozenset[str] = frozenset(), tested_b: frozenset[str] = frozenset()
) -> list[Values]:
    """Entries {group, what, before, after, kind, change, ratio}; ``change`` is a difference, or a marked ratio.

    tested_a, tested_b: see ``images_tested``; accuracies on different images are no change of a network.
    """
    entries = _recipe(a["recipe"], b["recipe"])
    for key, what in _DATA.items():
        entries += _entry("data", what, a["data"].get(key), b["data"].get(key), "count")
    if tested_a and tested_b and tested_a != tested_b:
        both = len(tested_a & tested_b)
        said = [f"{both:,} of {len(one):,} are in both runs" for one in (tested_a, tested_b)]
        what = "the test images differ, so accuracies are not comparable"
        entries.append({"group": "data", "what": what, "before": said[0], "after": said[1], "kind": "text"})
    had, has = set_aside.tested(a), set_aside.tested(b)
    if had != has:
        what = "the test images that could no longer be used differ, so accuracies are not of the same images"
        entries += _entry("data", what, had or "none", has or "none", "text")
    before, after = (run["probe"].get("metrics", {}) for run in (a, b))
    for key, what in _PROBES.items():
        entries += _entry("features", what, before.get(key), after.get(key), "percent")
    for device in dict.fromkeys([*a["devices"], *b["devices"]]):
        had, has = ("measured" if device in run["devices"] else "not run" for run in (a, b))
        entries += _entry("devices", _called(device, a, b), had, has, "text")
    rows_a, rows_b = ({row["artifact"]: row for row in run["files"]} for run in (a, b))
    for artifact in dict.fromkeys([*rows_a, *rows_b]):
        name = words.artifact_name(artifact)
        entries += _file(name, rows_a.get(artifact, {}), rows_b.get(artifact, {}), lambda d: _called(d, a, b))
    return entries


def _called(device: str, a: Values, b: Values) -> str:
    about = a["devices"].get(device) or b["devices"].get(device) or {}
    return str(about.get("short") or device)


def _file(name: str, a: Values, b: Values, called: Callable[[str], str]) -> list[Values]:
    entries = _entry("files", f"{name}: gate", a.get("gate"), b.get("gate"), "text")
    for key, (what, kind) in _FILE.items():
        entries += _entry("files", f"{name}: {what}", a.get(key), b.get(key), kind)
    timed_a, timed_b = a.get("devices", {}), b.get("devices", {})
    for device in (d for d in timed_a if d in timed_b):
        before, after = (timed.get(device, {}).get("p90_ms") for timed in (timed_a, timed_b))
        entries += _entry("files", f"{name}: p90 on {called(device)}", before, after, "milliseconds")
    return entries


def _recipe(a: Values, b: Values) -> list[Values]:
    entries = []
    for line in differences(a, b):
        key, _, rest = line.partition(": ")
        before, _, after = rest.partition(" -> ")
        entries.append({"group": "recipe", "what": key, "before": before, "after": after, "kind": "text"})
    return entries


def _entry(group: str, what: str, before: Any, after: Any, kind: str) -> list[Values]:
    if before == after:
        return []
    entry: Values = {"group": group, "what": what, "before": before, "after": after, "kind": kind}
    if _text(entry, "before") == _text(entry, "after"):
        return []  # a difference invisible in three digits
    if words.is_number(before) and words.is_number(after):
        if kind == "percent":
            entry["change"] = after - before
        elif before > 0:
            entry |= {"change": after / before, "ratio": True}
    return [entry]


def _text(change: Values, key: str) -> str:
    value = change.get(key)
    if value is None:
        return "absent"
    writers = {
        "percent": words.percent,
        "size": words.size,
        "count": words.count,
        "milliseconds": words.milliseconds,
    }
    return writers[change["kind"]](value) if words.is_number(value) and change["kind"] in writers else str(value)


def _moved(change: Values) -> str:
    if change.get("change") is None:
        return ""
    if change.get("ratio"):
        return f"  (× {words.significant(change['change'])})"
    return f"  ({words.points(change['change'])} points)"
