"""A run folder -> the plain values of report.json, which the page and the model card show and nothing else."""

from __future__ import annotations

import re
import tomllib
from pathlib import PureWindowsPath
from typing import Any

from softedge.errors import UserError, quoted
from softedge.export import listed, measured
from softedge.files import read_json, read_text
from softedge.records import Result
from softedge.report import (
    curves,
    detectors,
    devices,
    embedding,
    files,
    image_map,
    labelling,
    near_copies,
    predictions,
    present,
    set_aside,
    stages,
    unlabelled,
)
from softedge.report.stages import StageRecord
from softedge.report.words import given, is_number
from softedge.run import Run

STAGES = (
    *("data", "pretrain", "probe", "finetune", "distill", "scratch", "baselines", "linear", "labels", "transfer"),
    *("export", "quantize", "check", "bench"),
)
# silent when not run
OPTIONAL = ("quantize", "finetune", "distill", "scratch", "baselines", "linear", "labels", "transfer")

Values = dict[str, Any]


def collect(run: Run, known: Values | None = None, layout: bool = True) -> Values:
    """Everything the report says about one run; schema.md documents the keys.

    known: the same of an earlier report.  layout: also read the features and lay out the test set (seconds).
    """
    read = {name: stages.read(run, name) for name in STAGES}
    there = measured.files(run)
    done = present.counted(run, read, there)
    recipe = read_recipe(run)
    values: Values = {
        "name": run.name,
        "folder": stages.place(run),
        "recipe": recipe,
        "stages": [done[name].to_dict() for name in STAGES if name not in OPTIONAL or done[name].results],
        "data": _data(done["data"]),
        "pretrain": _pretrain(run, done["pretrain"]),
        "probe": _probe(done["probe"]),
        "files": files.rows(
            run,
            done,
            [*files.asked_for(recipe), *listed.names(run)],
            present.replaced(read, done),
            present.set_aside(run, there),
        ),
        "devices": devices.collected(present.of_names(read["bench"], there)),
        "check": _check(done["check"]),
        "examples": _examples(done["check"]),
        "labels": _details(done["labels"]),
        "label_issues": labelling.issues(run),
        "finetune": _details(done["finetune"]),
        "distill": _details(done["distill"]),
        "scratch": _details(done["scratch"]),
        "baselines": _details(done["baselines"]),
        "linear": {name: result.metrics for name, result in done["linear"].results.items()},
        "transfer": {name: _transferred(run, name, result) for name, result in done["transfer"].results.items()},
        "plan": read_plan(run),
        "provenance": _provenance(run, done, recipe),
    }
    values |= {"set_aside": lost} if (lost := set_aside.collect(done)) else {}
    values |= {"map": section} if (section := image_map.collect(run)) else {}
    values |= {"near_copies": section} if (section := near_copies.collect(run)) else {}
    if layout:
        values |= _test_set(run, done["probe"], done["baselines"], known or {})
    values["not_run"] = _not_run(done, values)
    return values


def read_recipe(run: Run) -> Values:
    """recipe.toml as plain values, unchecked: an old run must still be reportable; without the folders of paths."""
    try:
        recipe: Values = without_folders(tomllib.loads(read_text(run.root / "recipe.toml", "utf-8")))
        return recipe
    except (OSError, ValueError, RecursionError):
        return {}


