"""The int8 search over candidates made of numpy: each branch, and what is never chosen."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from toy_candidates import IMAGES, JUDGE, LAYERS, ToyCandidates, noisy, softmax

from softedge.errors import UserError
from softedge.eval.measures import compare
from softedge.export.candidates import Option
from softedge.export.deployed import Deployed
from softedge.export.nearest import Choice, Judge, decibels, nearest
from softedge.quantize import search as module
from softedge.quantize.search import Problem, search
from softedge.quantize.selection import broken
from softedge.quantize.steps import Step, recommend
from softedge.records import InputSpec

GOOD = 25.0  # dB
NETWORK = Deployed(
    nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), InputSpec(4, 4, (0.5,) * 3, (0.5,) * 3), tuple("abcde")
)


def default(noise: float = 1.0) -> Step:
    measures = compare(JUDGE.fp32, noisy(IMAGES, noise), None, "probabilities")
    return Step("default", "as exported", measures, why=tuple(too_noisy(measures)))


def too_noisy(measures):
    return [] if measures["sqnr_db"] >= GOOD else [f"{measures['sqnr_db']:.1f} dB is too noisy"]


CALIBRATION = np.random.default_rng(1).integers(0, 256, (8, 4, 4, 3), dtype=np.uint8)


def problem(candidates, **settings):
    values = {
        "network": NETWORK,
        "make": lambda network: candidates,
        "judge": JUDGE,
        "accepts": too_noisy,
        "doubts": too_noisy,
        "calibration": CALIBRATION,
        "training": lambda: IMAGES[:16],
        "timed": False,
    }
    return Problem(**{**values, **settings})


def names(result):
    return [step.name for step in result.steps]


BAD = {"only": (0, (1.0, 0.5, 0.2, 0.1))}


def test_a_file_that_is_good_enough_is_not_searched():
    def never(network):
        raise AssertionError("candidates were made")

    result = search(problem(None, make=never), default(noise=0.01))
    assert result.chosen is None and names(result) == ["default"]
    measures = {"agreement": 1.0, "sqnr_db": 30.0, "n": 80}
    said = recommend([dataclasses.replace(result.steps[0], measures=measures)], None, True)
    assert said == "The file as exported is good enough: 100.0 % of the answers of fp32 on 80 selection images."


def test_a_file_from_elsewhere_is_not_called_exported():
    """``quantize model.onnx`` begins with the nearest calibration of somebody else's file."""
    began = dataclasses.replace(default(noise=0.01), name="calibrated", what="calibration by minmax")
    result = search(problem(None, make=lambda network: None), began)
    assert result.recommendation.startswith("The int8 file (calibration by minmax) is good enough: ")


def test_the_search_stops_at_the_first_step_that_is_good_enough():
    candidates = ToyCandidates({"poor": (0, (1, 1, 1, 1)), "fine": (0, (0.01,) * 4)}, bias=0.5, weights=0.0)
    result = search(problem(candidates), default())
    assert names(result) == ["default", "calibrated"]
    assert result.chosen.option.what == "fine" and result.chosen.certain
    assert candidates.calls == ["poor", "fine"]
    assert set(result.steps[1].details["tried_db"]) == {"poor", "fine"}
    assert "Step 'calibrated' (fine) is used: " in result.recommendation


def test_a_corrected_bias_is_kept_when_it_helps_and_ends_the_search_when_it_is_enough():
    result = search(problem(ToyCandidates(BAD, bias=0.01)), default())
    assert names(result) == ["default", "calibrated", "equalized", "rounded", "bias"]
    assert result.chosen.step.details["gain_db"] == pytest.approx(40, abs=3)


def test_a_correction_that_hurts_is_not_built_on():
    """Float layers are then put into the option without it."""
    candidates = ToyCandidates({"only": (0, (1.0, 0.02, 0.01, 0.01))}, bias=3.0)
    result = search(problem(candidates), default())
    assert names(result)[-2:] == ["bias", "mixed"] and not result.steps[-2].kept
    assert candidates.calls.count("bias") == 1
    assert result.chosen.option.model == {"first": 0.0, "second": 0.02, "third": 0.01, "fourth": 0.01}


