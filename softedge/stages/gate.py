"""The gates that need the results of several stages, judged anew by every command that asks.

``softedge check`` compares with PyTorch, ``softedge bench`` measures latency. Whether a file is fast enough is decided
from both, whichever of them was run last.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softedge import registry
from softedge.bench.base import open_device
from softedge.config import Check, Export, Recipe
from softedge.errors import GateFailed, quoted
from softedge.export import measured
from softedge.export.nearest import SURE_DB
from softedge.export.refused import by_reason
from softedge.progress import say
from softedge.records import SEARCHED, Precision, Result, disturbance
from softedge.run import Run, write_json
from softedge.stages import incomplete, kept
from softedge.stages.opening import reopen

if TYPE_CHECKING:
    from softedge.data.images import Data


OPTIONAL = ("fp16", "int8")  # nobody asked for them by name
FILE = "gate.json"  # what was judged last, for the report
FAILED = "failed: "  # begins the reason of a bench row where a device tried the file


def gate(
    run: str | Path | Run,
    max_p90: float | None = None,
    allow_missing: bool = False,
    strict: bool = False,
    set: Sequence[str] = (),
) -> None:
    """GateFailed when a file of the run is refused or missing, naming each and the reason.

    max_p90: milliseconds that an int8 file may take on every device that it was timed on; None: the recipe's.
    allow_missing: do not require files of the recipe that could not be made; those begun, or gone since, are.
    set: values for the recipe, as ``check`` was given them.
    strict: files of optional precisions have to pass as well, because somebody has set a limit for them.
    """
    root = run.root if isinstance(run, Run) else run
    if plugin := registry.owner(root):
        plugin.gate(run=root)
        return
    opened, recipe = reopen(root, set)
    limits = recipe.check if max_p90 is None else recipe.check.model_copy(update={"max_p90": max_p90})
    optional, checked = () if strict else limits.optional, judged(opened, limits)
    exports = [] if allow_missing else wanted(opened, recipe)
    failed, cautions = _missing(exports, optional, _passed(checked, optional) if checked else ())
    failed += [f"{name} {why}" for name, why in incomplete.files(opened, recipe).items()]
    again = f"was replaced since it was checked; run: softedge check {quoted(opened.root)}"
    failed += [f"{name} {again}" for name in measured.replaced(opened.result("check"), measured.files(opened))]
    if checked is not None:
        refused, more = failures(checked, optional)
        failed, cautions = failed + refused, cautions + more
    for line in by_reason(cautions):
        say(f"caution: {line}; other files of the format passed, and --precisions did not ask for this one")
    if failed:
        raise GateFailed(*by_reason(failed), *(kept.notes(opened, checked, limits) if checked is not None else []))


def failures(checked: Result, optional: Sequence[str]) -> tuple[list[str], list[str]]:
    """The lines of the files that were refused: those that fail the run, and those that are a caution.

    A caution: an optional precision where a file of the same format in another one passed, unless
    it is too large, too slow or too often wrong (those limits are there because somebody set them), or its contract
    contradicts it.
    """
    tried = [row for row in checked.details.get("rows", []) if _is_in(optional, row["precision"])]
    passed = _passed(checked, optional)
    limited = [row for row in tried if row.get("judged_late") or row.get("too_large") or row.get("contradicted")]
    spared = {row["artifact"] for row in tried if row["target"] in passed and row not in limited}
    refused: list[str] = checked.details.get("failed", [])
    cautions = [line for line in refused if line.partition(": ")[0] in spared]
    return [line for line in refused if line not in cautions], cautions


def _passed(checked: Result, optional: Sequence[str]) -> set[str]:
    """The formats of which a file passed that is not optional."""
    rows = checked.details.get("rows", [])
    return {row["target"] for row in rows if row.get("passed") and not _is_in(optional, row["precision"])}


def _is_in(optional: Sequence[str], precision: str) -> bool:
    return precision.removesuffix(SEARCHED) in optional


def _missing(
    exports: Sequence[Result], optional: Sequence[str], passed: Collection[str]
) -> tuple[list[str], list[str]]:
    """The lines of ``missing`` that fail the run, and those that are a caution, by the rule of ``failures``.

    passed: formats with another good file.  A caution: a file that the export refused.  One that could not be made for
    another reason, such as a missing package, fails.
    """

    def spared(export: Result) -> bool:
        target, _, precision = export.stage.removeprefix("export/").partition("-")
        return bool(export.details.get("refused")) and _is_in(optional, precision) and target in passed

    return missing([e for e in exports if not spared(e)]), missing([e for e in exports if spared(e)])


def optional_precisions(chosen: Recipe, asked: bool, set: Sequence[str]) -> tuple[str, ...] | None:
    """Precisions whose refused files are a caution: all but fp32 where every precision is tried by default and no limit
    was given.  None: as the recipe says.
    """
    if any(item.startswith("check.optional") for item in set):
        return None
    if asked:
        return ()
    return None if chosen.check.optional or chosen.export.precisions != Export().precisions else OPTIONAL


def wanted(run: Run, recipe: Recipe) -> list[Result]:
    """The results of the exports that the recipe asks for, of those that were tried."""
    from softedge.stages.export import asked, file_names  # imports torch

    tried = run.results("export")
    return [tried[name] for name in file_names(asked(recipe)) if name in tried]


def missing(exports: Sequence[Result]) -> list[str]:
    """A line for each export that gave no file."""
    return [
        f"{export.stage.removeprefix('export/')} was not made: {export.skipped['model']}"
        for export in exports
        if "model" in export.skipped
    ]


def require(run: str | Path, exports: Sequence[Result], asked: bool = False) -> None:
    """GateFailed when one of the exports gave no file, unless a refused one is a caution, as in ``gate``.

    asked: their precisions were named.
    """
    optional = () if asked or registry.owner(run) else reopen(run)[1].check.optional
    names = [e.stage.removeprefix("export/").partition("-") for e in exports if "model" not in e.skipped]
    made = {target for target, _, precision in names if not _is_in(optional, precision)}
    failed, cautions = _missing(exports, optional, made)
    for line in by_reason(cautions):
        say(f"caution: {line}; other files of the format were made, and --precisions did not ask for this one")
    if failed:
        raise GateFailed(*by_reason(failed))


def require_close(run: str | Path, exports: Sequence[Result]) -> None:
    """GateFailed for 8-bit files that the export itself saw far from fp32: less than ``SURE_DB``, too few answers.

    It saw a few images, so that the one without the other says little; ``check`` judges on all.  Not where the int8
    search has a better file already, or where a plug-in has measures of its own.
    """
    if registry.owner(run):
        return
    opened, recipe = reopen(run)
    lines = []
    for export in exports:
        name, noise = export.stage.removeprefix("export/"), export.metrics.get("sqnr_db")
        kept = export.metrics.get("agreement", 1.0)
        searched = measured.searched(opened.results("quantize"), measured.files(opened)).get(name)
        better = searched is not None and searched.details.get("file") != name
        if noise is None or noise >= SURE_DB or kept >= recipe.check.min_agreement or better:
            continue
        if Precision.named(name.partition("-")[2]).weights == 8:
            lines.append(
                f"{name} has {kept:.1%} of the answers of fp32 and {noise:.1f} dB on {export.metrics['n']} images"
            )
    if lines:
        raise GateFailed(f"{'; '.join(lines)}; search for a better file: softedge quantize {quoted(opened.root)}")


def benched(run: Run) -> list[Result]:
    """The measurements of the run's files on the devices that its recipe asks for."""
    opened, recipe = reopen(run.root)
    asked = {open_device(device).label for device in recipe.bench.devices}
    results = measured.timed(opened.results("bench"), measured.files(opened))
    return [result for result in results.values() if result.recipe.get("device") in asked]


