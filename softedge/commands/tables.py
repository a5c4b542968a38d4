"""What a command prints: short plain tables on stdout."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from softedge.errors import quoted
from softedge.export import measured
from softedge.progress import on_one_line, plural
from softedge.records import DISTURBED, Result, disturbance
from softedge.run import Run, read_json

_AVERAGE_PRECISION = re.compile("(mask_|voc07_|voc12_)?AP")
_FRACTIONS = ("top1", "top5", "drop", "agreement")


def number(name: str, value: Any) -> str:
    """A metric as a person reads it: accuracies in percent, milliseconds and bytes with their unit."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "not run"
    if "gain" in name or name.endswith("_gap"):
        return f"{100 * value:+.1f} points"
    if any(word in name for word in _FRACTIONS) or _AVERAGE_PRECISION.match(name):
        return f"{round(100 * value, 1) + 0.0:.1f} %"  # never "-0.0 %"
    if name.endswith("_ms"):
        return f"{value:.2f} ms"
    if name == "seconds":
        return f"{value:.1f} s"
    if name.endswith("_bytes"):
        return f"{value / 1e6:.2f} MB"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Left-aligned columns, as wide as their widest cell."""
    if not rows:
        return ""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, *([on_one_line(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def _without_words(reason: str) -> str:
    """A reason behind "not run: NAME": it may say so itself."""
    return reason.removeprefix("not run: ")


def stage(result: Result) -> str:
    """One stage: its metrics and what was left out."""
    width = max(map(len, result.metrics), default=0)
    lines = [f"{result.stage}  {name:<{width}}  {number(name, value)}" for name, value in result.metrics.items()]
    lines += [f"{result.stage}  not run: {name} ({_without_words(reason)})" for name, reason in result.skipped.items()]
    return "\n".join(map(on_one_line, lines))


_TIMED = {
    "p90_ms": "p90", "p50_ms": "p50", "n": "samples", "top1": "top-1", "AP": "AP", "AP50": "AP50",
    "agreement_local": "as checked", "size_bytes": "size", "valid": "valid",
}  # fmt: skip


def timings(results: Sequence[Result]) -> str:
    """The table of ``softedge bench``: what decides.  The report has every measure, in more columns than a terminal.

    Of rows without a time, such as those of an emulator, all measures.
    """
    untimed = {key: key for result in results if "p90_ms" not in result.metrics for key in result.metrics}
    return stages(results, _TIMED | {key: title for key, title in untimed.items() if key not in _TIMED})


def stages(results: Sequence[Result], titles: Mapping[str, str] | None = None) -> str:
    """Several stages of a kind as one table, then what was left out: once, where it is the same of every row.

    titles: of the metrics to show; None: all, by their names.
    """
    shown = titles or {key: key for result in results for key in result.metrics}
    rows = [
        {
            "": result.stage.split("/", 1)[-1],
            **{title: _cell(key, result.metrics) for key, title in shown.items() if key in result.metrics},
        }
        for result in results
        if result.metrics
    ]
    return "\n".join([table(rows), *map(on_one_line, _skipped(results, shown))]).strip("\n")


def _skipped(results: Sequence[Result], titles: Mapping[str, str]) -> dict[str, None]:
    """What of the rows was left out and why: of a row that is in the table by name, of one that is not as a whole."""
    rows = [result for result in results if result.metrics]
    lines: dict[str, None] = {}
    for result in results:
        for cell, reason in result.skipped.items():
            name, title = result.stage.split("/", 1)[-1], titles.get(cell, cell.replace("_", " "))
            if not result.metrics or cell == name:
                what = name
            elif len(rows) > 1 and all(row.skipped.get(cell) == reason for row in rows):
                what = title
            else:
                what = f"{title} of {name}"
            lines[f"not run: {what}: {_without_words(reason)}"] = None
    return lines


def _cell(name: str, metrics: Mapping[str, Any]) -> str:
    """A metric of a table; a timing that other work disturbed is not called valid there."""
    if name == "valid" and metrics[name] and disturbance(metrics.get("p50_ms"), metrics.get("p90_ms")):
        return "disturbed"
    return number(name, metrics[name])


def disturbed(measured: Sequence[Result]) -> list[str]:
    """A line on the rows of ``timings`` that say so."""
    rows = [r for r in measured if r.metrics.get("valid") and _cell("valid", r.metrics) == "disturbed"]
    if not rows:
        return []
    files = f"{len(rows)} of {plural(sum('p90_ms' in r.metrics for r in measured), 'row')}"
    return [f"disturbed: other work ran meanwhile ({files}: p90 above {DISTURBED:g} x p50); measure again with --force"]


def checks(result: Result) -> str:
    """The table of ``softedge check``."""
    shown = ("size_bytes", "top1", "AP", "AP50", "mask_AP", "drop", "agreement", "max_abs_diff", "sqnr_db")
    rows = [
        {
            "file": row["artifact"],
            **{name: number(name, row[name]) for name in shown if row.get(name) is not None},
            "gate": {True: "passed", False: "FAILED", None: "not judged"}[row.get("passed")],
        }
        for row in result.details.get("rows", [])
    ]
    skipped = [f"not run: {name}: {_without_words(reason)}" for name, reason in result.skipped.items()]
    return "\n".join([table(rows), *map(on_one_line, skipped)])


def candidates(result: Result, out: Path) -> str:
    """The table of ``softedge quantize FILE``: what was tried, on the selection images; then the file below ``out``."""
    noise = "saturated" not in result.details  # else no number says how far the answers are from those of the file
    shown = ("agreement", *(["sqnr_db"] if noise else []), "size_bytes", "time_over_fp32")
    rows = [
        {
            **{name: number(name, step[name]) for name in shown if step.get(name) is not None},
            "good enough": "yes" if step["passed"] else "no",
            "candidate": step["what"],  # last: the longest, and of any length
        }
        for step in result.details["steps"]
        if step.get("agreement") is not None
    ]
    details, metrics = result.details, result.metrics
    images = details["images"]
    lines = [table(rows), "", f"chosen on {images['selection']} images: {details['recommendation']}"]
    if "agreement" in metrics:
        agreement = number("agreement", metrics["agreement"])
        lines.append(
            f"on {images['test']} other images: {agreement} of the answers of {details.get('precision', 'fp32')}, "
            + (f"{metrics['sqnr_db']:.1f} dB" if noise else "their noise is not seen")
        )
    if metrics["passed"]:
        file = out / result.stage / details["file"]
        lines.append(f"written: {file}, {number('size_bytes', metrics['size_bytes'])}")
    lines += [f"allowed: {line}" for line in (details.get("allowed"),) if line]
    lines += [f"caution: {line}" for line in details.get("cautions", ())]
    return "\n".join(lines)


def label_issues(result: Result) -> str:
    """The table of ``softedge label-issues``: the worst labels, and where all of them are."""
    metrics, details = result.metrics, result.details
    rows = [
        {
            "": str(issue["rank"]),
            "image": issue["name"],
            "label": f"{issue['label']} {100 * issue['probability']:.0f} %",
            "looks like": f"{issue['suggested']} {100 * issue['suggested_probability']:.0f} %",
            "split": issue.get("split", ""),
        }
        for issue in details["issues"]
    ]
    lines = [table(rows), ""] if rows else []
    lines += [
        f"{metrics['n_issues']:,} of {metrics['n_labelled']:,} labels look wrong to a classifier trained without them",
        f"it agrees with {number('top1', metrics['cv_top1'])} of all labels; features: {details['features']}",
    ]
    if tested := metrics.get("n_test_issues"):  # a run of an earlier version counted none
        which = "of them is a test image" if tested == 1 else "of them are test images"
        lines.append(
            f"{tested:,} {which} (column split): correct test labels only if you look at all test images, for "
            "correcting only those that a network doubts flatters that network"
        )
    if metrics["n_issues"] > len(rows):
        file = "label_issues/wrong_labels.csv of the run"
        lines.append(f"shown: the worst {len(rows)} of {metrics['n_issues']:,}; all are in {file}")
    lines += [f"not judged: {name} ({reason})" for name, reason in result.skipped.items()]
    return "\n".join(lines)


def label_next(result: Result) -> str:
    """The table of ``softedge label-next``: the first images to label, and why these."""
    metrics, details = result.metrics, result.details
    rows = [
        {"": str(image["rank"]), "image": image["name"], "looks like": image["suggested"] or "-"}
        for image in details["images"]
    ]
    lines = [
        table(rows),
        "",
        f"{metrics['n_next']:,} of {metrics['n_unlabelled']:,} unlabelled images: {details['reason']}",
        f"features: {details['features']}",
    ]
    if metrics["n_next"] > len(rows):
        file = "label_next/label_next.csv of the run"
        lines.append(f"shown: the first {len(rows)} of {metrics['n_next']:,}; all are in {file}")
    return "\n".join(lines)


def features_of(pretrained: Result | None) -> str:
    """Whose features the run has: those of pretraining, or of the weights it started from."""
    from softedge.report import words  # a tenth of a second that other commands do without

    done = {"metrics": pretrained.metrics, "kept": pretrained.details.get("kept")} if pretrained else {}
    return "pretrained" if words.pretrained({"pretrain": done}) else "starting weights"


def deployment(run: Run) -> str:
    """What ``softedge deploy`` made: accuracy of the features, one row a file, where the report is."""
    from softedge.stages.gate import judged, missing, wanted
    from softedge.stages.opening import reopen

    lines: list[str] = []
    probe = run.result("probe")
    if probe is not None:
        rows = [
            {
                "features": title,
                **{
                    column: number(key, probe.metrics[prefix + key])
                    for column, key in (
                        ("k-NN", "knn_top1"),
                        ("linear", "linear_top1"),
                        ("linear, few labels", "few_linear_top1"),
                    )
                    if prefix + key in probe.metrics
                },
            }
            for title, prefix in ((features_of(run.result("pretrain")), ""), ("random weights", "random_"))
            if prefix + "knn_top1" in probe.metrics
        ]
        lines += [table(rows), ""]
    opened, recipe = reopen(run.root)
    checked = judged(opened, recipe.check)
    benched = measured.timed(run.results("bench"), measured.files(run))
    bare = checked is not None and checked.details.get("images", {}).get("labelled") is False
    rows = []
    for row in checked.details.get("rows", []) if checked else []:
        timed = [r for name, r in benched.items() if name.startswith(row["artifact"] + "@") and "p90_ms" in r.metrics]
        rows.append(
            {
                "file": row["artifact"],
                "size": number("size_bytes", row["size_bytes"]),
                "top-1": "no labels" if bare and row.get("top1") is None else number("top1", row.get("top1")),
                "same answers": number("agreement", row.get("agreement")),
                "p90": _timed(timed[0]) if timed else "not run",
                "gate": {True: "passed", False: "FAILED", None: "not judged"}[row.get("passed")],
            }
        )
    lines += [table(rows), *missing(wanted(opened, recipe)), "", f"report: {run.root / 'report.html'}", ""]
    return "\n".join([*lines, *verdict(run.root)])


def verdict(root: Path) -> list[str]:
    """What report.json of a run says to ship and why, and what to know before: a line each.

    A report must not show where the run is stored; a command on a terminal must, to be pasted.
    """
    run = read_json(root / "report.json")["runs"][0]
    pick, cautions = run["verdict"]["picks"][0], run["verdict"]["cautions"]
    lines = [f"verdict: {pick['answer']} {pick['reason']}", *(f"caution: {line}" for line in cautions)]
    if (name := run.get("folder")) == root.name:
        command = re.compile(rf"(softedge (?:bench|check|export) ){re.escape(quoted(name))}(?!\S)")
        lines = [command.sub(lambda found: found[1] + quoted(root), line) for line in lines]
    return [on_one_line(line.replace("\u202f", " ")).rstrip() for line in lines]  # a terminal may lack the narrow space


def _timed(benched: Result) -> str:
    """A p90, and the accuracy where it was timed in 16 bits: the check's is another computation's."""
    from softedge.report import computed

    precision = computed.half(benched.details)
    note = f" in {precision}, top-1 {number('top1', benched.metrics.get('top1'))}" if precision else ""
    return number("p90_ms", benched.metrics["p90_ms"]) + note


def verified(outcome: Mapping[str, Any]) -> str:
    """The rows of ``softedge verify``."""
    values = {name: value for name, value in outcome.items() if not isinstance(value, list | dict)}
    width = max(map(len, values))
    return "\n".join(on_one_line(f"{name:<{width}}  {number(name, value)}") for name, value in values.items())


def recipes(available: Mapping[str, Path]) -> str:
    """Names and the first comment line of the recipes."""
    return table([{"recipe": name, "what it is": _first_comment(path)} for name, path in available.items()])


def _first_comment(path: Path) -> str:
    first = path.read_text().splitlines()[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""
