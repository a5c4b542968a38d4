"""The int8 doctor: better ways to quantize, from cheap to dear, climbed only while the gates refuse the file.

    default -> calibration -> equalization -> bias correction -> float layers -> fine-tuning, with float layers where it
    is not enough -> 8-bit weights alone

Every choice inside a rung is made on unlabelled selection images (``int8_selection``); the test images only say whether
to climb on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx

from softedge.config import Check
from softedge.data.images import Uint8
from softedge.errors import UserError
from softedge.export.deployed import Deployed
from softedge.export.onnx import graph as onnx_graph
from softedge.export.onnx.quantizer import Scheme
from softedge.progress import say
from softedge.quantize.bias import CORRECTED, correct_biases
from softedge.quantize.candidate import Candidate, Judge, graph_of, leading_float
from softedge.quantize.equalization import equalize
from softedge.quantize.fine_tuning import Schedule, fine_tune
from softedge.quantize.ranges import best_ranges
from softedge.quantize.sensitivity import LARGEST_SHARE, Layer, fewest_float, rank

_RANKING_IMAGES = 64
_EQUALIZATION_IMAGES = 64
_MARGIN_DB = 0.0  # they cost nothing at run time: kept unless the selection images say that they hurt
NAMES = ("default", "calibrated", "equalized", "bias", "mixed", "tuned", "tuned-mixed", "weights")


@dataclass(frozen=True)
class Patients:
    """deployed: the fp32 network.  default: the int8 file as exported.  calibration, training: unlabelled images.

    selection: unlabelled images to choose on, none of them in ``calibration``.  test: what the gates are asked on.
    safe: weights of 7 bits, see ``onnx_int8.Scheme``.
    """

    deployed: Deployed
    default: onnx.ModelProto
    calibration: Uint8
    training: Uint8
    selection: Judge
    test: Judge
    safe: bool = False


@dataclass(frozen=True)
class Rung:
    """One step: what was done, what it measures on the test images, whether the gates accept it and it was kept."""

    name: str
    what: str
    measures: Mapping[str, float | int]
    size_bytes: int
    time_over_fp32: float | None
    why: tuple[str, ...]
    kept: bool = True
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return not self.why

    def to_dict(self) -> dict[str, Any]:
        return {
            "rung": self.name,
            "what": self.what,
            **self.measures,
            "size_bytes": self.size_bytes or None,
            "time_over_fp32": self.time_over_fp32,
            "passed": self.passed,
            "why": "; ".join(self.why),
            "kept": self.kept,
            **self.details,
        }


@dataclass(frozen=True)
class Climb:
    """rungs: all that were climbed.  model: the one to use; None: all are refused.  layers: by sensitivity."""

    rungs: tuple[Rung, ...]
    model: onnx.ModelProto | None
    name: str
    deployed: Deployed
    layers: tuple[Layer, ...]
    recommendation: str


Refuse = Callable[[Mapping[str, float | int]], list[str]]


class Ladder:
    """Climbs for one network.

    refuse: why the gates refuse measures.  doubts: why measures on the selection images do not promise that the gates
    will accept those on the test images (``refuse`` when None).  timed: measure latency against fp32.
    """

    def __init__(
        self, patients: Patients, refuse: Refuse, schedule: Schedule, timed: bool = True, doubts: Refuse | None = None
    ):
        self.patients, self.refuse, self.schedule, self.timed = patients, refuse, schedule, timed
        self.doubts = doubts or refuse
        self.rungs: list[Rung] = []
        self.layers: tuple[Layer, ...] = ()
        self.float_model = onnx_graph.trace(patients.deployed)

    def climb(self) -> Climb:
        """All rungs until one passes; the best one so far goes on to the next."""
        patients = self.patients
        if self._measured("default", "as exported", patients.default).passed:
            return self._result(patients.default, patients.deployed)
        graph = graph_of(patients.deployed)
        scheme = Scheme(leading_float(graph, patients.default), patients.safe)
        start = Candidate(patients.deployed, graph, {}, scheme)
        candidate, tried = best_ranges(start, patients.calibration, patients.selection)
        if self._rung("calibrated", candidate, {"tried_db": tried}).passed:
            return self._done(candidate)
        for step in (self._equalized, self._corrected, self._mixed, self._tuned, self._weights):
            better = step(candidate)
            if better is None:
                continue
            candidate = better
            if self.rungs[-1].passed:
                return self._done(candidate)
        return self._result(None, patients.deployed)

    def _equalized(self, candidate: Candidate) -> Candidate | None:
        balanced, pairs = equalize(candidate.deployed, self.patients.calibration[:_EQUALIZATION_IMAGES])
        if not pairs:
            self._note("equalized", "no pair of layers can be equalized (hard-swish, SiLU and additions stop it)")
            return None
        option = candidate.changed(f"{pairs} pairs equalized", deployed=balanced, graph=graph_of(balanced))
        option, _ = best_ranges(option, self.patients.calibration, self.patients.selection)
        return self._if_better("equalized", option, candidate)

    def _corrected(self, candidate: Candidate) -> Candidate | None:
        return self._if_better("bias", correct_biases(candidate, self._few()), candidate)

    def _mixed(self, candidate: Candidate) -> Candidate | None:
        """The fewest layers in float with which the selection images promise enough, ``LARGEST_SHARE`` at most.

        Biases are corrected anew for each set: a correction made for other neighbours would put float layers wrong.
        """
        plain = self._without_correction(candidate)
        selection = self.patients.selection
        few = replace(selection, images=selection.images[:_RANKING_IMAGES], fp32=selection.fp32[:_RANKING_IMAGES])
        self.layers = tuple(rank(plain, few))
        order = [layer.name for layer in self.layers if layer.name not in plain.scheme.float_nodes]
        count = fewest_float(plain, order, lambda option: not self.doubts(selection.measure(option.quantized())))
        most = max(1, int(LARGEST_SHARE * len(order)))
        option = plain.with_float(plain.scheme.float_nodes | frozenset(order[: count or most]))
        option = option.changed(f"{count or most} of {len(order)} integer layers put in float")
        if CORRECTED in candidate.changes:
            option = correct_biases(option, self._few())
        passed = self._rung("mixed", option, {"float_layers": count or most, "layers": len(order)}).passed
        return option if passed else None

    def _without_correction(self, candidate: Candidate) -> Candidate:
        changes = tuple(change for change in candidate.changes if change != CORRECTED)
        return replace(candidate, graph=graph_of(candidate.deployed), changes=changes)

    def _tuned(self, candidate: Candidate) -> Candidate | None:
        """Fine-tune with the most harmful eighth of the layers in float: rounding there is not worth learning."""
        plain = self._without_correction(candidate)
        worst = frozenset(layer.name for layer in self.layers[: max(1, len(self.layers) // 8)])
        plain = plain.with_float(plain.scheme.float_nodes | worst)
        try:
            tuned, learned, steps = fine_tune(
                plain.deployed, plain.graph, plain.quantized(), self.patients.training, self.schedule
            )
        except UserError as error:  # a network that torch.fx cannot trace, or a machine that is too slow
            self._note("tuned", str(error))
            return None
        option = plain.changed(f"fine-tuned {steps} steps", deployed=tuned, graph=graph_of(tuned))
        if set(learned) <= set(option.ranges):
            option = replace(option, ranges={**option.ranges, **learned})
        else:
            option, _ = best_ranges(option, self.patients.calibration, self.patients.selection)
        kept = self._if_better("tuned", option, candidate)
        if self.rungs[-1].passed:
            return kept
        order = [layer.name for layer in self.layers if layer.name not in option.scheme.float_nodes]
        selection = self.patients.selection
        count = fewest_float(option, order, lambda more: not self.doubts(selection.measure(more.quantized())))
        if count is None:
            return kept
        option = option.with_float(option.scheme.float_nodes | frozenset(order[:count]))
        option = option.changed(f"{count} more of {len(order)} integer layers put in float")
        self._rung("tuned-mixed", option, {"float_layers": len(worst) + count, "layers": len(self.layers)})
        return option

    def _weights(self, candidate: Candidate) -> Candidate:
        """Integers in the file alone: a quarter of the size at the speed of fp32, where nothing else holds."""
        deployed = self.patients.deployed
        graph = onnx_graph.trace(deployed)
        plain = Candidate(deployed, graph, candidate.ranges, changes=("8-bit weights, float arithmetic",))
        plain = plain.with_float(frozenset(node.name for node in graph.graph.node))
        self._rung("weights", plain, {})
        return plain

    def _few(self) -> Uint8:
        return self.patients.calibration[:128]

    def _if_better(self, name: str, option: Candidate, before: Candidate) -> Candidate | None:
        """Record the option; go on with it when the selection images say that it helps."""
        gain = self.patients.selection.sqnr(option) - self.patients.selection.sqnr(before)
        better = gain >= _MARGIN_DB
        rung = self._rung(name, option, {"gain_db": gain}, kept=better)
        return option if better or rung.passed else None

    def _rung(self, name: str, candidate: Candidate, details: Mapping[str, Any], kept: bool = True) -> Rung:
        """Measure on the test images and on those apart: one that passes by luck on one of them is not accepted."""
        model = candidate.quantized()
        apart = self.patients.selection.measure(model)
        shown = {f"apart_{key}": apart[key] for key in ("n", "agreement", "sqnr_db") if key in apart}
        why = [f"on {apart['n']} images apart: {line}" for line in self.refuse(apart)]
        return self._measured(name, "; ".join(candidate.changes), model, {**details, **shown}, kept, why)

    def _measured(
        self,
        name: str,
        what: str,
        model: onnx.ModelProto,
        details: Mapping[str, Any] | None = None,
        kept: bool = True,
        apart: Sequence[str] = (),
    ) -> Rung:
        measures = self.patients.test.measure(model)
        size, time = len(model.SerializeToString()), self._time(model)
        why = (*self.refuse(measures), *apart)
        rung = Rung(name, what, measures, size, time, why, kept, details or {})
        self.rungs.append(rung)
        agreement = f"agreement {measures['agreement']:.4f}, " if "agreement" in measures else ""
        verdict = "passed" if rung.passed else "; ".join(rung.why)
        say(f"int8 {name}: {agreement}{measures['sqnr_db']:.1f} dB, {verdict}")
        return rung

    def _time(self, model: onnx.ModelProto) -> float | None:
        if not self.timed:
            return None
        from softedge.export.onnx.speed import race

        image = self.patients.calibration[:1]
        times = race({"fp32": self.float_model, "int8": model}, np.ascontiguousarray(image), seconds=2.0)
        return times["int8"] / times["fp32"]

    def _note(self, name: str, why: str) -> None:
        say(f"int8 {name}: {why}")
        self.rungs.append(Rung(name, why, {}, 0, None, (why,), kept=False))

    def _done(self, candidate: Candidate) -> Climb:
        model = candidate.quantized()
        onnx_graph.set_metadata(model, candidate.deployed, "int8", doctor="; ".join(candidate.changes))
        return self._result(model, candidate.deployed)

    def _result(self, model: onnx.ModelProto | None, deployed: Deployed) -> Climb:
        return Climb(
            tuple(self.rungs),
            model,
            self.rungs[-1].name,
            deployed,
            self.layers,
            recommend(self.rungs, model is not None),
        )


def recommend(rungs: list[Rung], passed: bool) -> str:
    """What to use and why, in one sentence."""
    first, last = rungs[0], rungs[-1]
    if passed and len(rungs) == 1:
        return f"Use the default int8 file: {_numbers(first)}."
    if passed:
        slower = last.time_over_fp32 is not None and last.time_over_fp32 > 1
        speed = f", but it takes {last.time_over_fp32:.2f} times as long as fp32 here" if slower else ""
        return f"Use '{last.name}' ({last.what}): {_numbers(last)}, where the default has {_numbers(first)}{speed}."
    measured = [rung for rung in rungs if rung.measures]
    best = max(measured, key=lambda rung: rung.measures["sqnr_db"])
    return f"Use fp16 or fp32: the best int8 rung, '{best.name}', has {_numbers(best)} ({'; '.join(best.why)})."


def _numbers(rung: Rung) -> str:
    parts = []
    if "agreement" in rung.measures:
        parts.append(f"{100 * rung.measures['agreement']:.1f}% of the answers of fp32")
    if "drop" in rung.measures:
        drop = 100 * rung.measures["drop"]
        parts.append(f"{drop:.1f} points lost" if drop > 0 else "nothing lost")
    return " and ".join(parts) or f"{rung.measures['sqnr_db']:.0f} dB"


def gates_of(check: Check, output: str) -> Refuse:
    """The recipe's gates as a function of measures."""

    def refuse(measures: Mapping[str, float | int]) -> list[str]:
        from softedge.stages.check import quality

        return quality(dict(measures), check, output)

    return refuse
