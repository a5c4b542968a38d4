"""Stages ``export/<target>-<precision>`` of a transfer folder: model file, golden pictures and contract.json."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softedge.detection import contract, formats, pictures, snippet
from softedge.detection.deployed import DeployedDetector, trace
from softedge.detection.format import Pictures
from softedge.detection.replay import agreement
from softedge.detection.scenes import Scenes
from softedge.detection.trained import Trained
from softedge.errors import UserError
from softedge.files import temporary_folder
from softedge.progress import say
from softedge.records import Outcome, Result
from softedge.run import atomic_path
from softedge.stages.export import export_or_skip, perform_or_keep

_PARITY = {"fp32": 0.99, "fp16": 0.9}  # of PyTorch's detections; int8 is judged by its average precision


def export(trained: Trained, targets: Sequence[str], precisions: Sequence[str], force: bool = False) -> list[Result]:
    """Write ``export/<target>-<precision>``; what cannot be made is recorded with the reason, the others go on."""
    results = []
    kept: list[str] = []
    for target in targets:
        for precision in precisions:
            stage = f"export/{target}-{precision}"
            before = trained.run.result(stage)
            results.append(
                perform_or_keep(
                    kept,
                    trained.run,
                    stage,
                    functools.partial(_export, trained, target, precision),
                    recipe={"seed": trained.recipe.seed, "calibration": trained.recipe.export.calibration_images},
                    inputs=trained.inputs(),
                    force=force or (before is not None and "model" in before.skipped),
                )
            )
    if kept:
        raise UserError(f"{'; '.join(kept)}; what was finished before stays")
    if results and all("model" in result.skipped for result in results):
        raise UserError(f"none of the formats asked for could be exported; {results[0].skipped['model']}")
    return results


def _export(trained: Trained, target: str, precision: str, folder: Path) -> Outcome:
    def make() -> Outcome:
        golden = min(2, len(trained.scenes[1]))
        scenes = trained.scenes[1]
        write(trained.detector, target, folder, scenes, golden, precision=precision, calibration=trained.calibration)
        artifact = contract.read(folder)
        say(f"{artifact.name}: {artifact.size_bytes / 1e6:.2f} MB")
        return Outcome({"size_bytes": artifact.size_bytes}, {"artifact": artifact.name, "sha256": artifact.sha256})

    return export_or_skip(f"{target}-{precision}", make, folder)


def write(
    detector: DeployedDetector,
    target: str,
    out: Path,
    scenes: Scenes,
    golden: int = 2,
    *,
    precision: str = "fp32",
    calibration: Pictures | None = None,
) -> Path:
    """Write the model's files, golden pictures and ``contract.json`` into ``out``.

    The file is read back and compared with PyTorch on the first ``golden`` scenes; UserError when detections are lost.
    calibration: pictures without labels, which int8 needs.
    """
    chosen = formats.of(target)
    formats.known_precision(precision)
    if precision == "int8" and calibration is None:
        raise UserError("an int8 detector needs pictures to calibrate on, found none")
    out.mkdir(parents=True, exist_ok=True)
    images = [pictures.pixels(scene) for scene in scenes.scenes[:golden]]
    with temporary_folder("model", beside=out / chosen.file) as folder:
        traced = folder / "traced.onnx"
        trace(detector, images[0], traced)
        exported = chosen.convert(traced, folder, detector.labels, precision, calibration)
        for file in reversed(chosen.files(exported)):  # the main file, which is looked for, last
            os.replace(file, out / file.name)
    path = out / chosen.file
    runner = chosen.run(path)
    parity = []
    arrays: dict[str, NDArray[Any]] = {}
    for number, image in enumerate(images):
        answer, reference = runner(image), detector.run(image)
        parity.append(agreement(answer, reference))
        arrays |= {f"{number}.image": image, **{f"{number}.{name}": value for name, value in answer.items()}}
    if min(parity) < _PARITY.get(precision, 0.0):
        raise UserError(
            f"{path.name}: only {100 * min(parity):.1f} % of PyTorch's detections are also the "
            f"{target} {precision} file's"
        )
    with atomic_path(out / "golden.npz") as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    contract.write(
        path,
        target,
        precision,
        detector.spec,
        detector.labels,
        masks=detector.masks,
        golden={"file": "golden.npz", "images": len(images)},
        parity={"agreement": min(parity), "with": "PyTorch fp32", "rule": " ".join((agreement.__doc__ or "").split())},
    )
    snippet.write(out)
    return path