def test_the_fewest_float_layers_are_found_in_the_order_of_harm_and_biases_corrected_anew():
    candidates = ToyCandidates({"only": (0, (0.01, 1.0, 0.01, 0.01))}, bias=0.9)
    result = search(problem(candidates), default())
    assert result.layers[0].name == "second"
    assert result.layers[0].float_gain_db > 20 and result.layers[0].to_dict()["weight"] == "second.weight"
    step = result.chosen.step
    assert step.name == "mixed" and step.details == {"float_layers": 1, "layers": 4}
    assert candidates.calls.count("bias") == 2
    assert result.chosen.option.model["second"] == 0.0
    assert "1 of 4 integer layers put in float; biases corrected" in step.what


def test_layers_are_ranked_on_another_format_where_that_is_faster():
    class Slow(ToyCandidates):
        def proxy(self):
            return ToyCandidates({"there": (0, (0.01, 0.01, 1.0, 0.01))}, layers=LAYERS)

        def alone(self, option, layer):
            raise AssertionError("ranked on the slow format")

    slow = Slow({"only": (0, (0.01, 0.01, 1.0, 0.01))}, layers=LAYERS)
    result = search(problem(slow), default())
    assert result.chosen.step.name == "mixed" and result.chosen.option.model["third"] == 0.0
    again = search(problem(slow, layers=result.layers[::-1]), default())
    assert again.layers == result.layers[::-1], "a ranking that is known is not made again"


def test_good_integers_of_another_formats_file_are_taken():
    result = search(problem(ToyCandidates(BAD, files={"onnx": 0.01}), others=("tflite", "onnx")), default())
    assert names(result) == ["default", "translated"], "before anything that costs more"
    assert "the integers of onnx" in result.recommendation


def test_integers_that_pass_the_gates_and_are_far_nearer_end_a_search_that_would_come_in_second():
    def never_sure(measures):
        return [*too_noisy(measures), "less chance"]

    far = search(problem(ToyCandidates(BAD, files={"onnx": 0.02}), others=["onnx"], doubts=never_sure), default())
    assert names(far) == ["default", "translated", "weights"] and far.chosen.step.name == "translated"
    assert not far.chosen.certain and "less chance" in far.recommendation
    near = dataclasses.replace(default(noise=0.025), why=("less chance",))
    result = search(problem(ToyCandidates(BAD, files={"onnx": 0.02}), others=["onnx"], doubts=never_sure), near)
    assert "calibrated" in names(result), "within three decibels of the exported file"
    refused = search(problem(ToyCandidates(BAD, files={"onnx": 0.3}), others=["onnx"]), default())
    assert "calibrated" in names(refused), "the gates refuse the integers"


def test_clearly_nearer_integers_of_another_format_are_taken_over_even_where_the_file_is_good_enough():
    nearer = ToyCandidates(BAD, files={"onnx": 0.001})
    result = search(problem(nearer, others=["onnx"]), default(noise=0.01))
    assert names(result) == ["default", "translated"] and "the integers of onnx" in result.recommendation
    hardly = ToyCandidates(BAD, files={"onnx": 0.0095})
    result = search(problem(hardly, others=["onnx"]), default(noise=0.01))  # by less than a decibel
    assert names(result) == ["default"] and result.chosen is None


def test_faster_integers_that_the_export_took_are_not_undone_for_what_they_were_allowed_to_lose():
    def steps(noise):
        candidates = ToyCandidates(BAD, files={"onnx": noise})
        return names(search(problem(candidates, others=["onnx"], taken_over=True), default(noise=0.01)))

    assert steps(0.0085) == ["default"], "by one decibel and a half"
    assert steps(0.006) == ["default", "translated"], "by four"


def test_equalization_is_kept_where_it_brings_the_file_nearer(monkeypatch):
    balanced = Deployed(NETWORK.model, NETWORK.spec, NETWORK.labels)
    monkeypatch.setattr(module, "equalize", lambda network, images: (balanced, 3))
    made = {id(NETWORK): ToyCandidates(BAD), id(balanced): ToyCandidates({"better": (0, (0.001,) * 4)})}
    result = search(problem(None, make=lambda network: made[id(network)]), default())
    assert names(result)[-1] == "equalized" and result.chosen.candidates is made[id(balanced)]
    assert result.chosen.step.what == "3 pairs equalized; better"
    made[id(balanced)] = ToyCandidates({"worse": (0, (2.0,) * 4)}, weights=0.0)
    made[id(NETWORK)] = ToyCandidates(BAD, weights=0.0)
    result = search(problem(None, make=lambda network: made[id(network)]), default())
    assert not result.steps[2].kept and result.chosen.candidates is made[id(NETWORK)]