def without_folders(value: Any) -> Any:
    """``value`` with the last part of each absolute path in it: a report that is passed on must not show where they
    lie."""
    if isinstance(value, dict):
        return {without_folders(key): without_folders(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(one) for one in value]
    if isinstance(value, str) and (value.startswith(("/", "~")) or PureWindowsPath(value).is_absolute()):
        return re.split(r"[/\\]", value.rstrip("/\\"))[-1] or value
    return value


def read_plan(run: Run) -> Values:
    """plan.json, with the sizes of files in bytes; empty where the run was not planned."""
    try:
        values = read_json(run.root / "plan.json")
        fits = [{**fit, "size_bytes": round(1e6 * fit["megabytes"])} for fit in values.get("fits", ())]
        return {**without_folders(values), "fits": fits}
    except (UserError, AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return {}


def _data(stage: StageRecord) -> Values:
    if stage.result is None:
        return {}
    values = {**stage.result.metrics, **stage.result.details}
    values.pop("root", None)  # a report that is passed on must not show where the images are stored
    values["source"] = str(values.get("source", "")).rstrip("/").rsplit("/", 1)[-1]
    return values


def _details(stage: StageRecord) -> Values:
    return {} if stage.result is None else {"metrics": stage.result.metrics, **stage.result.details}


def _check(stage: StageRecord) -> Values:
    if stage.result is None:
        return {}
    gates = without_folders(stage.result.recipe.get("check"))
    values: Values = {"metrics": stage.result.metrics, "gates": gates if isinstance(gates, dict) else {}}
    kept = ("images", "sqnr_level", "against")
    return values | {key: stage.result.details[key] for key in kept if stage.result.details.get(key)}


def _transferred(run: Run, name: str, result: Result) -> Values:
    """A detection task's metrics and exported files; ``AP50_per_class`` as well where the task has classes."""
    about = {key: result.details[key] for key in ("init", "head", "iterations") if key in result.details}
    per_class = result.details.get("AP50_per_class")
    values: Values = {"metrics": result.metrics, "about": about, "AP50_per_class": per_class or {}}
    more = {"cautions": list(result.details.get("cautions") or []), "files": detectors.files(run, name)}
    return values | {key: value for key, value in more.items() if value}


def _examples(stage: StageRecord) -> list[Values]:
    examples = stage.result.details.get("examples") if stage.result else None
    return [e for e in examples or [] if isinstance(e, dict) and "predictions" in e and "fp32" in e]


def _pretrain(run: Run, stage: StageRecord) -> Values:
    rows = curves.read_lines(run.folder("pretrain") / "metrics.jsonl")
    result = stage.result
    values: Values = {}
    if result is not None:
        values["metrics"] = result.metrics
        values["warnings"] = list(result.details.get("warnings") or [])
        if result.details.get("kept") in ("start", "trained"):
            values["kept"] = result.details["kept"]
    for name in ("loss", "knn_top1", "effective_rank"):
        points = curves.curve(rows, name)
        if points:
            values[f"{name}_curve"] = points
    return values


def _probe(stage: StageRecord) -> Values:
    if stage.result is None:
        return {}
    metrics, few = stage.result.metrics, stage.result.details.get("few", {})
    values: Values = {"metrics": metrics}
    values["gains"] = {
        key: metrics[key] - metrics[f"random_{key}"]
        for key in metrics
        if is_number(metrics[key]) and is_number(metrics.get(f"random_{key}"))
    }
    values["gain_intervals"] = {
        key: [float(end) for end in ends]
        for key, ends in (stage.result.details.get("gain_intervals") or {}).items()
        if key in values["gains"] and len(ends) == 2 and all(map(is_number, ends))
    }
    if few.get("labels_per_class"):
        values["few_labels_per_class"] = few["labels_per_class"]
        values["few_draws"] = few.get("draws", 1)
        for prefix in ("", "random_"):
            draws = stage.result.details.get(f"{prefix}few", {})
            for kind in ("knn", "linear"):
                if draws.get(kind):
                    values[f"{prefix}few_{kind}_range"] = [min(draws[kind]), max(draws[kind])]
    return values


def _test_set(run: Run, probe: StageRecord, baselines: StageRecord, known: Values) -> Values:
    """Confusion matrix and gallery of the classifier that is exported, in a run without its answers of the probe; the
    embedding of the frozen features that the probe wrote, with the answers of the same classifier where every image
    shown has one. Without what is damaged, or not what its stage left."""
    values: Values = {}
    arrays = embedding.read_features(run)
    stage, classified = (probe, arrays) if baselines.result is None else (baselines, embedding.read_answers(run))
    classes = (stage.result.details.get("classes") if stage.result else None) or []
    if classified is not None and _fits(classified, len(classes)):
        labels, answers = classified["test_labels"], classified["test_predictions"]
        values["confusion"] = predictions.confusion(labels, answers, classes)
        values["gallery"] = predictions.gallery(labels, answers, classified.get("test_probabilities"), classes)
        rows = classified.get("indices", classified.get("test_rows"))  # not all: a sample, or some are set aside
        if rows is not None:
            for entry in values["gallery"]:
                entry["index"] = int(rows[entry["index"]])
    probed = (probe.result.details.get("classes") if probe.result else None) or []
    if arrays is not None and _fits(arrays, len(probed)):
        layout = embedding.embed(run, arrays, known.get("embedding"))
        if layout:
            layout["classes"] = probed
            layout["truth"] = [int(arrays["test_labels"][i]) for i in layout["index"]]
            exported = str(baselines.result.details.get("classifier")) if baselines.result else "probe"
            found = embedding.answers(run, exported, arrays, layout) if classes == probed else None
            layout["answered_by"] = exported if found else "probe"
            layout["answer"] = found or [int(arrays["test_predictions"][i]) for i in layout["index"]]
            values["embedding"] = layout
    return values


def _fits(arrays: Any, classes: int) -> bool:
    labels, answers = arrays["test_labels"], arrays["test_predictions"]
    return len(labels) > 0 and min(labels.min(), answers.min()) >= 0 and max(labels.max(), answers.max()) < classes


def _not_run(done: dict[str, StageRecord], values: Values) -> list[Values]:
    """Everything that was not measured, with its reason: stages first, then single cells."""
    entries = []
    for name, stage in done.items():
        if name in ("pretrain", "probe") and stage.status == "not run" and given(values):
            continue  # of a network that was trained elsewhere nobody misses them
        if stage.status != "done" and name not in OPTIONAL:
            entries.append({"what": name, "status": stage.status, "why": stage.reason})
        elif stage.reason and stage.status == "done":
            entries.append({"what": f"part of {name}", "status": "unfinished", "why": stage.reason})
    if bare := unlabelled.unlabelled(values):
        entries.append({"what": "accuracy", "status": "not run", "why": unlabelled.NO_LABELS})
    mentioned = {entry["why"] for entry in entries}
    for row in values["files"]:
        for what, why in row["not_run"].items():
            if why not in mentioned and not (bare and why.removeprefix("not run: ") == unlabelled.NO_LABELS):
                status = "failed" if why.startswith("failed: ") else "not run"
                entries.append({"what": what, "artifact": row["artifact"], "status": status, "why": why})
    for name in ("data", "pretrain", "probe", "check", "labels"):
        result = done[name].result
        listed = {row["artifact"] for row in values["files"]} if name == "check" else set()
        for cell, why in (result.skipped if result else {}).items():
            if cell not in listed:
                entries.append({"what": f"{name}: {cell}", "status": "not run", "why": why})
    return entries


def _provenance(run: Run, done: dict[str, StageRecord], recipe: Values) -> Values:
    """Provenance: hashes, machine, versions, seed, commands."""
    environments = [
        result.environment for stage in done.values() for result in stage.results.values() if result.environment
    ]
    latest = environments[-1] if environments else {}
    inputs: dict[str, str] = {}
    for stage in done.values():
        for result in stage.results.values():
            inputs |= {key: value for key, value in result.inputs.items() if isinstance(value, str)}
    return {
        "seed": recipe.get("seed"),
        "inputs": dict(sorted(without_folders(inputs).items())),
        "environment": {
            k: latest[k] for k in ("os", "cpu", "gpu", "cores", "threads", "python", "git") if latest.get(k)
        },
        "versions": latest.get("versions", {}),
        "same_environment": all(e.get("versions") == latest.get("versions") for e in environments),
        "performed": _performed(done),
        "commands": _commands(run),
    }


def _commands(run: Run) -> list[str]:
    """What does it again."""
    folder = stages.place(run)
    root = quoted(folder)
    return [
        f"softedge deploy --recipe {root}/recipe.toml --out {quoted(f'{folder}-again')}",
        f"softedge verify {root}/export/FILE",
        f"softedge report {root}",
    ]


def _performed(done: dict[str, StageRecord]) -> list[Values]:
    """The command lines that made the run, in the order in which they were given, and what each of them did."""
    lines: dict[str, Values] = {}
    for stage in done.values():
        for result in stage.results.values():
            command = result.environment.get("command")
            if isinstance(command, str) and command:
                new: Values = {"command": _without_places(command), "started": result.started, "stages": []}
                entry = lines.setdefault(command, new)
                entry["started"] = min(entry["started"], result.started)
                entry["stages"] += [stage.name] * (stage.name not in entry["stages"])
    return sorted(lines.values(), key=lambda entry: str(entry["started"]))


def _without_places(command: str) -> str:
    """Folders by their names: a report that is passed on must not show where they are stored."""
    return re.sub(r"(?<![\w:/.])(?:~|\.{1,2})?/(?:[^\s'\"=,/]+/)+(?=[^\s'\"=,/]+)", "", command)
