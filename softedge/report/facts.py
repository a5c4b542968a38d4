"""Tables of facts for the last sections: data, environment, the chain of hashes, what is missing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from markupsafe import Markup

from softedge.export.refused import grouped as by_reason
from softedge.export.refused import reasons
from softedge.report import words
from softedge.report.phrases import SHOW, _source_name

Values = dict[str, Any]

_SPLIT = {
    "given": "as given",
    "held out": "held out by content, before pretraining",
    "none": "there are no labels to test on",
}


def data_facts(run: Values) -> list[tuple[str, Any]]:
    data = run["data"]
    facts: list[tuple[str, Any]] = [("source", _source_name(str(data.get("source", ""))))]
    for key, name in (
        ("n_pretrain", "pretraining images"),
        ("n_train", "labelled"),
        ("n_test", "test images"),
        ("n_classes", "classes"),
        ("n_bad", "unreadable, excluded"),
        ("n_duplicates", "copies of test images, excluded"),
        ("n_contradictions", "images with contradictory labels, excluded"),
    ):
        if words.is_number(data.get(key)):
            name = "calibration images" if key == "n_pretrain" and words.given(run) else name
            facts.append((name, SHOW["count"](data[key])))
    if data.get("test_split"):
        split = _SPLIT.get(data["test_split"], data["test_split"])
        facts.append(("test split", split.removesuffix(", before pretraining") if words.given(run) else split))
    for why, number in (data.get("ignored") or {}).items():
        facts.append(("ignored", Markup("{}: ").format(why) + SHOW["count"](number)))
    facts += [("note", notice) for notice in data.get("notices") or []]
    spec = data.get("spec") or {}
    if spec.get("size"):
        prepared = (
            f"shorter side to {spec.get('resize')}, centre crop of {spec['size']} pixels, {spec.get('interpolation')}"
        )
        facts.append(("network input", prepared))
        for key in ("mean", "std"):
            if spec.get(key):
                facts.append((f"{key} per channel", ", ".join(f"{value:.4f}" for value in spec[key])))
    return facts


def any_labelled(run: Values) -> bool:
    """Whether a table of the images per class has anything to show."""
    return any(count for counts in (run["data"].get("per_class") or {}).values() for count in counts.values())


def environment_facts(run: Values) -> list[tuple[str, Any]]:
    provenance = run["provenance"]
    environment = provenance["environment"]
    facts: list[tuple[str, Any]] = []
    names = (("cpu", "processor"), ("gpu", "GPU"), ("cores", "cores"), ("os", "system"), ("python", "Python"))
    facts += [(name, environment[key]) for key, name in names if environment.get(key)]
    versions = provenance["versions"]
    if versions:
        facts.append(("packages", ", ".join(f"{package} {version}" for package, version in versions.items())))
    if not provenance["same_environment"]:
        facts.append(("note", "the stages ran with different package versions; each result.json has its own"))
    if environment.get("git"):
        facts.append(("softedge commit", environment["git"]))
    if provenance.get("seed") is not None:
        facts.append(("seed", provenance["seed"]))
    for stage in run["stages"]:
        if stage.get("started"):
            took = words.duration(stage["seconds"])
            facts.append((stage["stage"], f"{words.moment(stage['started'])}, took {took}"))
    return facts


def hash_chain(run: Values) -> list[Values]:
    """Checkpoint -> probe -> each file -> each measurement, with the hash that links them."""
    inputs = run["provenance"]["inputs"]
    steps = [
        {"what": what, "sha256": inputs[key], "then": ""}
        for key, what in (
            ("data/index.json", "list of images with their split"),
            ("pretrain/backbone.safetensors", "the pretrained backbone"),
            ("probe/classifier.safetensors", "the linear classifier on it"),
            ("finetune/classifier.safetensors", "the fine-tuned classifier"),
            ("distill/classifier.safetensors", "the classifier taught by a teacher"),
        )
        if inputs.get(key)
    ]
    for row in run["files"]:
        if not row.get("sha256"):
            continue
        then = []
        if row["gate"] != "not run":
            then.append(f"checked: {row['gate']}")
        for device, timing in row["devices"].items():
            then.append(f"measured on {device}, {words.moment(timing['measured'])}")
        steps.append(
            {
                "what": words.artifact_name(row["artifact"]),
                "sha256": row["sha256"],
                "then": "; ".join(then) or "not measured",
            }
        )
    return steps


def grouped(entries: list[Values], devices: Values) -> list[Values]:
    """Entries with the same reason in one line; devices by their short names."""
    shorts = {f" on {name}": f" on {device['short']}" for name, device in devices.items()}
    lines: dict[tuple[str, str], Values] = {}
    for entry in entries:
        why = entry["why"].removeprefix("not run: ").removeprefix("failed: ")
        line = lines.setdefault((entry["status"], why), {**entry, "why": why, "whats": {}, "names": {}})
        what = entry["what"]
        for name, short in shorts.items():
            what = what.removesuffix(name) + short if what.endswith(name) else what
        line["whats"][what.replace("top1", "top-1").replace("_", " ")] = None
        if entry.get("artifact"):
            line["names"][words.artifact_name(entry["artifact"])] = None
    return [{**line, "what": _joined(line["whats"]), "of": ", ".join(line["names"])} for line in lines.values()]


def refused(files: list[Values]) -> list[tuple[str, str]]:
    """Files that the gate refused and why, those with the same reason in one line."""
    found = []
    for row in files:
        name = words.artifact_name(row["artifact"])
        if instead := row.get("superseded_by"):
            name += f" (replaced by {words.artifact_name(instead)})"
        found += [(name, reason) for reason in reasons(row.get("why") or "") if row["gate"] == "failed"]
    return [(", ".join(names), why) for names, why in by_reason(found)]


def _joined(whats: Iterable[str]) -> str:
    """``latency on local`` and ``top-1 on local`` -> ``latency, top-1 on local``."""
    places: dict[str, list[str]] = {}
    for what in whats:
        cell, _, place = what.partition(" on ")
        places.setdefault(place, []).append(cell)
    return "; ".join(", ".join(cells) + (f" on {place}" if place else "") for place, cells in places.items())


def layers(row: Values) -> str:
    """What of a file is computed in int8: ``52 of 54 convolutions, 1 of 1 linear layers``."""
    counted = row.get("quantized_ops") or {}
    parts = []
    for kind, name in (("conv", "convolutions"), ("linear", "linear layers")):
        whole = sum(counted.get(kind + end, 0) for end in ("", "_weights", "_float"))
        if whole:
            part = f"{counted.get(kind, 0)} of {whole} {name}"
            if counted.get(f"{kind}_weights"):
                part += f" ({counted[f'{kind}_weights']} with int8 weights only)"
            parts.append(part)
    return ", ".join(parts)
