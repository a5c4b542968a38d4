"""The quantize stage: is each int8 file likely to pass the gates, and where it is not, is there a better one?

Everything is judged on training images apart from the calibration set; the test images are left to ``check``.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from softedge import registry
from softedge.config import Recipe
from softedge.data import late
from softedge.data.images import Data, Images
from softedge.errors import UserError, quoted
from softedge.export import contract, measured, snippet
from softedge.export.base import INTEGERS_OF, Format, open_format
from softedge.export.candidates import Candidates
from softedge.export.deployed import Deployed
from softedge.export.metadata import contradictions
from softedge.export.nearest import Measures
from softedge.progress import say
from softedge.quantize.fine_tuning import Schedule
from softedge.quantize.gates import quality, size
from softedge.quantize.search import Problem, search
from softedge.quantize.selection import Selection, broken, doubts, promised, select
from softedge.quantize.sensitivity import Sensitivity
from softedge.quantize.steps import Chosen, Step
from softedge.records import SEARCHED, Artifact, Outcome, Result
from softedge.run import Run, differences, perform, sha256_of
from softedge.stages import distill, finetune
from softedge.stages.base import on_run
from softedge.stages.check import exported_from, network

CHECK_DECIDES = (
    "The gate of 'softedge check' decides about the exported file, on the test images; where it refuses the file, use "
    "fp16 or fp32."
)
CALIBRATED_TOO = "The selection images calibrated the file, too, since there are few, so this promises little."


def quantize(run: str | PathLike[str], set: Sequence[str] = (), force: bool = False) -> list[Result]:
    """Judge each exported int8 file on training images, and search for a better one where it may not pass the gates."""
    return on_run(stage, run, set, force)


def stage(run: Run, recipe: Recipe, data: Data, force: bool = False) -> list[Result]:
    """One stage ``quantize/<file>`` for each exported int8 file of which its format can make others.

    metrics: what the file measures on the selection images, ``good`` whether that is enough.  details: steps, layers,
    recommendation, and ``file``, the name of the file to use: its own, or that of the one the search wrote to
    ``export/<file>-search``.  Raises UserError when nothing was exported.
    """
    folders = [path.parent for path in sorted(run.folder("export").glob(f"*/{contract.FILE}"))]
    artifacts = [contract.read(folder) for folder in folders if not folder.name.endswith(SEARCHED)]
    if not artifacts:
        raise UserError(f"{run.root} has no exported files; run: softedge export {quoted(run.root)}")
    session = _Session(run, recipe, data)
    order = list(registry.FORMATS)
    results = []
    for artifact in sorted(artifacts, key=lambda a: (order.index(a.target), a.precision)):
        format_ = open_format(artifact.target, recipe.export.batch, recipe.export.safe)
        if artifact.precision in format_.searchable:
            results.append(session.one(artifact, format_, force))
    return results


def in_float(operations: Mapping[str, int]) -> bool:
    """Whether a file computes in float throughout, its weights alone in 8 bits, by ``Format.integer_operations``."""
    return bool(operations) and not any(operations.get(name) for name in ("conv", "linear"))


# What each stage that leaves a classifier kept back from its training; the probe's last fit is on all images.
_UNSEEN: dict[str, Callable[[Result, Data], Images | None]] = {
    "scratch": finetune.unseen,
    "finetune": finetune.unseen,
    "distill": distill.unseen,
}


def _other_limits(done: Result | None, settings: Mapping[str, Any]) -> list[str]:
    """What differs, where nothing but limits of ``check`` does: the search follows them."""
    changed = differences(done.recipe, settings) if done is not None else []
    return changed if all(line.startswith(("check.min_agreement:", "check.max_size:")) for line in changed) else []


def _whole(folder: Path) -> bool:
    """Whether an export is there with all its files, as they were made."""
    try:
        contract.read_golden(folder)
        return not contradictions(contract.read(folder))
    except UserError:
        return False


class _Session:
    """Searches of one run: they share networks, selection images and rankings."""

    def __init__(self, run: Run, recipe: Recipe, data: Data):
        self.run, self.recipe, self.data = run, recipe, data
        self.layers: tuple[Sensitivity, ...] = ()
        self.networks: dict[tuple[Path, str], tuple[Deployed, Selection]] = {}

    def one(self, artifact: Artifact, format_: Format, force: bool) -> Result:
        name, made = f"quantize/{artifact.name}", self.run.folder(f"export/{artifact.name}{SEARCHED}")
        inputs = {artifact.name: artifact.sha256}
        for path in (self.run.folder("data") / "index.json", exported_from(self.run, artifact)):
            if path.is_file():
                within = path.relative_to(self.run.root).as_posix()
                inputs[within] = sha256_of(self.run, within)
        gates = self.recipe.check.model_dump(include={"min_agreement", "images", "max_size"})
        export = self.recipe.export.model_dump(include={"calibration_images", "batch", "safe"})
        settings = {**self.recipe.section("quantize"), "check": gates, "export": export, "seed": self.recipe.seed}
        done = self.run.result(name)
        lost = done is not None and done.details.get("file") == made.name and not _whole(made)
        limits = _other_limits(done, settings)
        if limits and not force:
            say(f"{artifact.name} is judged anew: {'; '.join(limits)}")

        def work(folder: Path) -> Outcome:
            del folder
            outcome = self._work(artifact, format_)
            if outcome.details["file"] != made.name and made.exists():  # of an earlier search; kept until this one ends
                shutil.rmtree(made)
            return outcome

        return perform(
            self.run, name, work, recipe=settings, inputs=inputs, force=force or lost or bool(limits), renew=True
        )

    def _work(self, artifact: Artifact, format_: Format) -> Outcome:
        late.require(self.data, "pretrain")
        deployed, selection = self._network(artifact)

        def make(other: Deployed | None) -> Candidates:
            assert other is not None
            made = format_.candidates(other, artifact.precision, selection.calibration, like=artifact)
            assert made is not None, "a searchable precision has candidates"
            return made

        candidates = make(deployed)
        judge = selection.judge.first(candidates.most_images)
        measures = judge.compared(format_.load(artifact)(judge.images))
        accepts, unsure = self._gates(artifact.output)
        why = unsure(measures)
        default = Step("default", "as exported", measures, artifact.size_bytes, why=tuple(why))
        metrics: dict[str, Any] = {**measures, "good": not why}
        details: dict[str, Any] = {"file": artifact.name, "selection": selection.how}
        if why and (reason := self._not_searched(artifact)):
            say(f"{artifact.name}: {'; '.join(why)}; not searched: {reason}")
            return Outcome(metrics, {**details, "steps": [default.to_dict()]}, {"search": reason})
        if why and (option := candidates.from_file(artifact)) is not None:
            default = dataclasses.replace(default, time_over_fp32=candidates.time_over_fp32(option))
        problem = Problem(
            network=deployed,
            make=make,
            judge=judge,
            accepts=accepts,
            doubts=unsure,
            calibration=selection.calibration,
            training=lambda: selection.training,
            schedule=Schedule(
                self.recipe.quantize.tune_steps, self.recipe.quantize.tune_minutes, seed=self.recipe.seed
            ),
            others=self._good_files(artifact),
            layers=self.layers,
            taken_over=INTEGERS_OF in contract.describe(artifact.path.parent).get("notes", {}),
        )
        result = search(problem, default)
        self.layers = result.layers or self.layers
        if why and result.chosen is None:
            result = dataclasses.replace(result, recommendation=f"{result.recommendation} {CHECK_DECIDES}")
        if not selection.apart:
            result = dataclasses.replace(result, recommendation=f"{result.recommendation} {CALIBRATED_TOO}")
            details["calibrated_too"] = True
        say(f"{artifact.name}: {result.recommendation}")
        details |= result.to_dict()
        if result.chosen is not None:
            details["file"] = self._write(artifact, format_, result.chosen, result.recommendation).name
            metrics["good"] = result.chosen.certain
        return Outcome(metrics, details)

    def _network(self, artifact: Artifact) -> tuple[Deployed, Selection]:
        """The network that a file was exported from, and the selection images for it."""
        checkpoint = exported_from(self.run, artifact)
        if (checkpoint, artifact.output) in self.networks:
            return self.networks[checkpoint, artifact.output]
        deployed = network(self.run, artifact)
        recorded = contract.describe(artifact.path.parent).get("checkpoint") or {}
        deployed.about = {key: value for key, value in recorded.items() if key != "file"}
        trained = self.run.result(checkpoint.parent.name)
        validation = trained.details.get("validation_top1") if trained else None
        held_back = _UNSEEN.get(checkpoint.parent.name)
        unseen = held_back(trained, self.data) if held_back and trained else None
        known = deployed, select(self.data, self.recipe, deployed, validation, unseen)
        self.networks[checkpoint, artifact.output] = known
        return known

    def _gates(self, output: str) -> tuple[Callable[[Measures], list[str]], Callable[[Measures], list[str]]]:
        """Why the gates refuse measures; and why those on the selection images do not promise that they will not."""
        gates = self.recipe.check
        n_test = min(gates.images, len(self.data.test) or len(self.data.pretrain))

        def accepts(measures: Measures) -> list[str]:
            return [*broken(measures), *quality(promised(measures), gates, output)]

        def unsure(measures: Measures) -> list[str]:
            return accepts(measures) or doubts(measures, gates, n_test)

        return accepts, unsure

    def _not_searched(self, artifact: Artifact) -> str:
        if not self.recipe.quantize.search:
            return "quantize.search is off"
        row = {"precision": artifact.precision, "size_bytes": artifact.size_bytes}
        if why := size(row, self.recipe.check):
            return f"{why[0]}, and other roundings make no smaller file"
        return ""

    def _good_files(self, artifact: Artifact) -> list[Artifact]:
        """int8 files of other formats, of the same network, that the selection images are sure of."""
        files = []
        searched = measured.searched(self.run.results("quantize"), measured.files(self.run))
        for name, result in searched.items():
            folder = self.run.folder("export") / str(result.details.get("file", name))
            if not result.metrics.get("good") or not _whole(folder):
                continue
            other = contract.read(folder)
            if open_format(other.target).integer_edges(other):  # integers alone: no file of a network from its image on
                continue
            same = exported_from(self.run, other) == exported_from(self.run, artifact)
            if other.target != artifact.target and other.output == artifact.output and same:
                files.append(other)
        return files

    def _write(self, like: Artifact, format_: Format, chosen: Chosen, recommendation: str) -> Artifact:
        """Write the chosen option into ``export/<file>-search``, with its contract, like any export."""
        source = like.path.parent
        golden, described = contract.read_golden(source), contract.describe(source)
        exported = self.run.result(f"export/{like.name}")
        stage = f"export/{like.name}{SEARCHED}"

        def work(folder: Path) -> Outcome:
            path = chosen.candidates.write(chosen.option, folder)
            made = contract.artifact_of(
                path, like.target, f"{like.precision}{SEARCHED}", like.spec, like.labels, like.output
            )
            answers = format_.load(made)(golden.images)
            kept = contract.Golden(golden.images, answers, golden.pytorch, golden.names)
            integers = format_.bits(made.precision).activations == 8
            floats = integers and in_float(format_.integer_operations(made))
            shared = ("checkpoint", *(() if floats else ("calibration",)), "versions", "made_on")
            about = {key: described[key] for key in shared if key in described}
            if floats:
                about["bits"] = {"weights": 8, "activations": 32}
            if notes := format_.notes(made):
                about["notes"] = notes
            contract.write(folder, made, kept, {**about, "search": recommendation})
            snippet.write(folder)
            return Outcome({"size_bytes": made.size_bytes}, {"sha256": made.sha256, "search": recommendation})

        inputs = {like.name: like.sha256, **(exported.inputs if exported else {})}
        perform(self.run, stage, work, recipe=self.recipe.section("quantize"), inputs=inputs, force=True)
        return contract.read(self.run.folder(stage))
