"""The steps of the int8 search, each on a small network against what it promises."""

import math
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from softedge.config import Check
from softedge.errors import UserError
from softedge.export.deployed import Deployed
from softedge.export.nearest import Judge, nearest
from softedge.export.onnx import graph as onnx_graph
from softedge.export.onnx.candidates import OnnxCandidates
from softedge.export.onnx.quantizer import Scheme
from softedge.quantize.equalization import equalize, imbalance
from softedge.quantize.fine_tuning import Schedule, fine_tune
from softedge.quantize.gates import against, allowance, quality, quality_on_test, size
from softedge.quantize.search import Problem, search
from softedge.quantize.selection import as_hard, doubts, margins
from softedge.quantize.sensitivity import fewest, rank
from softedge.quantize.simulation import RoundedActivation, RoundedWeight, simulate
from softedge.quantize.steps import Step, recommend, told
from softedge.records import InputSpec

SPEC = InputSpec(16, 16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (48, 16, 16, 3), dtype=np.uint8)


class Small(nn.Module):
    """Convolution, depthwise, convolution; equalization can pass ReLU between them, not hard-swish."""

    def __init__(self, activation=nn.ReLU):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.one = activation()
        self.depthwise = nn.Conv2d(16, 16, 3, 1, 1, groups=16)
        self.two = activation()
        self.out = nn.Conv2d(16, 32, 1)
        self.three = nn.ReLU()
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        x = self.out(self.two(self.depthwise(self.one(self.stem(x)))))
        return self.head(self.three(x).mean((2, 3)))


def network(activation=nn.ReLU):
    torch.manual_seed(0)
    model = Small(activation)
    with torch.no_grad():
        model.head.weight *= 10
    return Deployed(model.eval(), SPEC, ("a", "b", "c", "d"))


def judge(deployed):
    return Judge.of(deployed, IMAGES)


def candidates(deployed, methods=("minmax",)):
    return OnnxCandidates(deployed, IMAGES[:15], scheme=Scheme(), methods=methods)


def calibrated(options):
    return next(iter(options.calibrations()))


def stretched(option, factor):
    """The option with all ranges too wide or too narrow."""
    ranges = {name: (low * factor, high * factor) for name, (low, high) in option.model.ranges.items()}
    return replace(option, model=replace(option.model, ranges=ranges))


def decibels(deployed, options, option=None):
    return judge(deployed).decibels(options, option or calibrated(options))


def test_equalization_keeps_the_function_and_mends_an_imbalance():
    deployed = network()
    spoilt = imbalance(deployed, largest=1000.0)
    np.testing.assert_allclose(spoilt.predict(IMAGES), deployed.predict(IMAGES), atol=1e-4)
    mended, pairs = equalize(spoilt, IMAGES)
    assert pairs == 2
    np.testing.assert_allclose(mended.predict(IMAGES), deployed.predict(IMAGES), atol=1e-4)
    before, after = (decibels(deployed, candidates(d)) for d in (spoilt, mended))
    assert after > before + 6


def test_equalization_stops_at_hard_swish():
    assert equalize(network(nn.Hardswish), IMAGES)[1] == 0


def test_the_calibration_nearest_to_fp32_is_chosen():
    deployed = network(nn.Hardswish)
    options = candidates(deployed, ("mean", "minmax", "percentile", "mse"))
    choice = nearest(options, judge(deployed))
    assert len(choice.tried) >= 4
    assert decibels(deployed, options, choice.option) == pytest.approx(max(choice.tried.values()), abs=0.1)


def test_bias_correction_takes_a_shift_away_again():
    deployed = network()
    options = candidates(deployed)
    made = calibrated(options)
    narrow = {name: (low, 0.3 * high) for name, (low, high) in made.model.ranges.items()}  # every mean is too low
    spoilt = replace(made, model=replace(made.model, ranges=narrow))
    corrected = options.bias_corrected(spoilt)
    assert decibels(deployed, options, corrected) > decibels(deployed, options, spoilt) + 1


def test_the_layers_around_a_spoilt_tensor_rank_first():
    deployed = network()
    options = candidates(deployed)
    made = calibrated(options)
    source = [node for node in made.model.graph.graph.node if node.op_type == "Conv"][2].input[0]
    spoilt = replace(made, model=replace(made.model, ranges={**made.model.ranges, source: (0.0, 1000.0)}))
    layers = rank(options, spoilt, judge(deployed))
    # The one that writes it and the one that reads it.
    assert {layer.details["shape"][0] for layer in layers[:2]} == {16, 32}
    assert layers[1].alone_db < layers[2].alone_db - 10


