"""Of several ways to quantize a network, the one whose answers are nearest to fp32: the export's default choice.

The int8 search (``quantize.search``) begins with the same comparison, on other images.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from softedge.errors import UserError
from softedge.eval.measures import comparable, compare, expected_agreement, sqnr_db
from softedge.export.base import Float32, Uint8
from softedge.export.calibration import set_aside
from softedge.export.candidates import Candidates, Option
from softedge.progress import say
from softedge.records import Artifact

if TYPE_CHECKING:
    from softedge.export.deployed import Deployed

FLOOR_DB = 6.0  # noise of half the signal: such a file may agree on lopsided images and is broken all the same
CLOSER = 1.0  # dB that an option of a higher tier must gain, and the integers of another format's file
FAR_CLOSER = 3.0  # dB; half the layers of an EfficientNet-Lite0 in float gained an OpenVINO file 0.7
SURE_DB = 20.0  # noise of a tenth; noisier files changed more answers on new images than on those they were chosen on
SPARE_DB = 2.0  # that integers made for speed may lose to another file's; noise a quarter larger
SPARE_ANSWERS = 0.005  # the share of answers that they may be expected to lose by either
JUDGES = 4  # images that rounded weights are judged on, at least; with fewer even all of them may be chance
ROUNDING = "rounding"  # among an option's details: how its weights were rounded, where not to the nearest step
_SURE = 1.28  # standard deviations: chance stays below nine times in ten
_LEANER = 1e9  # the tier before the integers of another format's file, and behind all of a format's own
_QUIET_SECONDS = 10.0  # without a line, at most a comparison longer

Measures = Mapping[str, float | int]


@dataclass(frozen=True)
class Judge:
    """Images (N, S, S, 3) with the answers (N, C) of fp32.  output: "probabilities", "scores" or "features".

    unseen: the network was not trained on them, so that they say what to expect of others.
    """

    images: Uint8
    fp32: Float32
    output: str
    unseen: bool = False

    @classmethod
    def of(cls, deployed: Deployed, images: Uint8) -> Judge:
        return cls(images, deployed.predict(images), deployed.output)

    def first(self, count: int) -> Judge:
        return replace(self, images=self.images[:count], fp32=self.fp32[:count])

    def without(self, images: Uint8) -> Judge:
        """The other images; itself where it has none of ``images``."""
        known = {image.tobytes() for image in images}
        kept = [index for index, image in enumerate(self.images) if image.tobytes() not in known]
        return self if len(kept) == len(self.images) else replace(self, images=self.images[kept], fp32=self.fp32[kept])

    def measure(self, candidates: Candidates, option: Option) -> Measures:
        return self.compared(candidates.predict(option, self.images))

    def compared(self, answers: Float32) -> Measures:
        """The measures of ``eval.measures.compare`` for answers (N, C) to all images; no labels are used.

        Of unseen images also ``expected_agreement`` and ``expected_error``, its standard error.
        """
        measures = compare(self.fp32, answers, None, self.output)
        if self.unseen and self.output == "probabilities":
            measures["expected_agreement"], measures["expected_error"] = expected_agreement(self.fp32, answers)
        return measures

    def kept(self, candidates: Candidates, option: Option) -> float:
        """The share of answers that an option is expected to keep; NaN of features and scores."""
        if self.output != "probabilities":
            return math.nan
        return expected_agreement(self.fp32, candidates.predict(option, self.images))[0]

    def decibels(self, candidates: Candidates, option: Option) -> float:
        return decibels(self.measure(candidates, option))

    def nearer(self, candidates: Candidates, option: Option, other: Option) -> bool:
        """Whether this judge prefers the answers of ``option``."""
        return self.prefers(*(candidates.predict(each, self.images) for each in (option, other)))

    def prefers(self, answers: Float32, others: Float32) -> bool:
        """Whether ``answers`` (N, C) are nearer to fp32 than ``others``, on more than half of the images by more than
        chance (a sign test).

        On all of 4 images, 11 of 16, 44 of 75.  Images differ more than options do: medians of a few say little.
        """
        exact = comparable(self.fp32, self.output)
        after, before = (
            np.nan_to_num(sqnr_db(exact, comparable(each, self.output)), nan=-np.inf) for each in (answers, others)
        )
        count = len(exact)
        return int((after > before).sum()) >= count / 2 + _SURE * math.sqrt(count) / 2


def decibels(measures: Measures) -> float:
    """The median signal to quantization noise; minus infinity where an answer is NaN."""
    value = float(measures["sqnr_db"])
    return value if math.isfinite(value) else -math.inf


@dataclass(frozen=True)
class Choice:
    """compared: every option that was measured, the chosen one among them."""

    option: Option
    measures: Measures
    compared: Sequence[tuple[Option, Measures]] = ()

    @property
    def tried(self) -> dict[str, float]:
        """What was done -> dB."""
        return {option.what: decibels(measures) for option, measures in self.compared}

    def best_of_tiers(self) -> dict[float, Option]:
        """Tier -> the option with the least noise."""
        by_noise = sorted(self.compared, key=lambda pair: decibels(pair[1]))
        return {option.tier: option for option, _ in by_noise}


def out_of_reach(theirs: float, own: float) -> bool:
    """Whether the integers of another format's file (dB) are so near to fp32 that what builds on a format's own
    calibrations, the nearest of which has ``own`` dB, would come in second."""
    return theirs >= own + FAR_CLOSER


def nearest(candidates: Candidates, judge: Judge, others: Sequence[Artifact] = ()) -> Choice:
    """Measure every calibration and choose the one with the least noise.

    By decibels, not by agreement: on a few hundred images one changed answer is worth more than the difference.  Of the
    tiers the first whose best is within ``CLOSER`` of the best of all: what is computed in float costs time.

    others: int8 files of the network in other formats.  Their integers are options of a last tier, measured first; the
    calibrations end where integers with little noise (``SURE_DB``) are out of their reach, of the ``fewest`` at least.
    Where those integers are not farther than this format's own, ``leaner`` ones come in, the fastest first.  The first
    is taken that is nearer than the own ones, and as near as those of the file, or within ``SPARE_DB`` of them if it
    keeps the answers (``_keeps``).
    """
    best: dict[float, tuple[float, Option, Measures]] = {}
    compared: list[tuple[Option, Measures]] = []
    last_line_at = time.monotonic()

    def compare_with_fp32(option: Option, tier: float) -> None:
        nonlocal last_line_at
        measures = judge.measure(candidates, option)
        compared.append((option, measures))
        if time.monotonic() - last_line_at > _QUIET_SECONDS:
            say(f"int8, comparing: {option.what}, {decibels(measures):.1f} dB")
            last_line_at = time.monotonic()
        value = decibels(measures)
        if tier not in best or value > best[tier][0]:
            best[tier] = value, option, measures

    for artifact in others:
        if (option := candidates.from_file(artifact)) is not None:
            compare_with_fp32(option, math.inf)
    theirs = best[math.inf][0] if best else -math.inf
    own = -math.inf
    for count, option in enumerate(candidates.calibrations(), start=1):
        compare_with_fp32(option, option.tier)
        candidates.told(option, decibels(compared[-1][1]))
        own = max(value for tier, (value, *_) in best.items() if tier < math.inf)
        if theirs >= SURE_DB and count >= candidates.fewest and out_of_reach(theirs, own):
            break
    if theirs > own - CLOSER:
        for leaner in candidates.leaner(best[math.inf][1]):
            compare_with_fp32(leaner, _LEANER)
            less = decibels(compared[-1][1])
            spared = less >= theirs - SPARE_DB and _keeps(judge, candidates, leaner, best[math.inf][1])
            if less > own + CLOSER and (spared or less >= theirs - CLOSER):
                return Choice(*compared[-1], compared)
    near = max(value for value, *_ in best.values()) - CLOSER
    _, option, measures = next(best[tier] for tier in sorted(best) if best[tier][0] >= near)
    return Choice(option, measures, compared)


def _keeps(judge: Judge, candidates: Candidates, leaner: Option, theirs: Option) -> bool:
    """Whether ``leaner`` integers are expected to lose at most ``SPARE_ANSWERS`` that another file's keep.

    Expected, since of a few hundred images the count is mostly chance.  A network with many close calls loses more
    answers to the same noise.
    """
    return judge.kept(candidates, leaner) >= judge.kept(candidates, theirs) - SPARE_ANSWERS


def apart(judge: Judge, calibration: Uint8) -> tuple[Uint8, Judge] | None:
    """Images to round weights on, and a judge who has none of them; None where he would have fewer than ``JUDGES``.

    Where ``judge`` asks calibration images, those of ``set_aside`` only judge.  Rounding fits the images that it sees:
    on those an LCNet with random weights gained 4 dB from 16 images of noise, on others it lost 3.
    """
    fitted = calibration
    if judge.without(calibration) is not judge:
        fitted = np.delete(calibration, set_aside(len(calibration)), axis=0)
    unseen = judge.without(fitted)
    return (fitted, unseen) if len(unseen.images) >= JUDGES else None


def with_rounded_weights(
    candidates: Candidates, option: Option, network: Deployed | None, calibration: Uint8
) -> Option | None:
    """The same option with each layer's weights rounded for the least error of its output (``export.rounding``).

    None where the format cannot.  network: None where a file alone is known.  calibration: uint8 (N, S, S, 3).
    """
    return next(iter(_with_rounded_weights(candidates, [option], network, calibration)), None)


def _with_rounded_weights(
    candidates: Candidates, options: Sequence[Option], network: Deployed | None, calibration: Uint8
) -> list[Option]:
    """``with_rounded_weights`` of all options where the network's weights are rounded, which is done once; of the first
    alone where each takes as long."""
    option = options[0]
    largest = candidates.largest_weight(option)
    if network is None or largest is None:
        made = [(option, candidates.rounded(option, calibration))]
    else:
        from softedge.export.rounding import rounded

        on_grid = rounded(network, calibration, largest=largest)
        made = [(each, candidates.reweighted(each, on_grid, {})) for each in options]
    return [
        replace(
            after,
            what=f"{before.what}; weights rounded for the least error of each layer's output",
            details={ROUNDING: "least error", **after.details},
        )
        for before, after in made
        if after is not None
    ]


def rounded_where_nearer(
    candidates: Candidates, choice: Choice, judge: Judge, network: Deployed | None, calibration: Uint8
) -> Choice:
    """``choice``, or the same with rounded weights (``with_rounded_weights``) where those are nearer to fp32 on images
    that they were not rounded on (``apart``, ``Judge.prefers``); the measures of rounded options are of those.

    Beside better weights layers in float may gain more than they did, or less: the best option of each tier gets those
    weights, too (of lower ones, where they have the same grid), and the tiers are compared again.
    """
    if (parts := apart(judge, calibration)) is None:
        return choice
    fitted, unseen = parts
    best, grid = choice.best_of_tiers(), candidates.largest_weight(choice.option)
    others = [best[tier] for tier in sorted(best) if tier != choice.option.tier and tier < _LEANER]
    others = [o for o in others if o.tier > choice.option.tier or candidates.largest_weight(o) == grid]
    options = _with_rounded_weights(candidates, [choice.option, *others], network, fitted)
    if not options:
        return choice
    options.sort(key=lambda option: option.tier)
    answers = [candidates.predict(option, unseen.images) for option in options]
    made = [(option, unseen.compared(each)) for option, each in zip(options, answers, strict=True)]
    compared = [*choice.compared, *made]
    near = max(decibels(measures) for _, measures in made) - CLOSER
    chosen = next(index for index, (_, measures) in enumerate(made) if decibels(measures) >= near)
    if not unseen.prefers(answers[chosen], candidates.predict(choice.option, unseen.images)):
        return replace(choice, compared=compared)
    return Choice(*made[chosen], compared)


def with_nearer_weights(
    candidates: Candidates, option: Option, judge: Judge, network: Deployed | None, calibration: Uint8
) -> Choice:
    """``rounded_where_nearer`` of an option that was not chosen among others."""
    choice = Choice(option, judge.measure(candidates, option))
    return rounded_where_nearer(candidates, choice, judge, network, calibration)


def write_only(candidates: Candidates, option: Option, deployed: Deployed, calibration: Uint8, out: Path) -> Path:
    """Write the option of a precision that offers no choice, its weights rounded for each layer's output where that
    brings it nearer to fp32; without images to the nearest steps.  The path of the file."""
    if len(calibration):
        judge = Judge.of(deployed, candidates.comparison())
        option = with_nearer_weights(candidates, option, judge, deployed, calibration).option
    return candidates.write(option, out)


def write_nearest(
    candidates: Candidates, deployed: Deployed, calibration: Uint8, out: Path, others: Sequence[Artifact] = ()
) -> Path:
    """Write the option that is nearest to fp32 on the candidates' own comparison images; the path of the file.

    Its weights are rounded for each layer's output where that brings it nearer.  calibration: uint8 (N, S, S, 3).
    others: see ``nearest``.  Their weights were rounded on the calibration images that ``apart`` gives them: where
    there are any, all options are compared on the rest.
    """
    images = candidates.comparison()
    if not len(images):
        raise UserError("int8 needs calibration images, found none; give some, or leave int8 out of --precisions")
    judge = Judge.of(deployed, images)
    if others and (parts := apart(judge, calibration)) is not None:
        judge = parts[1]
    choice = nearest(candidates, judge, others)
    choice = rounded_where_nearer(candidates, choice, judge, deployed, calibration)
    if deployed.shipped and (noise := decibels(choice.measures)) < FLOOR_DB:
        say(
            f"warning: int8 does not suit this network: of {len(choice.tried)} ways to quantize it the best, "
            f"'{choice.option.what}', has {noise:.1f} dB signal to noise on calibration images"
        )
    return candidates.write(choice.option, out)
