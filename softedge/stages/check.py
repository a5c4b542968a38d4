"""The check stage: every exported file, read back from disk, against PyTorch fp32 on real images.

The test images are asked here, once for each file: nothing is chosen by them.  (The export compares a few of them with
PyTorch, file by file, and keeps them as golden images.)  A file that cannot be run here is "not run" with the reason,
never passed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from softedge import registry
from softedge.bench import answers
from softedge.config import Recipe
from softedge.data import late
from softedge.data.images import UNLABELLED, Data, Images, Uint8
from softedge.errors import UserError, quoted
from softedge.eval.examples import Sample
from softedge.eval.measures import Float32, compare, farthest
from softedge.export import contract
from softedge.export.base import open_format
from softedge.export.metadata import contradictions
from softedge.progress import say
from softedge.records import LABELLED, REFERENCE, SEARCHED, Artifact, InputSpec, Outcome, Result
from softedge.run import Run, perform, sha256, sha256_of
from softedge.stages import gate, incomplete, judging
from softedge.stages.base import hashes, on_run
from softedge.stages.opening import reopen

if TYPE_CHECKING:
    from softedge.export.deployed import Deployed

EXAMPLES = 12


def check(
    run: str | PathLike[str],
    max_drop: float | None = None,
    min_agreement: float | None = None,
    set: Sequence[str] = (),
    force: bool = False,
    max_size: int | None = None,
    max_p90: float | None = None,
    against: str | Path | None = None,
) -> Result:
    """Read every exported file back and compare it with PyTorch; ``gate`` then raises for those that lost too much.

    max_size (bytes) and max_p90 (ms) are for the int8 files.  against: an earlier run to compare with.
    A run that was checked before is judged anew by other limits, or compared with another run, without measuring again;
    latency on what was benched last.
    """
    gates = {"max_drop": max_drop, "min_agreement": min_agreement, "max_size": max_size, "max_p90": max_p90}
    if plugin := registry.owner(run):
        checked: Result = plugin.check(run=run, gates=gates, set=set, force=force)
        return checked
    given = {**gates, "against": str(against) if against else None}
    return on_run(measured_and_judged, run, set, force, check=given)


def measured_and_judged(run: Run, recipe: Recipe, data: Data, force: bool = False) -> Result:
    """The stage, and then the latency gate on what was benched last."""
    checked = stage(run, recipe, data, force)
    return gate.stage(run, recipe, data) or checked


def stage(run: Run, recipe: Recipe, data: Data, force: bool = False) -> Result:
    """Compare every file below ``RUN/export`` with PyTorch fp32; ``details["failed"]`` lists what the gates refuse.

    details: rows (one per file), failed (lines), examples (images with predictions), images (what was compared on).
    skipped: file -> why it was not run.  Raises UserError when nothing was exported or the network is not there.
    """
    folders = sorted(path.parent for path in run.folder("export").glob("*/contract.json"))
    if not folders:
        raise UserError(f"{run.root} has no exported files to check; run: softedge export {quoted(run.root)}")
    artifacts, stale = _up_to_date(run, [contract.read(folder) for folder in folders])
    inputs = {a.name: a.sha256 for a in artifacts}
    for name in (contradicting := _contradicting(artifacts)):
        inputs[f"export/{name}/{contract.FILE}"] = sha256_of(run, f"export/{name}/{contract.FILE}")
    checkpoints = {exported_from(run, artifact).relative_to(run.root).as_posix(): None for artifact in artifacts}
    for name in ("data/index.json", *checkpoints):
        if (run.root / name).is_file():
            inputs[name] = sha256_of(run, name)
    settings = {**recipe.section("check"), "seed": recipe.seed}
    for judged_later in ("max_p90", "min_accuracy", "optional"):  # stages/gate.py
        settings["check"].pop(judged_later)
    if recipe.check.against:  # the earlier run's numbers
        earlier, _ = reopen(recipe.check.against)
        earlier.need("check", "check")
        inputs |= hashes(earlier, ["check/result.json"])

    def work(folder: Path) -> Outcome:
        outcome = _check(run, recipe, data, artifacts, contradicting, folder)
        outcome = dataclasses.replace(outcome, skipped={**outcome.skipped, **stale, **incomplete.files(run, recipe)})
        return late.recorded(outcome, late.record(data))

    force = force or judging.again(run, recipe, settings, inputs, artifacts, contradicting)
    result = perform(run, "check", work, recipe=settings, inputs=inputs, force=force, renew=True)
    late.tell_change("check", result, data)
    return result


def _up_to_date(run: Run, artifacts: list[Artifact]) -> tuple[list[Artifact], dict[str, str]]:
    """The artifacts without the searched files whose source was exported anew since; and why those are left out."""
    hashes = {artifact.name: artifact.sha256 for artifact in artifacts}
    kept, stale = [], {}
    for artifact in artifacts:
        source = artifact.name.removesuffix(SEARCHED)
        result = run.result(f"export/{artifact.name}")
        if source != artifact.name and result is not None and result.inputs.get(source) != hashes.get(source):
            stale[artifact.name] = f"it was made from another {source}; run: softedge quantize {quoted(run.root)}"
        else:
            kept.append(artifact)
    return kept, stale


def _contradicting(artifacts: list[Artifact]) -> dict[str, list[str]]:
    """Artifact -> how its contract contradicts its file; without those that agree."""
    found = {artifact.name: contradictions(artifact) for artifact in artifacts}
    return {name: lines for name, lines in found.items() if lines}


def _check(
    run: Run,
    recipe: Recipe,
    data: Data,
    artifacts: list[Artifact],
    contradicting: Mapping[str, list[str]],
    folder: Path,
) -> Outcome:
    sample = choose(data, recipe, artifacts[0].spec)  # all were made of one network
    outputs: dict[str, Float32] = {}
    references: dict[tuple[Path, str], Float32] = {}
    rows: list[dict[str, Any]] = []
    skipped = _not_exported(run)
    for artifact in artifacts:
        source = exported_from(run, artifact), artifact.output
        if source not in references:
            references[source] = reference(run, artifact, sample.images)
        row, output = _row(recipe, artifact, sample, references[source], contradicting.get(artifact.name, []))
        rows.append(row)
        if output is None:
            skipped[artifact.name] = row["why"].removeprefix("not run: ")
        else:
            outputs[artifact.name] = output
    failed, totals = judging.totals(rows)
    single = [a for a in artifacts if a.name in outputs and a.output == "probabilities"]
    answers.write(folder, sample.names, {a.name: (a.sha256, outputs[a.name].argmax(1).tolist()) for a in single})
    shown = [a for a in artifacts if a.name in outputs and a.output in LABELLED]
    details: dict[str, Any] = {
        "rows": rows,
        "failed": failed,
        "images": {
            "n": len(sample.images),
            "labelled": bool((sample.labels != UNLABELLED).all()),
            "held_out": sample.held_out,
        },
        "sqnr_level": "logits, as centred log-probabilities or log-odds; or features; median over images",
    }
    if recipe.check.emulate:
        from softedge.quantize.hardware import changed_answers

        details["hardware"] = {
            a.name: changed_answers(a, sample.images, outputs[a.name], recipe.check.emulate)
            for a in artifacts
            if a.is_int8 and a.name in outputs and open_format(a.target).saturation_advice
        }
    details |= judging.compared(rows, recipe.check)
    if shown:
        from softedge.eval.examples import examples

        source = exported_from(run, shown[0]), shown[0].output
        chosen = {a.name: outputs[a.name] for a in shown if (exported_from(run, a), a.output) == source}
        details["examples"] = examples(
            sample, references[source], chosen, shown[0].labels, folder / "examples", EXAMPLES, shown[0].output
        )
    metrics = {"passed": totals["passed"], "n": len(sample.images), **totals}
    return Outcome(metrics, details, skipped)


def _row(
    recipe: Recipe, artifact: Artifact, sample: Sample, fp32: Float32, contradicted: list[str]
) -> tuple[dict[str, Any], Float32 | None]:
    """The measures and verdict of one file, and its outputs (None: it cannot run here)."""
    row: dict[str, Any] = {
        "artifact": artifact.name,
        "target": artifact.target,
        "precision": artifact.precision,
        "sha256": artifact.sha256,
        "size_bytes": artifact.size_bytes,
    }
    try:
        target = open_format(artifact.target)
        outputs = target.load(artifact)(sample.images)
    except UserError as error:
        return {**row, "passed": None, "why": f"not run: {error}"}, None
    row.update(compare(fp32, outputs, sample.labels, artifact.output))
    row.update(farthest(fp32, outputs, artifact.output, target.tolerance(artifact.precision).parity))
    row["runtime"] = target.runtime()
    row["quantized_ops"] = target.integer_operations(artifact)
    row.update(judging.verdict(row, recipe.check, artifact, contradicted))
    say(f"check: {_line(row, gate.too_often_wrong(row, recipe.check))}")
    return row, outputs


def choose(data: Data, recipe: Recipe, spec: InputSpec) -> Sample:
    """At most ``check.images`` images by seed: of the test split, or unlabelled pretraining ones when there is none."""
    images: Images = data.test if len(data.test.every) else data.pretrain
    if not len(images.every):
        raise UserError(f"{data.source} has no images to check the exported files on")
    late.require(data, "test")
    order = np.random.default_rng(recipe.seed).permutation(len(images.every))
    indices = images.left(np.sort(order[: recipe.check.images]))
    chosen = images.subset(indices)
    return Sample(
        chosen.prepared(spec), np.asarray(chosen.labels), tuple(str(n) for n in chosen.names), len(data.test.every) > 0
    )


def reference(run: Run, artifact: Artifact, images: Uint8) -> Float32:
    """PyTorch fp32 outputs of the network that ``artifact`` was exported from."""
    return network(run, artifact).predict(images)


def network(run: Run, artifact: Artifact) -> Deployed:
    """The network that ``artifact`` was exported from, in PyTorch fp32."""
    from softedge import backbones
    from softedge.export import given
    from softedge.export.deployed import Deployed

    checkpoint = exported_from(run, artifact)
    about = backbones.describe(checkpoint)
    if "given" in about:
        return given.load(checkpoint)
    if about["kind"] == "classifier":
        model = backbones.load_classifier(checkpoint)
        return Deployed(model, artifact.spec, artifact.labels, artifact.output)
    return Deployed(backbones.load(checkpoint), artifact.spec)


def exported_from(run: Run, artifact: Artifact) -> Path:
    """The checkpoint an exported file was made from, as its export stage recorded it (else what is there).

    UserError when what was recorded is there no more, or is another one: no other network answers for this file.
    """
    result = run.result(f"export/{artifact.name}")
    recorded = {
        name: digest for name, digest in (result.inputs if result else {}).items() if name.endswith(".safetensors")
    }
    for name, digest in recorded.items():
        current = sha256_of(run, name)
        if digest not in (current, "absent"):
            stage = name.rpartition("/")[0]
            if current == "absent" and (interrupted := run.interrupted(stage, stage)):
                raise UserError(f"export/{artifact.name} was made from {name}, which is not there: {interrupted}")
            what = "is missing" if current == "absent" else "is not the one"
            raise UserError(
                f"{run.root / name} {what} that export/{artifact.name} was made from; bring it back, or export again: "
                f"softedge export {quoted(run.root)}"
            )
        return run.root / name
    # No record of the export, or none of what it read: the contract names the network, too.
    known = [
        "probe/classifier.safetensors",
        *(["pretrain/backbone.safetensors"] if artifact.output == "features" else []),
    ]
    there = [name for name in known if (run.root / name).is_file()]
    source = run.root / next(iter(there), known[0])
    checkpoint = contract.describe(artifact.path.parent).get("checkpoint")
    named = checkpoint.get("checkpoint_sha256") if isinstance(checkpoint, dict) else None
    if named and source.is_file() and named != sha256(source):
        raise UserError(
            f"export/{artifact.name} has no record of what it was made from, and {source} it was not; export again: "
            f"softedge export {quoted(run.root)}"
        )
    return source


def _not_exported(run: Run) -> dict[str, str]:
    """Files that were asked for and could not be exported -> the reason, from the export stage's own records."""
    skipped: dict[str, str] = {}
    for name, result in run.results("export").items():
        if not (run.folder("export") / name / "contract.json").is_file():
            skipped[name] = "; ".join(result.skipped.values()) or "was not exported"
    return skipped


def _line(row: dict[str, Any], wrong: list[str]) -> str:
    """wrong: what ``gate.with_late_gates`` will add, so that no file is first said to pass."""
    parts = [f"{row['artifact']}: {'passed' if row['passed'] and not wrong else 'FAILED'}"]
    for key, text in (("agreement", "agreement {:.4f}"), ("top1", "top-1 {:.4f}"), ("max_abs_diff", "max diff {:.2g}")):
        if key in row:
            parts.append(text.format(row[key]))
    said = "; ".join(filter(None, [row["why"], *wrong])) or row.get("allowed")
    if row["runtime"].startswith(REFERENCE):
        parts.append(f"computed by a {REFERENCE}")
    return ", ".join(parts) + (f" ({said})" if said else "")
