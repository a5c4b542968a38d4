"""Stage ``check`` of a transfer folder: every file's average precision, read back, beside PyTorch's."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from softedge.config import Recipe
from softedge.detection import formats, pictures
from softedge.detection.deployed import detections
from softedge.detection.detections import Detections
from softedge.detection.format import Outputs, Runner
from softedge.detection.replay import agreement
from softedge.detection.scenes import Scenes
from softedge.detection.tasks import USELESS
from softedge.detection.trained import Trained
from softedge.errors import GateFailed, UserError
from softedge.export.metadata import contradictions
from softedge.export.refused import by_reason
from softedge.progress import say, track
from softedge.records import Artifact, Outcome, Precision, Result
from softedge.run import Run, differences, perform, write_json


def check(trained: Trained, force: bool = False) -> Result:
    """Average precision of every file, read back, on the test pictures, beside PyTorch's; gates as for classifiers.

    ``check.max_drop`` is of AP.  ``check.min_agreement`` (the same detections as PyTorch) holds for fp32 and fp16 only:
    an int8 file moves every box a little, and AP says whether that matters.
    """
    artifacts = trained.files()
    if lines := [f"{artifact.name}: {line}" for artifact in artifacts for line in contradictions(artifact)]:
        raise GateFailed(*by_reason(lines))
    inputs = {**trained.inputs(), **{a.name: a.sha256 for a in artifacts}}
    settings = trained.recipe.section("check")["check"]
    recipe = {key: settings[key] for key in ("max_drop", "min_agreement", "max_size", "images")}
    _judge_again(trained, recipe, inputs)
    return perform(
        trained.run, "check", lambda _: _check(trained, artifacts), recipe=recipe, inputs=inputs, force=force
    )


def _check(trained: Trained, artifacts: list[Artifact]) -> Outcome:
    test = trained.test()
    reference, answers = _answers(trained.detector.run, test, "PyTorch")
    fp32 = score(trained, test, answers)
    rows, skipped = [], _not_exported(trained.run)
    for artifact in artifacts:
        row: dict[str, Any] = {"artifact": artifact.name, "target": artifact.target, "precision": artifact.precision}
        row |= {"sha256": artifact.sha256, "size_bytes": artifact.size_bytes}
        rows.append(row)
        try:
            run = formats.open_runner(artifact)
        except UserError as error:
            skipped[artifact.name] = str(error)
            row |= {"passed": None, "why": f"not run: {error}"}
            continue
        outputs, answers = _answers(run, test, artifact.name)
        row |= score(trained, test, answers)
        row["drop"] = fp32["AP"] - row["AP"]
        row["agreement"] = float(np.mean([agreement(a, b) for a, b in zip(outputs, reference)]))
        row |= _verdict(row, trained.recipe, fp32["AP"])
        say(f"check: {artifact.name}: AP {row['AP']:.4f}, PyTorch {fp32['AP']:.4f}; {row['why'] or 'passed'}")
    failed = _failed(rows)
    measured = any(row["passed"] is not None for row in rows)
    cautions = []
    if fp32["AP"] < USELESS:
        cautions.append(useless(fp32["AP"]))
        say(f"check: caution: {cautions[0]}")
    metrics = {**fp32, "n": len(test), "files": len(rows), "files_failed": len(failed)}
    details = {"rows": rows, "failed": failed, "cautions": cautions}
    return Outcome({**metrics, "passed": measured and not failed}, details, skipped)


def _judge_again(trained: Trained, recipe: dict[str, Any], inputs: dict[str, str]) -> None:
    """A finished check by other limits, from its measures; where more than limits differs, ``perform`` says so."""
    try:
        done = trained.run.result("check")
    except UserError:  # damaged: perform says so
        return
    if done is None or done.inputs != inputs or done.recipe.get("images") != recipe["images"] or done.recipe == recipe:
        return
    fp32 = done.metrics["AP"]
    rows = [row if row["passed"] is None else row | _verdict(row, trained.recipe, fp32) for row in done.details["rows"]]
    failed = _failed(rows)
    metrics = done.metrics | {"files_failed": len(failed), "passed": any(row["passed"] for row in rows) and not failed}
    details = done.details | {"rows": rows, "failed": failed}
    judged = dataclasses.replace(done, recipe=recipe, metrics=metrics, details=details)
    write_json(trained.run.folder("check") / "result.json", judged.to_dict())
    say(f"check: judged by what was measured before ({'; '.join(differences(done.recipe, recipe))})")


def _verdict(row: dict[str, Any], recipe: Recipe, fp32: float) -> dict[str, Any]:
    why = "; ".join(refusals(row, recipe, fp32))
    return {"why": why, "passed": not why}


def _failed(rows: list[dict[str, Any]]) -> list[str]:
    return [f"{row['artifact']}: {row['why']}" for row in rows if row["passed"] is False]


def _answers(run: Runner, scenes: Scenes, name: str) -> tuple[list[Outputs], list[Detections]]:
    """Boxes, scores and labels of every scene, and everything in the form that is scored (masks are large)."""
    outputs, answers = [], []
    for scene in track(scenes.scenes, name):
        output = run(pictures.pixels(scene))
        answers.append(detections(output))
        outputs.append({key: value for key, value in output.items() if key != "masks"})
    return outputs, answers


def score(trained: Trained, scenes: Scenes, predictions: Sequence[Detections]) -> dict[str, float]:
    """AP, AP50, AP75 of boxes and masks, as fractions."""
    values = trained.task.score(scenes, predictions, trained.detector.masks)
    return {key: values[key] for key in ("AP", "AP50", "AP75", "mask_AP", "mask_AP50") if key in values}


def useless(ap: float) -> str:
    """What to say of a detector that finds nothing: none of its files can lose anything, or be of use."""
    return f"AP {ap:.3f}: the detector finds nothing, so no file can lose anything; train it again"


def refusals(row: dict[str, Any], recipe: Recipe, fp32: float) -> list[str]:
    """Why the gates refuse a file, one line per reason.  fp32: the AP of PyTorch."""
    gates, why = recipe.check, []
    if fp32 < USELESS:
        why.append(useless(fp32))
    if row["drop"] > gates.max_drop:
        why.append(f"AP drop {row['drop']:.3f} is above {gates.max_drop:g}")
    int8 = Precision.named(row["precision"]).is_int8
    if not int8 and row["agreement"] < gates.min_agreement:
        why.append(f"agreement {row['agreement']:.3f} is below {gates.min_agreement:g}")
    if gates.max_size and int8 and row["size_bytes"] > gates.max_size:
        why.append(f"{row['size_bytes']} bytes is above {gates.max_size}")
    return why


def _not_exported(run: Run) -> dict[str, str]:
    results = run.results("export")
    return {name: result.skipped["model"] for name, result in results.items() if "model" in result.skipped}