class Roundable(ToyCandidates):
    """Rounding leaves ``left`` of the noise."""

    left = 0.001

    def largest_weight(self, option):
        return 63

    def reweighted(self, option, network, ranges):
        assert network is ROUNDED and ranges == {}
        return Option(option.what, {name: noise * self.left for name, noise in option.model.items()})


ROUNDED = Deployed(NETWORK.model, NETWORK.spec, NETWORK.labels)


def test_weights_are_rounded_on_the_grid_of_the_calibrated_file_and_kept_where_that_brings_it_nearer(monkeypatch):
    def rounded(network, calibration, largest):
        assert network is NETWORK and calibration is CALIBRATION and largest == 63
        return ROUNDED

    monkeypatch.setattr("softedge.export.rounding.rounded", rounded)
    result = search(problem(Roundable(BAD)), default())
    assert names(result)[-1] == "rounded" and result.chosen.certain
    assert result.chosen.step.what == "only; weights rounded for the least error of each layer's output"
    worse = Roundable(BAD, bias=0.01)
    worse.left = 2.0
    result = search(problem(worse), default())
    assert names(result)[-2:] == ["rounded", "bias"] and not result.steps[-2].kept
    assert result.chosen.option.what == "only; biases corrected"


def test_a_format_that_rounds_its_own_graph_needs_no_network_and_rounds_once():
    class Graph(ToyCandidates):
        def rounded(self, option, images):
            self.calls.append("rounded")
            return replace(option, model={name: noise * 0.001 for name, noise in option.model.items()})

    result = search(problem(Graph(BAD), network=None), default())
    assert names(result)[-1] == "rounded" and result.chosen.certain and result.chosen.step.details["gain_db"] > 20
    done = replace(next(Graph(BAD).calibrations()), details={"rounding": "least error"})
    candidates = Graph(BAD, bias=0.01)
    again = search(problem(candidates, network=None, start=Choice(done, default().measures)), default())
    assert "rounded" not in candidates.calls and "done before the search" in [step.what for step in again.steps]


@pytest.mark.parametrize("noise", [0.01, 0.2])
def test_the_last_resort_gets_rounded_weights_where_they_are_nearer(noise):
    class Rounding(ToyCandidates):
        def rounded(self, option, images):
            return replace(option, model={"first": noise}) if option.what == "8-bit weights" else None

    result = search(problem(Rounding(BAD, weights=0.1)), default())
    step = result.steps[-1]
    assert step.name == "weights" and step is result.chosen.step
    assert step.what == "8-bit weights" + "; weights rounded for the least error of each layer's output" * (noise < 0.1)
    assert step.measures["sqnr_db"] == pytest.approx(decibels(JUDGE.compared(noisy(IMAGES, min(noise, 0.1)))))


@pytest.mark.parametrize(("unseen_noise", "kept"), [(0.5, True), (4.0, False)])
def test_selection_images_that_calibrate_are_left_out_of_the_rounding_or_of_the_judgement(unseen_noise, kept):
    """Rounding leaves nothing of the noise on the images that it saw."""
    calibration, seen = IMAGES[:160], []

    class Fitted(ToyCandidates):
        def rounded(self, option, images):
            seen.extend(image.tobytes() for image in images)
            return replace(option, model={**option.model, "rounded": 1.0})

        def predict(self, option, images):
            if "rounded" not in option.model:
                return super().predict(option, images)
            known = np.array([image.tobytes() in seen for image in images])
            return np.where(known[:, None], noisy(images, 0.0), noisy(images, unseen_noise))

    steps = search(problem(Fitted(BAD), network=None, calibration=calibration), default()).steps
    step = next(step for step in steps if step.name == "rounded")
    assert len(seen) == 120 and not set(seen) & {image.tobytes() for image in calibration[::4]}
    assert step.kept == kept and (step.what == "no nearer on images that the weights were not rounded on") != kept


