"""The int8 search: better ways to quantize a network, from cheap to expensive, until one is good enough.

    default -> the integers of another format's file -> calibration -> equalization -> rounding -> bias correction ->
    fewest float layers -> fine-tuning, with float layers where it is not enough -> 8-bit weights alone

One loop over what a format's ``Candidates`` offer.  Everything is measured and chosen on the selection images
(``quantize.selection``); no test image is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from softedge.data.images import Uint8
from softedge.errors import UserError
from softedge.export.calibration import spread
from softedge.export.candidates import Candidates, Option
from softedge.export.deployed import Deployed
from softedge.export.nearest import (
    CLOSER,
    ROUNDING,
    SPARE_DB,
    Choice,
    Judge,
    Measures,
    apart,
    decibels,
    nearest,
    out_of_reach,
    with_nearer_weights,
    with_rounded_weights,
)
from softedge.files import temporary_folder
from softedge.progress import say
from softedge.quantize.equalization import equalize
from softedge.quantize.fine_tuning import Schedule, fine_tune
from softedge.quantize.sensitivity import Sensitivity, at_most, fewest, rank
from softedge.quantize.steps import Chosen, SearchResult, Step, recommend, score, told
from softedge.records import Artifact
from softedge.run import size_bytes

RANKING_IMAGES = 64
EQUALIZATION_IMAGES = 64

Refuse = Callable[[Measures], list[str]]


@dataclass(frozen=True)
class Problem:
    """What a search is about.

    network: fp32; None: a file alone is known, and what needs PyTorch weights (equalization, fine-tuning) is left out.
    make: a network -> the candidates of the format for it.  judge: the selection images.
    accepts: the gates, why they refuse measures.  doubts: why measures on the selection images do not promise that the
    gates will accept the file on others; an option without doubts is good enough.
    calibration: uint8 (N, S, S, 3), to equalize and round on.  training: gives those to tune on.  schedule: of that.
    others: int8 files of the network that are good enough already, of other formats.  layers: a ranking that another
    search has made, for formats that rank by a proxy.  start: the nearest calibration, where it is known already.
    taken_over: the exported file has the integers of another format's.  timed: measure the time of each step where the
    format can.  reference: what the answers are compared with, by name.
    """

    network: Deployed | None
    make: Callable[[Deployed | None], Candidates]
    judge: Judge
    accepts: Refuse
    doubts: Refuse
    calibration: Uint8
    training: Callable[[], Uint8]
    schedule: Schedule = field(default_factory=Schedule)
    others: Sequence[Artifact] = ()
    layers: Sequence[Sensitivity] = ()
    start: Choice | None = None
    taken_over: bool = False
    timed: bool = True
    reference: str = "fp32"


def search(problem: Problem, default: Step) -> SearchResult:
    """Try all steps until one is good enough, else keep the best that the plain gates accept.

    default: what the exported file measures on the selection images; returned as the choice when it is good enough.
    """
    return _Search(problem, default).run()


class _Search:
    """candidates, network, option: the best so far, which the next step builds on.

    plain: ``option`` before its biases were corrected: a correction made for other neighbours would put float layers
    wrong, so it is made anew for each set of them.
    """

    candidates: Candidates
    option: Option
    plain: Option

    def __init__(self, problem: Problem, default: Step):
        self.problem, self.steps = problem, [default]
        self.default_passes = not problem.accepts(default.measures)
        self.network = problem.network
        self.layers: tuple[Sensitivity, ...] = ()
        self.chosen: Chosen | None = None
        self.corrected = False
        self.proxy: Candidates | None = None  # what layers were ranked on, where that is another format

    def run(self) -> SearchResult:
        if self.steps[0].passed:
            self._take_over()
        else:
            self.candidates = self.original = self.problem.make(self.network)
            self._translate()  # costs a conversion
            steps = [self._calibrate, self._equalize, self._round, self._correct_biases, self._mix, self._tune]
            for step in (*([] if self._out_of_reach() else steps), self._weights_only):
                if self.chosen is not None and self.chosen.certain:
                    break
                step()
        recommendation = recommend(self.steps, self.chosen, self.default_passes, self.problem.reference)
        return SearchResult(tuple(self.steps), self.chosen, self.layers, recommendation)

    def _take_over(self) -> None:
        """The integers of another format's file where they are clearly nearer to fp32: this costs a conversion.

        By the noise: in agreement, the difference is chance.  By more where the export took faster ones in their place.
        """
        if not self.problem.others:
            return
        candidates = self.problem.make(self.network)
        enough = decibels(self.steps[0].measures) + (SPARE_DB if self.problem.taken_over else CLOSER)
        for artifact in self.problem.others:
            option = candidates.from_file(artifact)
            measures = self.problem.judge.measure(candidates, option) if option else None
            if option and measures and decibels(measures) >= enough and not self.problem.accepts(measures):
                step = Step("translated", option.what, measures, written_bytes(candidates, option))
                say(f"int8 search, translated: {decibels(measures):.1f} dB, clearly nearer to fp32")
                self.steps.append(step)
                self.chosen, enough = Chosen(step, candidates, option, certain=True), decibels(measures)

    def _translate(self) -> None:
        for artifact in self.problem.others:
            option = self.original.from_file(artifact)
            if option is not None:
                self._record("translated", self.original, option)

    def _out_of_reach(self) -> bool:
        """Whether the integers of another file pass the gates and the nearest of this format's own calibrations is far
        behind: that is the exported file, unless the export has made this comparison itself and taken the integers."""
        if self.problem.taken_over:
            return self.default_passes
        chosen = self.chosen
        return chosen is not None and out_of_reach(decibels(chosen.step.measures), decibels(self.steps[0].measures))

    def _calibrate(self) -> None:
        if self.problem.start is not None:  # the default is this calibration
            self.option = self.plain = self.problem.start.option
            return
        choice = nearest(self.candidates, self.problem.judge)
        self.option = self.plain = choice.option
        self._record("calibrated", self.candidates, choice.option, choice.measures, {"tried_db": choice.tried})

    def _equalize(self) -> None:
        if self.network is None:
            return self._note("equalized", "needs the PyTorch weights")
        calibration = self.problem.calibration
        balanced, pairs = equalize(self.network, calibration[spread(len(calibration), EQUALIZATION_IMAGES)])
        if not pairs:
            self._note("equalized", "no pair of layers can be equalized (hard-swish, SiLU, ReLU6, additions stop it)")
            return
        balanced.about = self.network.about
        candidates = self.problem.make(balanced)
        choice = nearest(candidates, self.problem.judge)
        option = replace(choice.option, what=f"{pairs} pairs equalized; {choice.option.what}")
        if self._keep_if_better("equalized", candidates, replace(choice, option=option)):
            self.candidates, self.network, self.option, self.plain = candidates, balanced, option, option

    def _round(self) -> None:
        """Each layer's weights for the least error of its output, not to the nearest step: see ``nearest.apart``."""
        judge = self.problem.judge
        if ROUNDING in self.option.details:
            return self._note("rounded", "done before the search")
        if (parts := apart(judge, self.problem.calibration)) is None:
            return self._note("rounded", "too few images beside those to round on")
        fitted, unseen = parts
        option = with_rounded_weights(self.candidates, self.option, self.network, fitted)
        why = "this format's weights have grids of their own" if self.network else "needs the PyTorch weights"
        if option is not None and unseen is not judge and not unseen.nearer(self.candidates, option, self.option):
            option, why = None, "no nearer on images that the weights were not rounded on"
        if self._take("rounded", option, why):
            self.plain = self.option

    def _correct_biases(self) -> None:
        option = self.candidates.bias_corrected(self.option)
        self.corrected = self._take("bias", option, "this format corrects no biases")

    def _mix(self) -> None:
        """The fewest layers in float with which the option is good enough, or as many as are allowed."""
        order = self._order()
        if not order:
            return self._note("mixed", "this format can put no layer in float")
        count = self._fewest(self.plain, order) or at_most(len(order))
        self._put_in_float("mixed", self.plain, order, count, self.corrected)

    def _tune(self) -> None:
        """Fine-tune with the most harmful eighth of the layers in float: rounding there is not worth learning."""
        if self.network is None:
            return self._note("tuned", "needs the PyTorch weights")
        worst = self._order(everything=True)
        worst = worst[: max(1, len(worst) // 8)]
        plain = self.candidates.with_float(self.plain, worst) if worst else self.plain
        plain = plain or self.plain
        image = self.problem.calibration[:1]
        roundings = self.candidates.roundings(plain, image)
        if not roundings:
            return self._note("tuned", "this format's rounding cannot be simulated for fine-tuning")
        try:
            network, ranges, steps = fine_tune(
                self.network, roundings, image, self.problem.training(), self.problem.schedule
            )
        except UserError as error:  # a network that torch.fx cannot trace, or a machine that is too slow
            return self._note("tuned", str(error))
        tuned = self.candidates.reweighted(plain, network, ranges)
        if tuned is None:
            return self._note("tuned", "this format takes no fine-tuned weights")
        tuned = replace(tuned, what=f"{plain.what}; fine-tuned {steps} steps")
        choice = Choice(tuned, self.problem.judge.measure(self.candidates, tuned))
        self._keep_if_better("tuned", self.candidates, choice)
        if self.steps[-1].passed:
            return
        order = [name for name in self._order() if name not in self.candidates.float_layers(tuned)]
        if order and (count := self._fewest(tuned, order)) is not None:
            self._put_in_float("tuned-mixed", tuned, order, count, corrected=False)

    def _weights_only(self) -> None:
        if (option := self.original.weights_only()) is None:
            return self._note("weights", "this format has no file with 8-bit weights alone")
        problem = self.problem
        choice = with_nearer_weights(self.original, option, problem.judge, problem.network, problem.calibration)
        self._record("weights", self.original, choice.option)

    def _order(self, everything: bool = False) -> list[str]:
        """Layers, most harmful first; those that the option computes in integers.  everything: all layers."""
        if not self.layers:
            self.layers = tuple(self._rank())
        names = self.candidates.layers()
        kept = frozenset() if everything else self.candidates.float_layers(self.plain)
        if self.proxy is not None:  # the n-th layer there is the n-th here
            theirs = {name: place for place, name in enumerate(self.proxy.layers())}
            if len(theirs) != len(names):
                return []
            ranked = [names[theirs[layer.name]] for layer in self.layers]
        else:
            ranked = [layer.name for layer in self.layers]
        return [name for name in ranked if name not in kept]

    def _rank(self) -> Sequence[Sensitivity]:
        self.proxy = self.candidates.proxy()
        candidates = self.proxy or self.candidates
        names = candidates.layers()
        if not names:
            return ()
        if self.proxy is not None and {layer.name for layer in self.problem.layers} == set(names):
            return self.problem.layers
        few = self.problem.judge.first(RANKING_IMAGES)
        option = self.plain if self.proxy is None else nearest(candidates, few).option
        return rank(candidates, option, few)

    def _fewest(self, option: Option, order: Sequence[str]) -> int | None:
        def suffices(count: int) -> bool:
            more = self.candidates.with_float(option, order[:count])
            return more is not None and not self.problem.doubts(self.problem.judge.measure(self.candidates, more))

        return fewest(len(order), suffices)

    def _put_in_float(self, name: str, option: Option, order: Sequence[str], count: int, corrected: bool) -> None:
        mixed = self.candidates.with_float(option, order[:count])
        assert mixed is not None, "a ranked layer can be put in float"
        mixed = replace(mixed, what=f"{option.what}; {count} of {len(order)} integer layers put in float")
        if corrected:
            mixed = self.candidates.bias_corrected(mixed) or mixed
        self._record(name, self.candidates, mixed, details={"float_layers": count, "layers": len(order)})

    def _take(self, name: str, option: Option | None, why: str) -> bool:
        """Go on with what was made of the best option so far where it is nearer to fp32; whether it is.

        None: a step that could not be made, and why.
        """
        if option is None:
            self._note(name, why)
            return False
        choice = Choice(option, self.problem.judge.measure(self.candidates, option))
        if nearer := self._keep_if_better(name, self.candidates, choice):
            self.option = option
        return nearer

    def _keep_if_better(self, name: str, candidates: Candidates, choice: Choice) -> bool:
        """Record the option; go on with it when it is nearer to fp32: what costs no time is kept unless it hurts."""
        gain = decibels(choice.measures) - self.problem.judge.decibels(self.candidates, self.option)
        details = {"gain_db": gain, **({"tried_db": choice.tried} if choice.tried else {})}
        self._record(name, candidates, choice.option, choice.measures, details, kept=gain >= 0)
        return gain >= 0

    def _record(
        self,
        name: str,
        candidates: Candidates,
        option: Option,
        measures: Measures | None = None,
        details: Mapping[str, Any] | None = None,
        kept: bool = True,
    ) -> None:
        """Measure a step, and choose its option when it is good enough, or the best that the plain gates accept."""
        measures = self.problem.judge.measure(candidates, option) if measures is None else measures
        why = tuple(self.problem.doubts(measures))
        step = Step(
            name,
            option.what,
            measures,
            written_bytes(candidates, option),
            candidates.time_over_fp32(option) if self.problem.timed else None,
            why,
            kept,
            details or {},
        )
        self.steps.append(step)
        best = score(self.chosen.step.measures) if self.chosen else None
        if best is None and self.default_passes:
            best = score(self.steps[0].measures)
        if not why or (not self.problem.accepts(measures) and (best is None or score(measures) > best)):
            self.chosen = Chosen(step, candidates, option, certain=not why)
        say(f"int8 search, {name}: {told(measures, why)}")

    def _note(self, name: str, why: str) -> None:
        say(f"int8 search, {name}: {why}")
        self.steps.append(Step(name, why, {}, why=(why,), kept=False))


def written_bytes(candidates: Candidates, option: Option) -> int:
    """Size of all files that an option would be written to."""
    with temporary_folder("candidate") as folder:
        candidates.write(option, folder)
        return size_bytes(folder)