def test_the_fewest_layers_are_counted_and_at_most_half():
    assert fewest(8, lambda count: count >= 3) == 3
    assert fewest(8, lambda count: count >= 1) == 1
    assert fewest(8, lambda count: False) is None
    assert fewest(8, lambda count: count >= 5) is None


def test_rounding_is_the_identity_on_its_own_grid_and_passes_gradients_inside_its_range():
    activation = RoundedActivation(-1.0, 1.55)  # scale 0.01, zero 100
    x = torch.tensor([-2.0, -0.99, 0.0, 0.5, 1.54, 3.0], requires_grad=True)
    y = activation(x)
    assert y.tolist() == pytest.approx([-1.0, -0.99, 0.0, 0.5, 1.54, 1.55], abs=1e-6)
    y.sum().backward()
    assert x.grad.tolist() == pytest.approx([0, 1, 1, 1, 1, 0], abs=1e-6)
    weight = torch.tensor([[127.0, 3.4], [1.27, 0.014]])
    expected = torch.tensor([[127.0, 3.0], [1.27, 0.01]])
    assert torch.allclose(RoundedWeight()(weight), expected)


def test_the_simulation_answers_like_the_file():
    deployed = network(nn.Hardswish)
    options = candidates(deployed)
    made = calibrated(options)
    simulation = simulate(deployed, options.roundings(made, IMAGES[:1]), IMAGES[:1])
    planes = (torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float() - deployed.shift) / deployed.scale
    simulated = deployed.finish(simulation(planes)).detach().numpy()
    file = Judge(IMAGES, simulated, "probabilities").decibels(options, made)
    assert file > decibels(deployed, options, made)  # nearer to its file than the file is to fp32
    np.testing.assert_allclose(
        deployed.finish(simulation.float_network()(planes)).detach().numpy(), deployed.predict(IMAGES), atol=1e-5
    )


def test_fine_tuning_brings_a_coarse_network_nearer_to_fp32_without_labels():
    deployed = network()
    options = candidates(deployed)
    coarse = stretched(calibrated(options), 40)
    schedule = Schedule(steps=80, batch=16, lr=1e-3, range_lr=2e-2)
    tuned, ranges, _ = fine_tune(deployed, options.roundings(coarse, IMAGES[:1]), IMAGES[:1], IMAGES, schedule)
    after = options.reweighted(coarse, tuned, ranges)
    assert decibels(deployed, options, after) > decibels(deployed, options, coarse) + 1


def test_the_gates_of_the_recipe_say_which_number_they_refuse():
    gates = Check(min_agreement=0.98, max_drop=0.01)
    assert quality({"agreement": 0.99, "drop": 0.005}, gates, "probabilities") == []
    assert quality({"agreement": 0.97, "drop": 0.02}, gates, "probabilities") == [
        "agreement 0.970 is below 0.98",
        "top-1 drop 0.020 is above 0.01",
    ]
    assert quality({"agreement": 0.96, "drop": 0.02, "n": 50}, gates, "probabilities") == [
        "agreement 0.960 is below 0.98 (2 of 50 images)",
        "top-1 drop 0.020 is above 0.01 (1 of 50 images)",
    ]
    assert quality({"agreement": 0.99, "drop": 0.02, "n": 500}, gates, "probabilities") == [
        "top-1 drop 0.020 is above 0.01"
    ]


def changed(count: int, n: int, sqnr_db: float = 26.0) -> dict[str, float]:
    return {"agreement": 1 - count / n, "drop": count / n, "n": n, "sqnr_db": sqnr_db}


@pytest.mark.parametrize(
    ("measures", "gates", "passes"),
    [
        (changed(1, 40), Check(), True),
        (changed(1, 5), Check(), True),
        (changed(2, 40), Check(), False),
        (changed(1, 40, sqnr_db=19.0), Check(), False),  # a noisy file
        (changed(1, 199), Check(min_agreement=0.999), True),
        (changed(1, 200), Check(min_agreement=0.999), False),  # enough images to be taken at their word
        (changed(5, 200), Check(), False),
        (changed(1, 40), Check(min_agreement=1.0), False),  # no change is allowed
        (changed(1, 40), Check(max_drop=0.0), False),
        (changed(0, 40), Check(min_agreement=1.0), True),
        (changed(1, 1), Check(), False),
        ({"agreement": math.nan, "drop": math.nan, "n": 40, "sqnr_db": 26.0}, Check(), False),
    ],
)
def test_one_changed_answer_of_few_test_images_refuses_no_file(measures, gates, passes):
    assert (quality_on_test(measures, gates, "probabilities") == []) is passes