def require_measured(benched: Iterable[Result]) -> None:
    """GateFailed when a device tried to run one of the files and could not, also where it ran others."""
    lines = [
        f"{Path(row.stage).name.partition('@')[0]} was not measured on {row.recipe.get('device')}: {why[len(FAILED) :]}"
        for row in benched
        if (why := str(row.skipped.get("latency", ""))).startswith(FAILED)
    ]
    if lines:
        raise GateFailed(*by_reason(lines))


def require_passed(result: Result) -> None:
    """GateFailed, with the reason, where a stage that writes one file has written none."""
    if not result.metrics["passed"]:
        raise GateFailed(f"no int8 file was written: {result.details['recommendation']}")


def judged(run: Run, limits: Check) -> Result | None:
    """What ``softedge check`` found and ``softedge bench`` measured last, judged by ``limits``; None: not checked."""
    checked = run.result("check")
    return None if checked is None else with_late_gates(measured.checked(checked, measured.files(run)), run, limits)


def stage(run: Run, recipe: Recipe, data: Data, force: bool = False) -> Result | None:
    """Judge, and leave the files that are too slow in gate.json for the report; never "done before"."""
    verdict = judged(run, recipe.check)
    rows = verdict.details.get("rows", []) if verdict is not None else []
    late = [
        {"artifact": row["artifact"], "sha256": row["sha256"], "why": row["judged_late"]}
        for row in rows
        if "judged_late" in row
    ]
    write_json(run.root / FILE, {"max_p90": recipe.check.max_p90, "too_slow": late})
    return verdict