def test_weights_are_not_rounded_where_too_few_images_are_left_to_judge_that():
    few = replace(JUDGE, images=IMAGES[:6], fp32=JUDGE.fp32[:6])
    candidates = Roundable(BAD)
    result = search(problem(candidates, judge=few, calibration=IMAGES[:6]), default())
    step = next(step for step in result.steps if step.name == "rounded")
    assert not step.kept and step.what == "too few images beside those to round on"


def test_without_the_networks_weights_nothing_is_rounded():
    result = search(problem(Roundable(BAD, bias=0.01), network=None), default())
    step = next(step for step in result.steps if step.name == "rounded")
    assert not step.kept and step.what == "needs the PyTorch weights"


class Tunable(ToyCandidates):
    """Fine-tuning leaves ``left`` of the noise."""

    left = 0.001

    def roundings(self, option, image):
        return ("a rounding",)

    def reweighted(self, option, network, ranges):
        assert network is NETWORK and ranges == {"a": (0.0, 1.0)}
        return Option(option.what, {name: noise * self.left for name, noise in option.model.items()})


ALL_BAD = {"only": (0, (1.0, 1.0, 1.0, 1.0))}


def test_fine_tuning_keeps_the_most_harmful_eighth_in_float(monkeypatch):
    seen = []

    def tune(network, roundings, image, images, schedule):
        seen.append((roundings, len(image), len(images)))
        return NETWORK, {"a": (0.0, 1.0)}, 7

    monkeypatch.setattr(module, "fine_tune", tune)
    result = search(problem(Tunable(ALL_BAD)), default())
    assert names(result)[-2:] == ["mixed", "tuned"] and seen == [(("a rounding",), 1, 16)]
    assert sorted(result.chosen.option.model.values()) == [0.0, 0.001, 0.001, 0.001]
    assert "fine-tuned 7 steps" in result.chosen.step.what


def test_where_fine_tuning_is_not_enough_more_layers_go_to_float(monkeypatch):
    monkeypatch.setattr(module, "fine_tune", lambda *rest: (NETWORK, {"a": (0.0, 1.0)}, 7))
    candidates = Tunable(ALL_BAD, weights=0.0)
    candidates.left = 0.05
    result = search(problem(candidates), default())
    assert names(result)[-2:] == ["tuned", "tuned-mixed"] and result.chosen.certain
    assert sorted(result.chosen.option.model.values()) == [0.0, 0.0, 0.05, 0.05]
    candidates.left = 0.2
    result = search(problem(candidates), default())
    assert names(result)[-1] == "weights"


def test_a_machine_too_slow_for_fine_tuning_is_a_step_that_was_not_made(monkeypatch):
    def slow(*rest):
        raise UserError("fine-tuning int8 takes 9 s a step here")

    monkeypatch.setattr(module, "fine_tune", slow)
    result = search(problem(Tunable(ALL_BAD, weights=0.0)), default())
    step = result.steps[-2]
    assert (step.name, step.measures, step.passed) == ("tuned", {}, False) and "9 s a step" in step.what
    assert result.chosen.step.name == "weights"


def test_a_gate_that_nothing_meets_ends_in_an_honest_recommendation():
    refuse = lambda measures: ["nothing is good enough"]  # noqa: E731
    result = search(problem(ToyCandidates(BAD, bias=0.9, weights=0.0), accepts=refuse, doubts=refuse), default())
    assert result.chosen is None and result.recommendation.startswith("No int8 step reached the aim on the")
    assert names(result) == ["default", "calibrated", "equalized", "rounded", "bias", "mixed", "tuned", "weights"]


def test_where_nothing_is_certain_the_best_that_the_plain_gates_accept_is_kept():
    accepts = lambda measures: [] if measures["agreement"] >= 0.9 else ["too few answers"]  # noqa: E731
    doubts = lambda measures: ["too few images to be sure"]  # noqa: E731
    candidates = ToyCandidates({"fair": (0, (0.05, 0.0, 0.0, 0.0))}, weights=0.4, layers=())
    result = search(problem(candidates, accepts=accepts, doubts=doubts), default(noise=2.0))
    assert not result.chosen.certain and result.chosen.step.name == "calibrated"
    assert "uncertain: too few images to be sure" in result.recommendation
    unsure = replace(default(noise=0.0), why=("too few images to be sure",))
    result = search(problem(candidates, accepts=accepts, doubts=doubts), unsure)
    assert result.chosen is None and "no step does better" in result.recommendation


