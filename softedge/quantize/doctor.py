"""What the check stage does about an int8 file that the gates refuse: climb the ladder, keep what it finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from softedge.config import Recipe
from softedge.data.images import Data, Uint8
from softedge.eval.measures import Float32, Labels
from softedge.export import contract, snippet
from softedge.export.base import open_format
from softedge.export.deployed import Deployed
from softedge.export.onnx import ranges as onnx_ranges
from softedge.export.onnx.format import load_model
from softedge.progress import say
from softedge.quantize.candidate import Candidate, Judge, graph_of
from softedge.quantize.fine_tuning import Schedule
from softedge.quantize.formats import Format, FormatLadder
from softedge.quantize.gates import DOCTORED
from softedge.quantize.ladder import Climb, Ladder, Patients, Refuse, Rung, gates_of
from softedge.quantize.selection import CHOSEN, POOL, alike, doubts
from softedge.quantize.sensitivity import rank
from softedge.records import Artifact, Outcome
from softedge.run import Run, perform, write_bytes

if TYPE_CHECKING:
    from softedge.stages.check import Sample

TRAINING = 4096
INTERPRETED = 256  # images to choose on where the reference interpreter computes
RANKED = 64  # images that rank layers
_FEWEST = 64  # images to choose on; with fewer left, calibration images serve again


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

    return _kept(run, recipe, artifact, work), told


def cure_elsewhere(
    run: Run,
    recipe: Recipe,
    data: Data,
    patient: tuple[Deployed, Artifact],
    row: Mapping[str, Any],
    sample: Sample,
    fp32: Float32,
    helped: tuple[Artifact | None, Mapping[str, Any]],
) -> tuple[Artifact | None, dict[str, Any]]:
    """Climb for a refused OpenVINO or Core ML file; the better one goes to ``export/TARGET-int8-doctor``.

    row: what the check measured of the file.  helped: an int8 ONNX file of the network that passes and what was told of
    the climb to it, where there are any.  For the rest see ``cure``.
    """
    deployed, artifact = patient
    few = CHOSEN if artifact.target == "openvino" else INTERPRETED
    calibration, selection, _ = unlabelled(data, recipe, deployed, fp32, few)
    order, names = ranking(deployed, calibration, selection, helped[1])
    form: Format
    if artifact.target == "openvino":
        from softedge.quantize.openvino import OpenVinoForm

        source = helped[0].path if helped[0] is not None else None
        form = OpenVinoForm(deployed, calibration, source, recipe.export.safe)
    else:
        from softedge.quantize.coreml import CoreMlForm

        form = CoreMlForm(deployed, calibration, names)
    measures = {key: value for key, value in row.items() if isinstance(value, int | float) and key != "passed"}
    default = Rung("default", "as exported", measures, artifact.size_bytes, None, (row["why"],))
    judges = selection, Judge(sample.images, fp32, artifact.output, sample.labels)
    climb = FormatLadder(form, default, judges, _gates(recipe, artifact.output, len(sample.images)), order).climb()
    told = climb.to_dict()
    say(f"{artifact.name}: {climb.recommendation}")
    if climb.model is None:
        return None, told
    golden = slice(0, recipe.export.golden_images)

    def work(folder: Path) -> Outcome:
        path = form.save(climb.model, folder)
        made = contract.artifact_of(path, artifact.target, DOCTORED, artifact.spec, artifact.labels, artifact.output)
        answers = open_format(made.target).load(made)(sample.images[golden])
        kept = contract.Golden(sample.images[golden], answers, fp32[golden])
        contract.write(folder, made, kept, {"doctor": climb.recommendation})
        snippet.write(folder)
        return Outcome({"size_bytes": made.size_bytes}, {"sha256": made.sha256, **told})

    return _kept(run, recipe, artifact, work), told


def _kept(run: Run, recipe: Recipe, artifact: Artifact, work: Callable[[Path], Outcome]) -> Artifact:
    """The stage ``export/TARGET-int8-doctor`` beside the file that was refused; the export that ``work`` wrote."""
    made_from = run.result(f"export/{artifact.name}")
    inputs = {artifact.name: artifact.sha256, **(made_from.inputs if made_from else {})}
    stage = f"export/{artifact.target}-{DOCTORED}"
    perform(run, stage, work, recipe=recipe.section("check"), inputs=inputs, force=True)
    return contract.read(run.folder(stage))


def ranking(
    deployed: Deployed, calibration: Uint8, selection: Judge, told: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """ONNX names of the layers, most harmful first (as a climb told, else measured now), and in order of the graph."""
    graph = graph_of(deployed)
    candidate = Candidate(deployed, graph, {})
    names = candidate.layers()
    if known := [layer["name"] for layer in told.get("layers", [])]:
        return known, names
    candidate = replace(candidate, ranges=onnx_ranges.measure(graph, calibration))
    few = replace(selection, images=selection.images[:RANKED], fp32=selection.fp32[:RANKED])
    return [layer.name for layer in rank(candidate, few)], names


def treat(
    deployed: Deployed, artifact: Artifact, recipe: Recipe, data: Data, test: tuple[Uint8, Float32, Labels]
) -> Climb:
    """Climb the ladder for a refused int8 ONNX file.

    deployed: the fp32 network it came from.  test: images, the fp32 answers to them, and labels (negative: unknown).
    """
    images, fp32, labels = test
    calibration, selection, training = unlabelled(data, recipe, deployed, fp32)
    patients = Patients(
        deployed=deployed,
        default=onnx.load(str(artifact.path)),
        calibration=calibration,
        training=training,
        selection=selection,
        test=Judge(images, fp32, artifact.output, labels),
        safe=recipe.export.safe,
    )
    schedule = Schedule(recipe.check.tune_steps, recipe.check.tune_minutes, seed=recipe.seed)
    gates, unsure = _gates(recipe, artifact.output, len(images))
    return Ladder(patients, gates, schedule, doubts=unsure).climb()


def _gates(recipe: Recipe, output: str, n_test: int) -> tuple[Refuse, Refuse]:
    """Why the gates refuse measures; and why measures on the selection images do not promise that they will not."""
    gates = gates_of(recipe.check, output)

    def unsure(measures: Mapping[str, float | int]) -> list[str]:
        return [*doubts(measures, recipe.check, n_test), *gates(measures)]

    return gates, unsure


def unlabelled(
    data: Data, recipe: Recipe, deployed: Deployed, test: Float32, most: int = CHOSEN
) -> tuple[Uint8, Judge, Uint8]:
    """Calibration images, a judge of the selection images, and training images, all of the pretraining images; never
    of the test images.

    The calibration images are those of the export.  The selection is apart from them where there are enough images, as
    hard for fp32 as the test images (``int8_selection.alike``).  test: fp32's answers to those.
    """
    pool = data.pretrain if len(data.pretrain) else data.train
    order = np.random.default_rng(recipe.seed).permutation(len(pool))  # as export.calibration draws them
    count = recipe.export.calibration_images
    calibration, rest = order[:count], order[count:]
    candidates = rest[: POOL * most] if len(rest) >= _FEWEST else order[-POOL * most :]
    first, second, third = (
        pool.subset(np.sort(part)).prepared(data.spec) for part in (calibration, candidates, order[:TRAINING])
    )
    answers = deployed.predict(second)
    if deployed.output == "probabilities":
        chosen = alike(answers, test, min(most, max(len(second) // 2, min(len(second), _FEWEST))))
    else:
        chosen = np.arange(min(most, len(second)))
    return first, Judge(second[chosen], answers[chosen], deployed.output), third


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
    snippet.write(folder)
    return artifact


def summary(climb: Climb) -> dict[str, Any]:
    """The climb as JSON values for the report."""
    return {
        "recommendation": climb.recommendation,
        "passed": climb.model is not None,
        "rungs": [rung.to_dict() for rung in climb.rungs],
        "layers": [layer.to_dict() for layer in climb.layers],
    }
