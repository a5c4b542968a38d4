"""The sentences of the page that carry numbers: leads, captions, facts. Values come in, marked-up text goes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup, escape

from softedge.records import REFERENCE
from softedge.report import computed, trained, unlabelled, words
from softedge.report.few import FEW_IMAGES, known_to

Values = dict[str, Any]


def number(value: float, text: str) -> Markup:
    """A number as people read it, with the exact value of report.json behind it."""
    return Markup('<data value="{}">{}</data>').format(repr(value), text)


def shown(write: Callable[[float], str]) -> Callable[[float], Markup]:
    return lambda value: number(value, write(value))


SHOW: dict[str, Callable[[float], Markup]] = {
    "percent": shown(words.percent),
    "percent0": shown(lambda v: words.percent(v, 0)),
    "points": shown(lambda v: words.points(v)),
    "drop": shown(lambda v: words.points(v).lstrip("+")),
    "number": shown(lambda v: words.exponent(v) if 0 < abs(v) < 1e-3 else words.significant(v)),
    "plain1": shown(lambda v: f"{v:.1f}".replace("-", words.MINUS)),
    "size": shown(words.size),
    "count": shown(words.count),
    "duration": shown(words.duration),
    "milliseconds": shown(words.milliseconds),
}


def about(run: Values) -> str:
    """One line under the name: network, method, data, day."""
    recipe, data = run["recipe"], run["data"]
    name = recipe.get("backbone", {}).get("name", "")
    student = trained.taught_network(run).get("name")
    parts = [
        f"{student}, taught by {name}" if student else name,
        recipe.get("ssl", {}).get("method", "") if words.pretrained(run) else "",
        _source_name(data.get("source") or recipe.get("data", {}).get("source", "")),
    ]
    days = sorted(stage["started"] for stage in run["stages"] if stage.get("started"))
    parts.append(words.moment(days[-1]).split(",")[0] if days else "")
    return " · ".join(part for part in parts if part)


def _source_name(source: str) -> str:
    """The last part of a path: a report that is passed on must not show where it is stored."""
    return source.rstrip("/").rsplit("/", 1)[-1]


def stage_summary(run: Values, stage: Values) -> str:
    """A few words under the name of a stage."""
    if stage["status"] != "done":
        return str(stage["status"])
    name, files = stage["stage"], run["files"]
    written = [row for row in files if row.get("size_bytes")]
    if name == "data":
        return words.plural((run["data"].get("n_pretrain") or 0) + (run["data"].get("n_test") or 0), "image")
    if name == "pretrain":
        epochs = run["pretrain"].get("metrics", {}).get("epochs")
        spent = words.duration(stage["seconds"])
        if epochs == 0:
            return "left out"
        if run["pretrain"].get("kept") == "start":
            return f"did not help, {spent}"
        return f"{words.plural(epochs, 'epoch')}, {spent}" if epochs else spent
    if name == "probe":
        linear = run["probe"]["metrics"].get("linear_top1")
        return f"{words.percent(linear)} linear" if linear is not None else "done"
    if name in ("finetune", "distill", "scratch") and words.is_number(run[name].get("metrics", {}).get("top1")):
        return f"{words.percent(run[name]['metrics']['top1'])} top-1"
    if name == "baselines":
        metrics = run["baselines"].get("metrics", {})
        return f"cheap: {words.percent(metrics['cheap_top1'])}" if "cheap_top1" in metrics else "done"
    if name == "export":
        return f"{len(written)} of {words.plural(len(files), 'file')}"
    if name == "quantize":
        searched = sum(bool(row.get("search")) for row in files)
        taken = sum(row["precision"].endswith("-search") for row in written)
        if not searched and taken:
            return f"{words.plural(taken, 'file')} with another's integers"
        return f"{words.plural(searched, 'int8 file')} searched" if searched else "no search needed"
    if name == "check":
        passed, failed = sum(row["gate"] == "passed" for row in files), sum(is_failure(row) for row in files)
        return f"{passed} passed, {failed} failed" if failed else f"{passed} of {len(written)} passed"
    if name == "bench":
        timed = {row["artifact"] for row in files for t in row["devices"].values() if t.get("p50_ms")}
        where = words.plural(len(run["devices"]), "device")
        return f"{words.plural(len(timed), 'file')}, {where}" if timed else "nothing timed"
    return words.duration(stage["seconds"])


def stage_failed(run: Values, stage: Values) -> bool:
    if stage["status"] in ("damaged", "unfinished"):
        return True
    if stage["stage"] == "bench" and stage["status"] == "done":
        return not any(t.get("p50_ms") for row in run["files"] for t in row["devices"].values())
    return stage["stage"] == "check" and any(is_failure(row) for row in run["files"])


def is_failure(row: Values) -> bool:
    """Refused by the gate, and no searched file stands in its place."""
    return row["gate"] == "failed" and not row.get("superseded_by")


def why_not(run: Values, stage: str) -> str:
    """Why a stage has nothing to show."""
    return next((str(s.get("reason", "")) for s in run["stages"] if s["stage"] == stage), "")


def missing(row: Values, place: str) -> str:
    """Why a cell of a row is empty; place: "check" or a device."""
    reasons = row["not_run"]
    for key in ("export", place, f"latency on {place}", "check" if place == "check" else "bench"):
        if reasons.get(key):
            return str(reasons[key])
    return str(row.get("why") or "not measured")


def files_lead(run: Values) -> Markup:
    files = [row for row in run["files"] if row.get("size_bytes")]
    passed = sum(row["gate"] == "passed" for row in run["files"])
    checked = any(row["gate"] != "not run" for row in run["files"])
    text = f"{words.plural(len(files), 'file')} exported, " + (
        f"{passed} passed the gate" if checked else "none checked"
    )
    timed = {row["artifact"] for row in run["files"] for t in row["devices"].values() if t.get("p90_ms")}
    text += f", {len(timed)} timed." if run["devices"] else ", none timed."
    gates, bare = run["check"].get("gates", {}), unlabelled.lead(run)
    if gates.get("min_agreement") is not None and gates.get("max_drop") is not None:
        text += f" The gate asks for at least {words.percent(gates['min_agreement'], 0)} of fp32's answers" + (
            "" if bare else f" and allows a drop of at most {words.points(gates['max_drop']).lstrip('+')} points"
        )
        few = any(0 < (row.get("n") or FEW_IMAGES) < FEW_IMAGES for row in run["files"])
        text += f"; of fewer than {FEW_IMAGES} images, one answer may change, from 20 dB on." if few else "."
    text += f" {bare}" if bare else ""
    return Markup(escape(text))


def files_caption(run: Values) -> Markup:
    row = next((r for r in run["files"] if r.get("top1") is not None and r.get("n")), None)
    text = Markup("Size of the whole model. {}Agreement: share of images with the same top-1 class{}.").format(
        *(
            ("", " as in PyTorch fp32")
            if unlabelled.unlabelled(run)
            else ("Points lost: top-1 lost against PyTorch fp32 on the same images. ", "")
        )
    )
    if row is not None:
        half = known_to(row["top1"], row["n"])
        text += Markup(" With {} test images an accuracy is known to about ± {} points (95 % interval).").format(
            SHOW["count"](row["n"]), half
        )
    if len(run["devices"]) > 0:
        text += Markup(" Latency of one image, batch 1: p90, with p50 in small type.")
    return text + escape(f" {said}" if (said := interpreted(run["files"])) else "")


def interpreted(files: Sequence[Values]) -> str:
    """A sentence where files were not computed by the runtime of their format."""
    names = [words.artifact_name(row["artifact"]) for row in files if str(row.get("runtime")).startswith(REFERENCE)]
    if not names:
        return ""
    were = "was" if len(names) == 1 else "were"
    return f"{words.listing(names)} {were} computed by a {REFERENCE} of the program, not by Core ML itself."


def scatter_caption(run: Values, device: str) -> str:
    untimed = [
        words.artifact_name(row["artifact"])
        for row in run["files"]
        if row.get("size_bytes") and not (row["devices"].get(device) or {}).get("p90_ms")
    ]
    text = f"Accuracy over p90 latency on {run['devices'][device]['called']}. The area of a dot shows the file size."
    if any(row["gate"] == "failed" for row in run["files"]):
        text += " Hollow dots failed the gate."
    timings = [row["devices"].get(device) or {} for row in run["files"]]
    if any(computed.otherwise(timing) for timing in timings):
        text += " Where the device did not compute what was checked, the accuracy is the device's."
    if untimed:
        text += f" Not timed here: {words.listing(untimed)}."
    return text


PROBES = {
    "linear_top1": "linear, all labels",
    "linear_top5": "linear, all labels, top-5",
    "knn_top1": "k-NN, all labels",
    "few_linear_top1": "linear, {few} labels per class",
    "few_knn_top1": "k-NN, {few} labels per class",
}


def probe_rows(run: Values) -> list[tuple[str, str]]:
    metrics, few = run["probe"]["metrics"], run["probe"].get("few_labels_per_class", "few")
    return [(key, title.format(few=few)) for key, title in PROBES.items() if key in metrics]


def few_range(run: Values, key: str) -> Markup:
    """The range over the draws of the few labels, in small type."""
    prefix = "random_" if key.startswith("random_") else ""
    kind = key.removeprefix(prefix).removesuffix("_top1")
    ends = run["probe"].get(f"{prefix}{kind}_range")
    if not ends:
        return Markup("")
    return Markup('<span class="small">{} to {}</span>').format(*(SHOW["percent"](end) for end in ends))


def curves_note(run: Values) -> Markup:
    metrics, ssl = run["pretrain"].get("metrics", {}), run["recipe"].get("ssl", {})
    if metrics.get("epochs") == 0:
        return Markup("Not pretrained: the starting weights were kept.")
    parts = [Markup(escape(ssl.get("method", "")))]
    for key, write, unit in (
        ("epochs", SHOW["count"], " epochs"),
        ("steps", SHOW["count"], " steps"),
        ("images_per_second", SHOW["count"], " images a second"),
    ):
        if words.is_number(metrics.get(key)):
            parts.append(write(metrics[key]) + Markup(unit))
    last = "The loss alone says little about the features"
    last += "; the k-NN accuracy does." if run["pretrain"].get("knn_top1_curve") else "."
    return Markup(", ").join(part for part in parts if part) + Markup(". ") + last


def int8_lead(run: Values) -> str:
    eight = [row for row in run["files"] if words.is_int8(row["precision"]) and row["gate"] != "not run"]
    if not eight:
        return "No int8 file was checked."
    passed = [words.artifact_name(row["artifact"]) for row in eight if row["gate"] == "passed"]
    failed = [words.artifact_name(row["artifact"]) for row in eight if row["gate"] == "failed"]
    parts = []
    n = next((row["n"] for row in eight if row.get("n")), 0)
    gate = f"the gate on {words.count(n)} test images" if n else "the gate"
    if passed:
        parts.append(f"{words.listing(passed)} passed {gate}")
    if failed:
        parts.append(f"{words.listing(failed)} {'did not' if passed else f'failed {gate}'}")
    calibrated = next((row["calibration"] for row in eight if (row.get("calibration") or {}).get("images")), None)
    if calibrated:
        parts.append(
            f"activation ranges were calibrated on {words.count(calibrated['images'])} "
            + (
                f"calibration images of {_source_name(str(run['data'].get('source') or 'the folder'))}"
                if words.given(run) and calibrated["source"] == "pretraining images"
                else f"{calibrated['source'] or 'images'}"
            )
        )
    gained = any((row.get("drop") or 0) < 0 for row in eight)
    return "; ".join(parts) + "." + (" An int8 accuracy above fp32 is chance, not a gain." if gained else "")


def what_counts(row: Values) -> str:
    """What the check says of a file of which the int8 search was not sure; "" where it was, or nothing was checked."""
    if (
        row["gate"] == "not run"
        or row.get("superseded_by")
        or any(step.get("passed") for step in row.get("search") or [])
    ):
        return ""
    images = f"the {words.count(row['n'])} test images" if row.get("n") else "the test images"
    found = f" {words.percent(row['agreement'])} of the answers of fp32" if row.get("agreement") is not None else " it"
    why = row.get("allowed") or row.get("why")
    judged = f"the gate {'passed' if row['gate'] == 'passed' else 'refused'} the exported file" + (
        f" ({why})" if why else ""
    )
    return f"What counts is the check: on {images} it measured{found}, and {judged}."


def device_lead(run: Values, device: str) -> str:
    """What was measured on, in a sentence or two: the device, its clock speed and its temperature."""
    about = run["devices"][device]
    reported, parts = about["about"], []
    if about.get("threads"):
        parts.append(words.plural(about["threads"], "thread"))
    if about.get("preset"):
        parts.append(f"preset {about['preset']}")
    if reported.get("os"):
        parts.append(str(reported["os"]))
    if reported.get("isa"):
        isa = reported["isa"]
        parts.append(" ".join(isa) if isinstance(isa, list) else str(isa))
    if reported.get("governor"):
        parts.append(f"governor {reported['governor']}")
    first = ", ".join(parts) + "." if parts else "The device reported nothing about itself."
    return " ".join([first, *_conditions(run, device)])


def _conditions(run: Values, device: str) -> list[str]:
    """Clocks, temperature and throttling before and after, of the files that were measured together."""
    around = [
        row["devices"][device]["conditions"] for row in run["files"] if "conditions" in row["devices"].get(device, {})
    ]
    before, after = ([state.get(key) or {} for state in around] for key in ("before", "after"))
    parts = []
    for key, name in (("clocks_mhz", "clocks {} MHz"), ("temperature_c", "{} °C")):
        ends = [_range([value for state in side for value in _listed(state.get(key))]) for side in (before, after)]
        if all(ends):
            parts.append(name.format(" before and ".join(ends) + " after"))
    throttled = {state["throttling"] for state in after if state.get("throttling") not in (None, "none")}
    if throttled:
        parts.append(f"throttling: {', '.join(sorted(throttled))}")
    return (
        [f"During the measurement: {', '.join(parts)}."]
        if parts
        else ["Clock speed and temperature were not available on this device."]
    )


def _listed(value: Any) -> list[float]:
    return [v for v in (value if isinstance(value, list) else [value]) if words.is_number(v)]


def _range(values: list[float]) -> str:
    low, high = (f"{end:.0f}" for end in (min(values), max(values))) if values else ("", "")
    return low if low == high else f"{low} to {high}"


def further(run: Values) -> list[tuple[str, str, float]]:
    """Fine-tuning and linear protocols: (what, measure, fraction)."""
    measures = {"top1": "top-1", "top5": "top-5"}
    trained = [
        ("fine-tuned", run["finetune"]),
        ("taught by a teacher", run.get("distill", {})),
        ("labels alone", run.get("scratch", {})),
    ]
    stages = [(what, stage.get("metrics", {})) for what, stage in trained if stage]
    stages += [(f"linear, protocol {name}", metrics) for name, metrics in run["linear"].items()]
    return [(what, measures[key], metrics[key]) for what, metrics in stages for key in measures if key in metrics]
