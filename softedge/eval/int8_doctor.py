"""What the check stage does about an int8 file that the gates refuse: climb the ladder, keep what it finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from softedge.config import Recipe
from softedge.data.images import Data, Uint8
from softedge.eval.int8_candidate import Judge
from softedge.eval.int8_ladder import Climb, Ladder, Patients, gates_of
from softedge.eval.int8_measures import Float32, Labels
from softedge.eval.int8_qat import Schedule
from softedge.export import contract
from softedge.export.deployed import Deployed
from softedge.export.onnx import load_model
from softedge.records import Artifact
from softedge.run import write_bytes

PRECISION = "int8-doctor"
SELECTION = 256
TRAINING = 4096


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
    artifact = contract.artifact_of(path, like.target, PRECISION, like.spec, like.labels, like.output)
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
