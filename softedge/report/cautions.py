"""What a reader should know before acting on the verdict. Pure functions; an empty list is good news."""

from __future__ import annotations

from typing import Any

from softedge.errors import quoted
from softedge.records import disturbance
from softedge.report import detectors, present, trained, words
from softedge.report.few import FEW_IMAGES, interval

Values = dict[str, Any]

MANY_BAD = 0.02
_SPLITS = {"pretrain": "training", "train": "labelled training", "test": "test"}


def cautions_of(run: Values, chosen: str = "") -> list[str]:
    """One sentence each, the most serious first.  chosen: the artifact that the verdict names."""
    sentences = [
        *_other_file(run),
        *_other_sessions(run),
        *detectors.cautions(run),
        *_features_alone(run),
        *_not_held_out(run),
        *_set_aside(run),
        *_no_better_than_random(run),
        *_few_images(run),
        *filter(None, [trained.passed_over(run)]),
        *_few_pixels(run),
    ]
    return [*sentences, *_caveats(run), *_disturbed(run), *_drift(run, chosen), *_bad_images(run), *_training(run)]


def _called(run: Values, device: str) -> str:
    return str(run["devices"].get(device, {}).get("short") or device)


def _other_file(run: Values) -> list[str]:
    sentences = []
    for row in run["files"]:
        for cell, why in row["not_run"].items():
            if why == present.TIMED:
                device = cell.removeprefix("latency on ")
                sentences.append(
                    f"{words.artifact_name(row['artifact'])} on {_called(run, device)}: {why}; "
                    f"{_again(run, device) or 'measure it again'}"
                )
    return sentences


def _other_sessions(run: Values) -> list[str]:
    """Files of a device that were timed at another moment than most of the others."""
    sentences = []
    for device in run["devices"]:
        names: dict[str, list[str]] = {}
        for row in run["files"]:
            timing = row["devices"].get(device) or {}
            if timing.get("p90_ms") and timing.get("session") and not timing.get("measured_elsewhere"):
                names.setdefault(timing["session"], []).append(words.artifact_name(row["artifact"]))
        if len(names) > 1:
            most = max(names, key=lambda session: len(names[session]))
            others = [name for session, found in names.items() if session != most for name in found]
            verb = "was" if len(others) == 1 else "were"
            sentences.append(
                f"{words.listing(others)} on {_called(run, device)} {verb} timed in another session than the other "
                f"files, and the latencies may not compare; {_again(run, device, force=True)}"
            )
    return sentences


def _not_held_out(run: Values) -> list[str]:
    if run["check"].get("images", {}).get("held_out") is False:
        return ["There is no test split: the files were compared on training images."]
    return []


def _set_aside(run: Values) -> list[str]:
    """What results were made without; one sentence for the stages that lacked the same images."""
    sentences = []
    for entry in run.get("set_aside", []):
        stages = words.listing(entry["stages"])
        left, of = words.count(entry["of"] - entry["n"]), words.count(entry["of"])
        names = ", ".join(entry["names"]) + (", ..." if entry["n"] > len(entry["names"]) else "")
        lost = f"{words.count(entry['n'])} could no longer be used ({names})"
        verb = "was" if len(entry["stages"]) == 1 else "were"
        sentences.append(f"{stages} {verb} done with {left} of {of} {_SPLITS[entry['split']]} images: {lost}.")
    return sentences


def _no_better_than_random(run: Values) -> list[str]:
    """That the weights gained nothing, where no classifier on them is clearly better than on random weights; which of
    them are clearly worse, where another is better.
    """
    metrics, intervals = run["probe"].get("metrics", {}), run["probe"].get("gain_intervals", {})
    start = "Pretraining" if words.pretrained(run) else "The starting weights"
    few = f"linear probe with {run['probe'].get('few_labels_per_class')} labels per class"
    gains = []
    for kind, name in (("linear_top1", "linear probe"), ("knn_top1", "k-NN"), ("few_linear_top1", few)):
        trained, untrained = metrics.get(kind), metrics.get(f"random_{kind}")
        if trained is not None and untrained is not None:
            low, high = intervals.get(kind, (trained - untrained, trained - untrained))
            within = f" (95 % {words.points(low)} to {words.points(high)} points)" if low < high else ""
            compared = f"{words.percent(trained)}, with random weights {words.percent(untrained)}{within}."
            gains.append((low, high < 0 or low == high <= 0, name, compared))
    worse = [(name, compared) for _, clear, name, compared in gains if clear]
    if any(low > 0 for low, *_ in gains):
        return [f"{start} did not help the {name} here: {compared}" for name, compared in worse]
    if not gains:
        return []
    said = f"{start} did not help here" if worse else f"It is not clear that {start.lower()} helped here"
    name, compared = (worse or [gain[2:] for gain in gains])[0]
    return [f"{said}: the {name} reaches {compared}"]


