"""What the check stage does about an int8 file that the gates refuse: climb the ladder, keep what it finds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from softedge.config import Recipe
from softedge.data.images import Data, Uint8
from softedge.eval.int8_candidate import Judge
from softedge.eval.int8_gates import DOCTORED
from softedge.eval.int8_ladder import Climb, Ladder, Patients, gates_of
from softedge.eval.int8_measures import Float32, Labels
from softedge.eval.int8_qat import Schedule
from softedge.export import contract
from softedge.export.deployed import Deployed
from softedge.export.onnx import load_model
from softedge.progress import say
from softedge.records import Artifact, Outcome
from softedge.run import Run, perform, write_bytes

if TYPE_CHECKING:
    from softedge.eval.quantization import Sample

SELECTION = 256
TRAINING = 4096


def cure(
    run: Run, recipe: Recipe, data: Data, patient: tuple[Deployed, Artifact], sample: Sample, fp32: Float32
) -> tuple[Artifact | None, dict[str, Any]]:
    """Climb for a refused file; the better one goes to ``export/onnx-int8-doctor``, like any export.

    patient: the fp32 network and the file.  fp32: its answers (N, C) to the sample.  Returns the new file, or None when
    no rung passes, and the climb for the report.
    """
    deployed, artifact = patient
    climb = treat(deployed, artifact, recipe, data, (sample.images, fp32, sample.labels))
    told = summary(climb)
    say(climb.recommendation)
    if climb.model is None:
        return None, told
    golden = slice(0, recipe.export.golden_images)

    def work(folder: Path) -> Outcome:
        made = write(climb, folder, artifact, sample.images[golden], fp32[golden])
        return Outcome({"size_bytes": made.size_bytes}, {"sha256": made.sha256, **told})

    made_from = run.result(f"export/{artifact.name}")
    inputs = {artifact.name: artifact.sha256, **(made_from.inputs if made_from else {})}
    stage = f"export/{artifact.target}-{DOCTORED}"
    perform(run, stage, work, recipe=recipe.section("check"), inputs=inputs, force=True)
    return contract.read(run.folder(stage)), told


def cure_openvino(
    run: Run, recipe: Recipe, patient: tuple[Deployed, Artifact], source: Artifact, golden: Uint8, fp32: Float32
) -> Artifact:
    """For a refused OpenVINO file: the integers of an ONNX file that passes, as ``export/openvino-int8-doctor``.

    patient: the fp32 network and the refused file.  source: the ONNX file.  golden: images that travel with the file,
    with the answers of fp32.
    """
    from softedge.export.openvino import OpenVino, from_int8_onnx

    deployed, artifact = patient

    def work(folder: Path) -> Outcome:
        path = from_int8_onnx(source.path, deployed, folder)
        like = (artifact.spec, artifact.labels, artifact.output)
        made = contract.artifact_of(path, artifact.target, DOCTORED, *like)
        kept = contract.Golden(golden, OpenVino().load(made)(golden), fp32)
        contract.write(folder, made, kept, {"doctor": f"the integers of {source.name}"})
        return Outcome({"size_bytes": made.size_bytes}, {"sha256": made.sha256, "source": source.name})

    made_from = run.result(f"export/{artifact.name}")
    inputs = {artifact.name: artifact.sha256, source.name: source.sha256, **(made_from.inputs if made_from else {})}
    stage = f"export/{artifact.target}-{DOCTORED}"
    perform(run, stage, work, recipe=recipe.section("check"), inputs=inputs, force=True)
    return contract.read(run.folder(stage))


def treat(
    deployed: Deployed, artifact: Artifact, recipe: Recipe, data: Data, test: tuple[Uint8, Float32, Labels]
) -> Climb:
    """Climb the ladder for a refused int8 ONNX file.

    deployed: the fp32 network it came from.  test: images, the fp32 answers to them, and labels (negative: unknown).
    """
    images, fp32, labels = test
    calibration, selection, training = unlabelled(data, recipe)
    patients = Patients(
        deployed=deployed,
        default=onnx.load(str(artifact.path)),
        calibration=calibration,
        training=training,
        selection=Judge(selection, deployed.predict(selection), artifact.output),
        test=Judge(images, fp32, artifact.output, labels),
    )
    schedule = Schedule(steps=recipe.check.tune_steps, seed=recipe.seed)
    return Ladder(patients, gates_of(recipe.check, artifact.output), schedule).climb()


def unlabelled(data: Data, recipe: Recipe) -> tuple[Uint8, Uint8, Uint8]:
    """Calibration, selection and training images, uint8 (N, S, S, 3), of the pretraining images; never test images.

    The calibration images are those of the export.  Selection is apart from them where there are enough images.
    """
    pool = data.pretrain if len(data.pretrain) else data.train
    order = np.random.default_rng(recipe.seed).permutation(len(pool))  # as export.calibration draws them
    count = recipe.export.calibration_images
    calibration, rest = order[:count], order[count:]
    selection = rest[:SELECTION] if len(rest) >= SELECTION // 4 else order[-SELECTION:]
    parts = (calibration, selection, order[:TRAINING])
    first, second, third = (pool.subset(np.sort(part)).prepared(data.spec) for part in parts)
    return first, second, third


def write(climb: Climb, folder: Path, like: Artifact, golden: Uint8, fp32: Float32) -> Artifact:
    """Write the model that was found into ``folder`` with its contract, like any export.

    like: the artifact it replaces.  golden: images that travel with the file, with the answers of fp32.
    """
    assert climb.model is not None
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / like.path.name
    write_bytes(path, climb.model.SerializeToString())
    artifact = contract.artifact_of(path, like.target, DOCTORED, like.spec, like.labels, like.output)
    kept = contract.Golden(golden, load_model(path)(golden), fp32)
    contract.write(folder, artifact, kept, {"doctor": climb.recommendation})
    return artifact


def summary(climb: Climb) -> dict[str, Any]:
    """The climb as JSON values for the report."""
    return {
        "recommendation": climb.recommendation,
        "passed": climb.model is not None,
        "rungs": [rung.to_dict() for rung in climb.rungs],
        "layers": [layer.to_dict() for layer in climb.layers],
    }