def test_an_allowance_is_said_where_it_was_needed_and_nowhere_else():
    said = "1 of 37 answers changed, which is allowed of fewer than 200 test images"
    assert allowance(changed(1, 37), Check(), "probabilities") == said
    for measures in (changed(0, 37), changed(2, 37), changed(1, 150), changed(1, 37, sqnr_db=19.0)):
        assert allowance(measures, Check(), "probabilities") == ""


def test_a_refusal_by_few_test_images_says_what_to_do():
    advice = "; test on more images, or allow more with --min-agreement and --max-drop)"
    assert quality_on_test(changed(2, 40), Check(), "probabilities") == [
        f"agreement 0.950 is below 0.98 (2 of 40 images{advice}",
        f"top-1 drop 0.050 is above 0.01 (2 of 40 images{advice}",
    ]
    noisy = "; one of so few is allowed from 20 dB on, and it has 17.1 dB)"
    assert quality_on_test(changed(1, 23, sqnr_db=17.1), Check(), "probabilities") == [
        f"agreement 0.957 is below 0.98 (1 of 23 images{noisy}",
        f"top-1 drop 0.043 is above 0.01 (1 of 23 images{noisy}",
    ]
    assert not any("test on more" in line for line in quality_on_test(changed(50, 500), Check(), "probabilities"))


def onnx_problem(deployed, accepts):
    options = candidates(deployed)
    return Problem(
        network=deployed,
        make=lambda network: candidates(network),
        judge=judge(deployed),
        accepts=accepts,
        doubts=accepts,
        calibration=options.calibration,
        training=lambda: IMAGES,
        schedule=Schedule(steps=4, batch=8),
        timed=False,
    )


def as_exported(deployed, accepts, spoilt=1.0):
    options = candidates(deployed)
    measures = judge(deployed).measure(options, stretched(calibrated(options), spoilt))
    return Step("default", "as exported", measures, why=tuple(accepts(measures)))


def test_the_search_stops_at_the_first_step_that_is_good_enough():
    deployed = network()
    noisy = lambda measures: [] if measures["sqnr_db"] > 15 else ["too noisy"]  # noqa: E731
    result = search(onnx_problem(deployed, noisy), as_exported(deployed, noisy, spoilt=500.0))
    assert [(step.name, step.passed) for step in result.steps] == [("default", False), ("calibrated", True)]
    assert "Step 'calibrated'" in result.recommendation


def test_a_gate_that_nothing_meets_ends_in_an_honest_recommendation():
    def refuse(measures):
        return ["nothing is good enough"]

    deployed = network()
    result = search(onnx_problem(deployed, refuse), as_exported(deployed, refuse))
    assert result.chosen is None
    assert [step.name for step in result.steps if step.measures] == [
        "default",
        "calibrated",
        "equalized",
        "rounded",
        "bias",
        "mixed",
        "tuned",
        "weights",
    ]
    assert result.recommendation.startswith("No int8 step reached the aim on the")
    assert onnx_graph.trace(deployed).graph.output[0].name == "probabilities"


