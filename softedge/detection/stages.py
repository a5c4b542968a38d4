"""A trained detector's files: ``softedge export``, ``check`` and ``bench`` on a transfer folder (RUN/transfer/voc).

The transfer folder is a run of its own: ``export/<target>-<precision>``, ``check`` and ``bench/<file>@<device>`` lie in
it, and the settings are those of the run around it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from softedge import registry
from softedge.config import Recipe
from softedge.detection import export as detector
from softedge.detection import replay as detector_replay
from softedge.detection.batches import picture
from softedge.detection.coco_ap import Detections
from softedge.detection.objects import Scenes
from softedge.detection.replay import Outputs, Runner, Uint8
from softedge.detection.tasks import Task
from softedge.detection.transfer import fingerprint
from softedge.errors import UserError
from softedge.export.base import open_format
from softedge.export.contract import FILE
from softedge.progress import say, track
from softedge.records import Artifact, Outcome, Precision, Result
from softedge.run import Run, perform, sha256
from softedge.stages.export import made_or_told

CALIBRATION = 100  # pictures at most: detectors see whole photos, and their int8 ranges settle early (assumption)
_WEIGHTS = "detector.safetensors"


def around(folder: str | Path) -> Path:
    """The run that a transfer folder lies in: RUN/transfer/voc -> RUN."""
    return Path(folder).resolve().parents[1]


class Trained:
    """A transfer stage as it lies on disk: its network, the data it was trained and measured on."""

    def __init__(self, folder: str | Path, recipe: Recipe):
        self.run, self.recipe = Run(folder), recipe
        result = Run(around(folder)).result(Path(folder).resolve().relative_to(around(folder)).as_posix())
        if result is None or "data" not in result.details:
            raise UserError(
                f"{folder} does not say which pictures it was trained on (unfinished, or of an earlier softedge); "
                "run softedge transfer again with --force"
            )
        self.result = result
        self.task: Task = registry.load(registry.TASKS, result.details["task"], "task")

    @functools.cached_property
    def scenes(self) -> tuple[Scenes, Scenes]:
        """(train, test), refused when they are not those of the training."""
        data = Path(self.result.details["data"])
        if not data.is_dir():
            raise UserError(f"the pictures of {self.run.root} were in {data}, which is not there; put them back")
        train, test = self.task.read(data)
        if fingerprint(train, test) != self.result.inputs["annotations"]:
            raise UserError(f"{data} was changed since {self.run.root} was trained; run softedge transfer again")
        return train, test

    @functools.cached_property
    def detector(self) -> detector.DeployedDetector:
        return detector.load(self.run.root)

    def calibration(self) -> Iterator[Uint8]:
        """Some training pictures, decoded one by one."""
        train = self.scenes[0]
        count = min(CALIBRATION, self.recipe.export.calibration_images)
        for index in np.random.default_rng(self.recipe.seed).permutation(len(train))[:count]:
            yield detector.pixels(picture(train.scenes[index]))

    def test(self) -> Scenes:
        """At most ``check.images`` test pictures, by seed."""
        test = self.scenes[1]
        order = np.random.default_rng(self.recipe.seed).permutation(len(test))[: self.recipe.check.images]
        return replace(test, scenes=tuple(test.scenes[index] for index in np.sort(order)))

    def inputs(self) -> dict[str, str]:
        return {_WEIGHTS: sha256(self.run.root / _WEIGHTS), "annotations": self.result.inputs["annotations"]}

    def files(self) -> list[Artifact]:
        """The exported files; UserError when there is none."""
        found = [detector_replay.read(path.parent) for path in sorted(self.run.folder("export").glob(f"*/{FILE}"))]
        if not found:
            raise UserError(f"{self.run.root} has no exported files yet; run: softedge export {self.run.root}")
        return found


def export(trained: Trained, targets: Sequence[str], precisions: Sequence[str], force: bool = False) -> list[Result]:
    """Write ``export/<target>-<precision>``; what cannot be made is recorded with the reason, the others go on."""
    results = []
    for target in targets:
        open_format(target)
        for precision in precisions:
            stage = f"export/{target}-{precision}"
            before = trained.run.result(stage)
            results.append(
                perform(
                    trained.run,
                    stage,
                    functools.partial(_export, trained, target, precision),
                    recipe={"seed": trained.recipe.seed, "calibration": trained.recipe.export.calibration_images},
                    inputs=trained.inputs(),
                    force=force or (before is not None and "model" in before.skipped),
                )
            )
    if results and all("model" in result.skipped for result in results):
        raise UserError(f"none of the formats asked for could be exported; {results[0].skipped['model']}")
    return results


def _export(trained: Trained, target: str, precision: str, folder: Path) -> Outcome:
    def make() -> Outcome:
        golden = min(2, len(trained.scenes[1]))
        path = detector.export(
            trained.detector,
            target,
            folder,
            trained.scenes[1],
            golden,
            precision=precision,
            calibration=trained.calibration,
        )
        artifact = detector_replay.read(path.parent)
        say(f"{artifact.name}: {artifact.size_bytes / 1e6:.2f} MB")
        return Outcome({"size_bytes": artifact.size_bytes}, {"artifact": artifact.name, "sha256": artifact.sha256})

    return made_or_told(f"{target}-{precision}", make, folder)


def check(trained: Trained, force: bool = False) -> Result:
    """Average precision of every file, read back, on the test pictures, beside PyTorch's; gates as for classifiers.

    ``check.max_drop`` is of AP.  ``check.min_agreement`` (the same detections as PyTorch) holds for fp32 and fp16 only:
    an int8 file moves every box a little, and AP says whether that matters.
    """
    artifacts = trained.files()
    inputs = {**trained.inputs(), **{a.name: a.sha256 for a in artifacts}}
    settings = trained.recipe.section("check")["check"]
    recipe = {key: settings[key] for key in ("max_drop", "min_agreement", "max_size", "images")}
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
            run = detector_replay.runner(artifact)
        except UserError as error:
            skipped[artifact.name] = str(error)
            row |= {"passed": None, "why": f"not run: {error}"}
            continue
        found, answers = _answers(run, test, artifact.name)
        row |= score(trained, test, answers)
        row["drop"] = fp32["AP"] - row["AP"]
        row["agreement"] = float(np.mean([detector_replay.agreement(a, b) for a, b in zip(found, reference)]))
        row["why"] = "; ".join(refusals(row, trained.recipe))
        row["passed"] = not row["why"]
        say(f"check: {artifact.name}: AP {row['AP']:.4f}, PyTorch {fp32['AP']:.4f}; {row['why'] or 'passed'}")
    failed = [f"{row['artifact']}: {row['why']}" for row in rows if row["passed"] is False]
    measured = any(row["passed"] is not None for row in rows)
    metrics = {**fp32, "n": len(test), "files": len(rows), "files_failed": len(failed)}
    return Outcome({**metrics, "passed": measured and not failed}, {"rows": rows, "failed": failed}, skipped)


def _answers(run: Runner, scenes: Scenes, name: str) -> tuple[list[Outputs], list[Detections]]:
    """Boxes, scores and labels of every scene, and everything in the form that is scored (masks are large)."""
    outputs, found = [], []
    for scene in track(scenes.scenes, name):
        output = run(detector.pixels(picture(scene)))
        found.append(detector.detections(output))
        outputs.append({key: value for key, value in output.items() if key != "masks"})
    return outputs, found


def score(trained: Trained, scenes: Scenes, found: Sequence[Detections]) -> dict[str, float]:
    """AP, AP50, AP75 of boxes and masks, as fractions."""
    values = trained.task.score(scenes, found, trained.detector.masks)
    return {key: values[key] for key in ("AP", "AP50", "AP75", "mask_AP", "mask_AP50") if key in values}


def refusals(row: dict[str, Any], recipe: Recipe) -> list[str]:
    """Why the gates refuse a file, one line per reason."""
    gates, why = recipe.check, []
    if row["drop"] > gates.max_drop:
        why.append(f"AP drop {row['drop']:.3f} is above {gates.max_drop:g}")
    int8 = Precision.named(row["precision"]).is_int8
    if not int8 and row["agreement"] < gates.min_agreement:
        why.append(f"agreement {row['agreement']:.3f} is below {gates.min_agreement:g}")
    if gates.max_size and int8 and row["size_bytes"] > gates.max_size:
        why.append(f"{row['size_bytes']} bytes is above {gates.max_size}")
    return why


def _not_exported(run: Run) -> dict[str, str]:
    return {name: found.skipped["model"] for name, found in run.results("export").items() if "model" in found.skipped}
