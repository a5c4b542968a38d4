"""``softedge quantize model.onnx --images DIR``: int8 for a float classifier that is nothing but a file.

No PyTorch weights, no labels, no run. The images are split three ways: to calibrate, to choose on, to test on.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from softedge import registry
from softedge.config import Check, build
from softedge.errors import UserError, first_line, whole
from softedge.eval.measures import compare, cut_off, saturated
from softedge.export import calibration
from softedge.export.base import Float32, Format, GivenModel, Uint8, open_format
from softedge.export.candidates import Candidates, Option
from softedge.export.given_notes import of_as_many
from softedge.export.nearest import ROUNDING, Choice, Judge, Measures, decibels, nearest, rounded_where_nearer
from softedge.progress import plural, say
from softedge.quantize.gates import allowance, quality, quality_on_test
from softedge.quantize.search import Problem, search, written_bytes
from softedge.quantize.selection import broken, doubts
from softedge.quantize.steps import Step
from softedge.records import Outcome, Result
from softedge.run import Run, perform, sha256, size_bytes
from softedge.stages.export_file import refuse_dead
from softedge.stages.opening import absolute, refuse_another
from softedge.stages.quantize_images import cautions, split
from softedge.weights.class_names import class_names, refuse_other_count

_ONE_BY_ONE = "export it again with a batch size of one, not of any number"
_RECORDS = {"result.json", "begun.json", "timing.json"}
_SATURATED = 0.1  # of the images; the noise of these is not seen
_WARMER, _WARMEST = 4.0, 1e6  # factors of the temperature, and its end
_ALONE = 2  # images that are also asked one by one
_SAME = 1e-3  # largest difference of an answer between asking an image alone and with others: what rounding explains


def quantize_file(
    file: str | Path,
    images: str | Path | None,
    out: str | Path = "runs/quantized",
    asked: Mapping[str, Any] | None = None,
    min_agreement: float | None = None,
    seed: int = 0,
    force: bool = False,
) -> Result:
    """Write ``out/<format>-int8/model.*`` with the input and outputs of ``file``, where a candidate passes the gates.

    images: a folder of real images; no labels are used.  asked: size, mean, std, interpolation, crop, activation
    ("softmax" or "sigmoid"), bgr (True), where the file does not say them itself.  details: steps (what was tried,
    measured on the selection images), file.  metrics: agreement and noise of the written file on the test images, read
    back.  ``metrics["passed"]`` is False when no candidate passes; then no file is written.  Raises UserError for a
    file that is not a float classifier.
    """
    if images is None:
        raise UserError(f"int8 ranges of {file} need real images; give a folder of them with --images")
    if (activation := (asked or {}).get("activation")) not in (None, "softmax", "sigmoid"):
        raise UserError(f"--activation is softmax or sigmoid; found '{activation}'")
    file, root, seed = Path(file), Path(images), whole("seed", seed, 0)
    limits = {} if min_agreement is None else {"min_agreement": min_agreement}
    gates = build({"check": limits}, source="the command line").check
    format_ = _format(file)
    if (why := format_.missing()) is not None:
        raise UserError(why)
    given = format_.given(file, asked or {})
    if given is None:
        raise UserError(f"{file} is a {format_.title} file, which softedge cannot quantize")
    run, files, name = Run(out), (*format_.files(file), *given.files), f"{format_.name}-int8"
    inputs = {one.name: sha256(one) for one in files}
    _refuse_foreign(run, name, format_)
    if not force:
        refuse_another(run, name, file, inputs)
    settings = {
        "asked": {k: v for k, v in (asked or {}).items() if v is not None},
        "min_agreement": gates.min_agreement,
        "images": absolute(root),
        "seed": seed,
    }
    with run.locked():
        result = perform(
            run,
            name,
            lambda folder: _Work(file, format_, given, gates, root, seed).into(folder),
            recipe=settings,
            inputs=inputs,
            force=force,
            renew=True,
        )
    return result


def _refuse_foreign(run: Run, name: str, format_: Format) -> None:
    """UserError where the result would take the place of what something else has made."""
    folder = run.folder(name)
    there = {path.name for path in folder.iterdir() if path.name[:5] != ".tmp-"} if folder.is_dir() else set()
    made = {path.name for path in format_.files(folder / f"model{format_.suffix}")}
    theirs = there - _RECORDS - (made if there & _RECORDS else set())
    if theirs:
        what = f"'{min(theirs)}'" + (f" and {len(theirs) - 1} more" if len(theirs) > 1 else "")
        raise UserError(f"{folder} holds {what}, which softedge did not write; move it away, or give another --out")
    done = None
    with contextlib.suppress(UserError):  # damaged: perform says so
        done = run.result(name)
    if done is not None and done.stage != name:
        raise UserError(f"{folder} belongs to a run; give another --out")


def is_model(path: Path) -> bool:
    """Whether it is a file, or a folder that a format takes for one: no run."""
    return path.is_file() or (path.is_dir() and path.suffix in {open_format(name).suffix for name in registry.FORMATS})


def _format(file: Path) -> Format:
    formats = [open_format(name) for name in registry.FORMATS]
    known = {one.suffix: one for one in formats if type(one).given is not Format.given}
    if not file.exists():
        raise UserError(f"{file} does not exist; give a float model file, such as model.onnx, or a run folder")
    if other := next((one for one in formats if one.suffix == file.suffix and one.suffix not in known), None):
        raise UserError(
            f"{file} is a {other.title} file, which softedge cannot quantize; give the same network as "
            f"{', '.join(sorted(known))}"
        )
    if file.suffix.lower() not in known:
        raise UserError(f"{file} is no model file that can be quantized; those end in {', '.join(sorted(known))}")
    return known[file.suffix.lower()]


class _Work:
    def __init__(self, file: Path, format_: Format, given: GivenModel, gates: Check, root: Path, seed: int):
        self.format, self.given, self.gates = format_, given, gates
        self.source = absolute(file)
        self.costs: dict[int, tuple[int, float | None]] = {}  # of a tier: bytes, time over fp32
        images = split(root, given.spec, seed)
        self.calibration, chosen, self.test = images.calibration, images.selection, images.test
        for line in calibration.look(self.calibration):
            say(f"warning: {line}")
        answers = self._unsaturated(file, chosen)
        self.labels = self._names(file, answers.shape[1])
        refuse_dead(answers, file)
        self.judge = Judge(chosen, answers, given.output)

    def _names(self, file: Path, classes: int) -> dict[str, Any]:
        """Class names and who says so: the file itself, else ``config.json`` beside it; {} where nobody does."""
        if (own := of_as_many(file, self.given.names, classes)) is not None:
            names, origin, place = own[0], f"the file's entry '{own[1]}'", f"its entry '{own[1]}'"
        elif (beside := class_names(file)) is not None:
            refuse_other_count(*beside, file, classes)
            names, origin, place = beside[0], beside[1].name, str(beside[1])
        else:
            return {}
        say(f"{file.name}: the names of {plural(classes, 'class', 'classes')}, from {place}")
        return {"labels": list(names), "labels_from": origin}

    def _unsaturated(self, file: Path, images: Uint8) -> Float32:
        """The answers, where they are all 0 and 1 and the file gives logits, of those divided by a temperature: noise
        in probabilities below 1e-6 is not seen, so none is left there."""
        answers, self.temperature = self._answered(file, images), 1.0
        cut = saturated(answers, self.given.output) > _SATURATED
        while cut and self.given.at_temperature is not None:
            self.temperature *= _WARMER
            if self.temperature > _WARMEST:
                break
            self.given = self.given.at_temperature(self.temperature)
            answers = self._answered(file, images)
            cut = cut_off(answers, self.given.output) > 0
        self.saturated = saturated(answers, self.given.output)
        if self.temperature > 1:
            say(f"{file.name}: nearly all answers are 0 or 1, so noise is measured in logits / {self.temperature:g}")
        elif self.saturated > _SATURATED:
            say(
                f"warning: {100 * self.saturated:.0f} % of the answers of {file.name} are 0 and 1 to within 1e-6, "
                "which hides noise: no dB are shown; give the file that ends in logits if you can"
            )
        return answers

    def _answered(self, file: Path, images: Uint8) -> Float32:
        """One row for each image; UserError where the file has a batch size of its own, whatever its input declares."""
        try:
            answers = self.given.predict(images)
        except UserError:
            raise
        except Exception as error:  # each runtime has its own kinds, of graphs that cannot run
            raise UserError(f"{file} cannot be run on several images ({first_line(error)}); {_ONE_BY_ONE}") from error
        if len(answers) != len(images):
            raise UserError(f"{file} gives {len(answers)} rows of scores for {len(images)} images; {_ONE_BY_ONE}")
        alone = np.concatenate([self.given.predict(images[i : i + 1]) for i in range(min(_ALONE, len(images)))])
        if np.abs(alone - answers[: len(alone)]).max() > _SAME:
            raise UserError(
                f"{file} answers differently when an image comes alone and with others, or when it is asked twice: "
                "BatchNorm or dropout is in training mode, or an operator mixes the batch; export it again in eval mode"
            )
        return answers

    def into(self, folder: Path) -> Outcome:
        candidates = self.given.candidates(self.calibration)
        choice = rounded_where_nearer(candidates, nearest(candidates, self.judge), self.judge, None, self.calibration)
        if (other := self._good_enough(choice)) is not choice:
            choice = rounded_where_nearer(candidates, other, self.judge, None, self.calibration)
        tried = [self._step(candidates, option, measures) for option, measures in choice.compared]
        default = next(step for step, (option, _) in zip(tried, choice.compared) if option is choice.option)
        name = "rounded" if ROUNDING in choice.option.details else "calibrated"
        default = dataclasses.replace(default, name=name, kept=True)
        result = search(
            Problem(
                network=None,
                make=lambda network: candidates,
                judge=self.judge,
                accepts=self._accepts,
                doubts=self._doubts,
                calibration=self.calibration,
                training=lambda: self.calibration,
                start=choice,
                reference=self.given.precision,
            ),
            default,
        )
        searched = {step.what for step in (default, *result.steps)}  # what was tried before may be tried again there
        steps = [*(step for step in tried if step.what not in searched), *result.steps]
        details: dict[str, Any] = {
            "from": self.source,
            "precision": self.given.precision,
            "recommendation": result.recommendation,
            "steps": [self._seen(step.to_dict()) for step in steps],
            "layers": [layer.to_dict() for layer in result.layers],
            "spec": self.given.spec.to_dict(),
            **self.given.about,
            **self.labels,
            **({"temperature": self.temperature} if self.temperature > 1 else {}),
            **({"saturated": self.saturated} if self.saturated > _SATURATED else {}),
            "images": {
                "calibration": len(self.calibration),
                "selection": len(self.judge.images),
                "test": len(self.test),
            },
        }
        option = result.chosen.option if result.chosen else choice.option
        if result.chosen is None and self._accepts(choice.measures):
            details["recommendation"] += f" Use {'fp16 or ' * (self.given.precision != 'fp16')}{self.given.precision}."
            return Outcome({"passed": False}, details)
        path = candidates.write(option, folder)
        answers = self.given.predict(self.test)
        measures = compare(answers, self.given.read_back(path)(self.test), None, self.given.output)
        details["cautions"] = cautions(answers, measures, self.given.output)
        if why := [*broken(measures), *quality_on_test(measures, self.gates, self.given.output)]:
            for written in self.format.files(path):
                written.unlink()
            details["recommendation"] = (
                f"the file agreed on the selection images, not on the test images: {'; '.join(why)}"
            )
            return Outcome({**self._seen(measures), "passed": False}, details)
        if allowed := allowance(measures, self.gates, self.given.output):
            details["allowed"] = allowed
        files = self.format.files(path)
        metrics = {**self._seen(measures), "size_bytes": sum(size_bytes(one) for one in files), "passed": True}
        return Outcome(metrics, {**details, "file": path.name, "what": option.what, "sha256": sha256(path)})

    def _seen(self, measures: Measures) -> dict[str, Any]:
        """Without a signal to noise that saturated answers hide."""
        return {key: value for key, value in measures.items() if key != "sqnr_db" or self.saturated <= _SATURATED}

    def _good_enough(self, choice: Choice) -> Choice:
        """Where the choice is not, the nearest to fp32 of the lowest tier that is: it is there already, and whatever
        the search would make of the choice costs time in the file, too."""
        enough = [(option, measures) for option, measures in choice.compared if not self._doubts(measures)]
        if not enough or not self._doubts(choice.measures):
            return choice
        option, measures = min(enough, key=lambda one: (one[0].tier, -decibels(one[1])))
        return dataclasses.replace(choice, option=option, measures=measures)

    def _step(self, candidates: Candidates, option: Option, measures: Measures) -> Step:
        """A calibration, or rounded weights, as a row of the table.

        Ranges and roundings cost neither time nor bytes, what stays in float does.
        """
        if option.tier not in self.costs:
            self.costs[option.tier] = written_bytes(candidates, option), candidates.time_over_fp32(option)
        size, time = self.costs[option.tier]
        name = "rounding" if ROUNDING in option.details else "calibration"
        return Step(name, option.what, measures, size, time, tuple(self._doubts(measures)), kept=False)

    def _accepts(self, measures: Measures) -> list[str]:
        return [*broken(measures), *quality(measures, self.gates, self.given.output)]

    def _doubts(self, measures: Measures) -> list[str]:
        return self._accepts(measures) or doubts(measures, self.gates, len(self.test))