def test_the_nearest_of_the_lowest_tier_that_is_about_as_near_as_any_is_the_default():
    def chosen(*noise):
        options = {str(place): (place // 2, (value, 0, 0, 0)) for place, value in enumerate(noise)}
        return nearest(ToyCandidates(options), JUDGE).option.what

    assert chosen(0.3, 0.1, 0.095, 0.2) == "1", "half a decibel does not pay for more layers in float"
    assert chosen(0.3, 0.1, 0.2, 0.05) == "3"
    assert chosen(0.1, 0.1) == "0"


def test_a_comparison_that_takes_minutes_says_how_far_it_is(monkeypatch, capsys):
    now = iter(range(0, 1000, 6))  # seconds: every second option is due
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    options = {str(place): (0, (0.1, 0, 0, 0)) for place in range(4)}
    nearest(ToyCandidates(options), JUDGE)
    lines = capsys.readouterr().err.splitlines()
    assert lines and all(line.startswith("int8, comparing: ") and line.endswith(" dB") for line in lines)
    assert len(lines) < len(options), "a line in ten seconds, not one for each"


def test_integers_of_another_file_end_the_calibrations_that_they_are_far_ahead_of():
    noisy = {"first": (0, (0.041, 0, 0, 0)), "second": (0, (0.04, 0, 0, 0))}

    def tried(noise, options=noisy):
        candidates = ToyCandidates(options, files={"onnx": noise})
        choice = nearest(candidates, JUDGE, ["onnx"])
        return choice.option.what, candidates.calls

    assert tried(0.001) == ("the integers of onnx", ["first"])
    assert tried(0.0375) == ("second", ["first", "second"]), "not nearer by a decibel: what is the format's own is kept"
    assert tried(0.03) == ("the integers of onnx", ["first", "second"]), "nearer, and not far ahead"
    bad = {"first": (0, (3.0, 0, 0, 0)), "second": (0, (0.001, 0, 0, 0))}
    assert tried(0.3, bad) == ("second", ["first", "second"]), "far ahead of the first, and noisy themselves"
    assert nearest(ToyCandidates(noisy), JUDGE, ["tflite"]).option.what == "second", "a file that cannot be read"


def test_calibrations_that_differ_much_are_all_compared_with_another_files_integers():
    class TwoKinds(ToyCandidates):
        fewest = 2

    options = {"poor": (0, (0.5, 0, 0, 0)), "fine": (0, (0.011, 0, 0, 0)), "third": (0, (0.4, 0, 0, 0))}
    candidates = TwoKinds(options, files={"onnx": 0.01})
    assert nearest(candidates, JUDGE, ["onnx"]).option.what == "fine" and len(candidates.calls) == 3
    far = TwoKinds(options, files={"onnx": 0.001})
    assert nearest(far, JUDGE, ["onnx"]).option.what == "the integers of onnx" and far.calls == ["poor", "fine"]


def test_leaner_integers_take_the_place_of_another_files_unless_they_lose_what_matters():
    class Leaner(ToyCandidates):
        made = 0

        def leaner(self, option):
            for noise in self.weights:
                self.made += 1
                yield replace(option, what=f"leaner {self.made}", model={"first": noise})

    def chosen(theirs, *leaner, own=0.1, judge=JUDGE):
        candidates = Leaner({"own": (0, (own, 0, 0, 0))}, files={"onnx": theirs}, weights=leaner)
        return nearest(candidates, judge, ["onnx"]).option.what, candidates.made

    theirs = "the integers of onnx"
    assert chosen(0.08, 0.085) == ("leaner 1", 1), "as near"
    assert chosen(0.08, 0.085, 0.01) == ("leaner 1", 1), "the fastest that loses nothing"
    assert chosen(0.05, 0.062) == ("leaner 1", 1), "within two decibels, and no answer lost"
    assert chosen(0.05, 0.08) == (theirs, 1), "four decibels are too many,"
    assert chosen(0.02, 0.034) == (theirs, 1), "near fp32 as well"
    assert chosen(0.05, 0.08, 0.04) == ("leaner 2", 2), "slower ones may be as near"
    assert chosen(0.095, 0.001) == ("leaner 1", 1), "the file itself is hardly nearer than the format's own"
    assert chosen(0.095, 0.095, 0.095) == ("own", 2), "neither are they"
    assert chosen(0.13, 0.001) == ("own", 0), "the file is farther: they are not made"


def test_leaner_integers_do_not_spare_answers_of_a_network_with_close_calls():
    """The same noise, once beside margins of half its size."""
    rng = np.random.default_rng(1)
    signs = rng.choice([-1.0, 1.0], (200, 1)) * np.array([[1, -1]])
    noise = rng.normal(size=(200, 2))

    class TwoClasses(ToyCandidates):
        def predict(self, option, images):
            return softmax(self.logits + option.model["first"] * noise)

        def leaner(self, option):
            yield replace(option, what="leaner", model={"first": 0.23})

    def chosen(share, output="probabilities"):
        """share: of images with a margin of a thirtieth."""
        candidates = TwoClasses({"own": (0, (2.0, 0, 0, 0))}, files={"onnx": 0.19})
        candidates.logits = signs * np.where(np.arange(200) < share * 200, 0.1, 3.0)[:, None]
        return nearest(candidates, Judge(IMAGES, softmax(candidates.logits), output), ["onnx"]).option.what

    assert chosen(0.0) == "leaner" and chosen(0.3) == "the integers of onnx"
    assert chosen(0.0, "scores") == "the integers of onnx", "no answers are expected of scores: a decibel, no more"


def test_a_search_of_a_file_with_another_formats_integers_does_not_try_what_the_export_left_behind():
    def never_sure(measures):
        return [*too_noisy(measures), "less chance"]

    start = dataclasses.replace(default(noise=0.02), why=("less chance",))
    candidates = ToyCandidates(BAD, files={"onnx": 0.02}, weights=0.5)
    result = search(problem(candidates, others=["onnx"], doubts=never_sure, taken_over=True), start)
    assert names(result) == ["default", "translated", "weights"] and not candidates.calls
    refused = search(problem(ToyCandidates(BAD), taken_over=True), default())
    assert "calibrated" in names(refused), "the gates refuse the exported file"


def test_an_option_that_breaks_is_never_the_default_or_the_choice_of_the_search():
    """Constant answers, or none that is a number: however often they agree."""

    class NotANumber(ToyCandidates):
        def predict(self, option, images):
            answers = super().predict(option, images)
            return np.full_like(answers, np.nan) if option.what == "broken" else answers

    for kind, noise in ((ToyCandidates, np.inf), (NotANumber, 0.0)):
        for place in range(2):
            options = {"broken": (0, (noise, 0, 0, 0)), "fair": (0, (0.5, 0, 0, 0))}
            candidates = kind(dict(list(options.items())[:: 1 if place else -1]))
            assert nearest(candidates, JUDGE).option.what == "fair"
    lopsided = noisy(IMAGES, np.inf)  # fp32 itself gives one class to all: a constant agrees with everything
    lopsided[::2, 1:] += np.float32([0.02, 0.05, -0.03, 0.01])
    measures = compare(lopsided, noisy(IMAGES, np.inf), None, "probabilities")
    assert measures["agreement"] == 1.0
    constant = compare(JUDGE.fp32, noisy(IMAGES, np.inf), None, "probabilities")
    assert broken(constant) and broken({**constant, "sqnr_db": float("nan")})
    assert not broken(compare(JUDGE.fp32, noisy(IMAGES, 0.5), None, "probabilities"))


def test_images_and_answers_of_the_search_are_those_of_the_judge_alone():
    """The search gets no labels, and no image but those it was given."""
    seen = set()

    class Watched(ToyCandidates):
        def predict(self, option, images):
            seen.update(image.tobytes() for image in images)
            return super().predict(option, images)

    torch.manual_seed(0)
    search(problem(Watched(BAD, bias=0.9, weights=0.0)), default())
    assert seen <= {image.tobytes() for image in IMAGES}