def test_where_no_integers_hold_the_weights_alone_stay_in_8_bits(tmp_path):
    deployed = network(nn.Hardswish)
    options = candidates(deployed)
    made = calibrated(options)
    floats = options.with_float(made, options.layers())
    plain = judge(deployed).decibels(options, floats)
    refuse = lambda measures: [] if measures["sqnr_db"] > plain - 1 else ["too noisy"]  # noqa: E731
    result = search(onnx_problem(deployed, refuse), as_exported(deployed, refuse))
    assert result.chosen is not None and result.chosen.step.name == "weights"
    model = onnx.load(result.chosen.candidates.write(result.chosen.option, tmp_path))
    assert not [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert result.chosen.step.size_bytes == (tmp_path / "model.onnx").stat().st_size


def test_fine_tuning_that_would_take_too_long_says_how_long():
    deployed = network()
    options = candidates(deployed)
    roundings = options.roundings(calibrated(options), IMAGES[:1])
    with pytest.raises(UserError, match=r"s a step here: 0 steps in 1e-06 minutes.*quantize.tune_minutes"):
        fine_tune(deployed, roundings, IMAGES[:1], IMAGES, Schedule(steps=100, minutes=1e-6, batch=8))


def test_a_choice_is_trusted_when_its_lower_bound_is_above_the_gate():
    gates = Check(min_agreement=0.98)
    margin = 1.28 * np.sqrt(0.98 * 0.02 * (1 / 500 + 1 / 1000))
    assert doubts({"agreement": 0.98 + margin + 1e-6, "sqnr_db": 25.0, "n": 500}, gates, 1000) == []
    assert (
        "less 0.010 for chance, is below 0.98"
        in doubts({"agreement": 0.98 + margin - 1e-6, "sqnr_db": 25.0, "n": 500}, gates, 1000)[0]
    )
    assert doubts({"agreement": 0.999, "sqnr_db": 19.9, "n": 500}, gates, 1000) == [
        "signal to noise 19.9 dB is below 20"
    ], "an answer that agrees by a hair on images that the network was trained on"
    assert doubts({"distance": 0.5, "n": 500}, gates, 1000) == []
    assert doubts({"agreement": 0.99, "sqnr_db": 25.0, "n": 64}, gates, 1000) != []
    assert doubts({"agreement": 1.0, "sqnr_db": 20.1, "n": 64}, gates, 1000) == [], "these images cannot ask for more"
    assert doubts({"agreement": 1.0, "sqnr_db": 12.2, "n": 64}, gates, 1000) == [
        "signal to noise 12.2 dB is below 20"
    ], "all of a few images that it was trained on agreed, and 17 of 21 new ones"


def test_selection_images_are_as_hard_as_the_validation_images_and_never_easier():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(900, 5)) * 4
    fp32 = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.where(rng.random(900) < 0.9, fp32.argmax(1), 5)  # fp32 is right on about nine in ten
    right = fp32.argmax(1) == labels
    chosen = as_hard(fp32, labels, 0.7, 200)
    assert len(set(chosen.tolist())) == 200 and right[chosen].sum() == 140
    assert as_hard(fp32, labels, 0.99, 200).size == 200
    assert right[as_hard(fp32, labels, 0.99, 200)].mean() == pytest.approx(right.mean(), abs=0.005)
    by_heart = as_hard(fp32, fp32.argmax(1), 0.7, 200)  # none is wrong: the least certain ones stand in
    least = np.sort(margins(fp32))[:60]
    assert np.isin(least, margins(fp32[by_heart])).all()
    assert abs(np.mean(by_heart[:100] < 450) - np.mean(by_heart < 450)) < 0.2, "any first part is a fair sample"


def test_size_gate_is_for_int8_files_only():
    gates = Check(max_size=100)
    assert size({"precision": "int8", "size_bytes": 101}, gates) == ["101 bytes are above the limit of 100"]
    assert size({"precision": "fp32", "size_bytes": 101}, gates) == []


class FakeRun:
    root = "runs/x"
    name = "x"

    def __init__(self, **results):
        self.found = results

    def results(self, stage):
        return {name: result for name, result in self.found.items() if "@" in name}

    def need(self, stage, command):
        return self.found["check"]

    def result(self, stage):
        return self.found.get(stage)


class FakeResult:
    def __init__(self, metrics=None, details=None):
        self.metrics, self.details = metrics or {}, details or {}


def test_comparison_with_an_earlier_run_gives_now_then_and_change():
    earlier = FakeRun(check=FakeResult(details={"rows": [{"artifact": "a", "top1": 0.75, "size_bytes": 10}]}))
    found = against([{"artifact": "a", "top1": 0.5, "size_bytes": 12}, {"artifact": "b"}], earlier)
    assert found[0]["top1"] == {"now": 0.5, "then": 0.75, "change": -0.25}
    assert found[1] == {"artifact": "b", "run": "x", "found": False}


def test_of_refused_steps_with_equal_agreement_the_one_with_less_noise_is_named_the_best():
    """On eight images two steps of three agree equally often; what then counts is their noise."""
    named = recommend(
        [
            Step(name, name, {"agreement": agreement, "n": 8, "sqnr_db": noise}, why=("refused",))
            for name, agreement, noise in (("default", 0.75, 20.0), ("rounded", 0.875, 16.0), ("bias", 0.875, 24.0))
        ],
        None,
        False,
    )
    assert "on the 8 selection images: the best, 'bias', has 87.5 % of the answers" in named


def test_a_step_tells_its_agreement_once():
    measures = {"agreement": 0.9808, "sqnr_db": 28.4}
    doubt = "agreement 0.981 on 52 selection images, less 0.031 for chance, is below 0.98"
    assert told(measures, (doubt,)) == f"28.4 dB, {doubt}"
    assert told(measures, ()) == "agreement 0.9808, 28.4 dB, good enough"
    assert told({"sqnr_db": 19.0}, ("signal to noise 19.0 dB is below 20",)) == (
        "19.0 dB, signal to noise 19.0 dB is below 20"
    )