def too_slow(run: Run, row: Mapping[str, Any], limits: Check) -> tuple[list[str], str | None]:
    """Why the latency gate refuses an int8 file on each device it was timed on; and why it could not be judged."""
    if not limits.max_p90 or not Precision.named(row["precision"]).is_int8:
        return [], None
    benched = {
        name.partition("@")[2]: result
        for name, result in measured.timed(run.results("bench"), {row["artifact"]: row["sha256"]}).items()
    }
    timed = {device: result.metrics for device, result in benched.items() if "p90_ms" in result.metrics}
    if not timed:
        tried = {device: why for device, result in benched.items() if (why := result.skipped.get("latency"))}
        if tried:  # a device answered that it cannot: asking it again gives the same
            reasons = "; ".join(f"on {device}: {why.removeprefix('not run: ')}" for device, why in tried.items())
            return [], f"max_p90: {row['artifact']} could not be timed {reasons}"
        return [], f"max_p90: {row['artifact']} was not timed; run: softedge bench {quoted(run.root)}, then check again"
    slow = {device: metrics for device, metrics in timed.items() if metrics["p90_ms"] > limits.max_p90}
    if not slow:
        return [], None
    times = [f"p90 {metrics['p90_ms']:.2f} ms on {device}" for device, metrics in slow.items()]
    said = f"{' and '.join(times)} above the limit of {limits.max_p90:g} ms"
    if any(disturbance(metrics.get("p50_ms"), metrics["p90_ms"]) for metrics in slow.values()):
        asked = ",".join(str(benched[device].recipe.get("device", device)) for device in slow)
        again = f"softedge bench {quoted(run.root)} --devices {quoted(asked)} --force"
        said += f" (disturbed by other work; when the device is idle, run: {again})"
    return [said], None


def too_often_wrong(row: Mapping[str, Any], limits: Check) -> list[str]:
    """A line where the accuracy on the test images is below ``check.min_accuracy``."""
    top1 = row.get("top1")
    if not limits.min_accuracy or top1 is None or top1 >= limits.min_accuracy:
        return []
    return [f"top-1 {top1:.4f} is below the least accuracy {limits.min_accuracy:g}"]


def with_late_gates(checked: Result, run: Run, limits: Check) -> Result:
    """The result of ``softedge check`` with the files that are too slow or too often wrong among those that failed.

    skipped: int8 files that were not timed yet, when there is a limit.  A file that a better one stands in for is not
    judged.
    """
    if not limits.max_p90 and not limits.min_accuracy:
        return checked
    rows, failed, skipped = [], list(checked.details.get("failed", [])), dict(checked.skipped)
    for row in checked.details.get("rows", []):
        slow, unknown = too_slow(run, row, limits)
        if unknown:
            skipped[f"max_p90 {row['artifact']}"] = unknown
        wrong = too_often_wrong(row, limits)
        if (slow or wrong) and "superseded_by" not in row:
            before = [line for line in failed if not line.startswith(f"{row['artifact']}: ")]
            why = "; ".join(filter(None, [row.get("why"), *slow, *wrong]))
            row = {**row, "passed": False, "why": why, "judged_late": "; ".join([*slow, *wrong])}
            failed = [*before, f"{row['artifact']}: {row['why']}"]
        rows.append(row)
    metrics = {
        **checked.metrics,
        "passed": bool(checked.metrics.get("passed")) and not failed,
        "files_passed": sum(row.get("passed") is True for row in rows),
        "files_failed": len(failed),
    }
    details = {**checked.details, "rows": rows, "failed": failed}
    return dataclasses.replace(checked, metrics=metrics, details=details, skipped=skipped)