def _features_alone(run: Values) -> list[str]:
    """A folder of one class is taken for one without labels: whoever meant classes should not ship the file."""
    labelled = run["data"].get("n_train")
    given = run["recipe"].get("export", {}).get("source") == "given"  # its labels are those of the weights
    features = any(row.get("distance") is not None and row.get("agreement") is None for row in run["files"])
    if labelled != 0 or given or not features:
        return []
    return [
        "No image has a label, so the files return features, not classes. For a classifier, label some images, or give "
        "--data the folder that holds a folder for each class."
    ]


def _few_images(run: Values) -> list[str]:
    """How little an accuracy, and the agreement of the int8 file that keeps the fewest answers, are known."""
    few = [row for row in run["files"] if row.get("n") and row["n"] < FEW_IMAGES]
    sentences = []
    if (row := next((row for row in few if row.get("top1") is not None), None)) is not None:
        low, high = interval(row["top1"], row["n"])
        sentences.append(
            f"Only {words.plural(row['n'], 'test image')}: an accuracy of {words.percent(row['top1'])} could as well "
            f"be {words.percent(low)} or {words.percent(high)}."
        )
    passed = [row for row in few if row.get("agreement") is not None and row.get("gate") == "passed"]
    int8 = [row for row in passed if words.is_int8(row["precision"])]
    if row := min(int8, key=lambda row: float(row["agreement"]), default=None):
        low, _ = interval(row["agreement"], row["n"])
        sentences.append(
            f"{words.artifact_name(row['artifact'])} keeps {words.percent(row['agreement'])} of fp32's answers to "
            f"{words.plural(row['n'], 'test image')}: of others it may keep as few as {words.percent(low, 0)}."
        )
    return sentences


def _few_pixels(run: Values) -> list[str]:
    """What the plan said of its pixels, unless the run was trained at others."""
    plan = run.get("plan", {})
    few, planned = plan.get("few_pixels"), plan.get("values", {}).get("data.size")
    if not few or planned != run.get("recipe", {}).get("data", {}).get("size"):
        return []
    return [f"{few[0].upper()}{few[1:]}."]


def _caveats(run: Values) -> list[str]:
    """What a device says of itself, or of a measurement."""
    sentences = []
    for name, device in run["devices"].items():
        timings = [row["devices"][name] for row in run["files"] if name in row["devices"]]
        caveats = [device["about"].get("caveat"), *(timing.get("caveat") for timing in timings)]
        sentences += [f"{device['short']}: {caveat}." for caveat in dict.fromkeys(filter(None, caveats))]
    return sentences


def _disturbed(run: Values) -> list[str]:
    """Devices where something else was running, by the rule of ``records.disturbance``."""
    sentences = []
    for device in run["devices"]:
        timings = [row["devices"].get(device, {}) for row in run["files"]]
        timed = [t for t in timings if t.get("p50_ms") and t.get("p90_ms")]
        wide = [ratio for t in timed if (ratio := disturbance(t["p50_ms"], t["p90_ms"])) is not None]
        if wide:
            of = f"{len(wide)} of {words.plural(len(timed), 'file')}"
            again = _again(run, device, force=True) or "measure again"
            sentences.append(
                f"On {_called(run, device)}, p90 is up to {words.times(max(wide))} p50 ({of}): "
                f"other work disturbed the measurement; when the device is idle, {again}"
            )
    return sentences


def _again(run: Values, device: str, force: bool = False) -> str:
    """The command that measures on a device again, without a full stop, to be copied; empty where another tool did.

    force: what is done would be skipped otherwise.
    """
    about = run["devices"].get(device, {})
    if about.get("kind") == "elsewhere":
        return ""
    preset = about.get("preset") or ""
    other = preset and preset != run.get("recipe", {}).get("bench", {}).get("preset", "quick")
    address = quoted(about.get("address") or device)
    options = f" --devices {address}{f' --preset {preset}' if other else ''}{' --force' if force else ''}"
    return f"run: softedge bench {quoted(run.get('folder') or 'RUN')}{options}"


def _drift(run: Values, chosen: str) -> list[str]:
    sentences = []
    for row in run["files"]:
        for device, timing in row["devices"].items():
            drift = timing.get("drift")
            if row["artifact"] == chosen and isinstance(drift, dict) and drift.get("flagged"):
                change = drift["ratio"] - 1
                direction = "slower" if change > 0 else "faster"
                sentences.append(
                    f"{words.artifact_name(chosen)} on {_called(run, device)} was {words.percent(abs(change), 0)} "
                    f"{direction} at the end of the measurement than at its start: heat, or other work on the machine."
                )
    return sentences


def _bad_images(run: Values) -> list[str]:
    data = run["data"]
    used = sum(data.get(key) or 0 for key in ("n_pretrain", "n_test"))
    aside = sum(data.get(key) or 0 for key in ("n_duplicates", "n_contradictions"))
    bad = data.get("n_bad") or 0
    found = used + aside + bad
    if used and bad / found > MANY_BAD:
        return [f"{words.count(bad)} of {words.count(found)} images could not be read and were left out."]
    return []


def _training(run: Values) -> list[str]:
    """What the guard of the pretraining said, once each."""
    return [f"Pretraining warned: {warning}" for warning in dict.fromkeys(run["pretrain"].get("warnings", []))][:3]
