"""The steps of the int8 doctor, each on a small network against what it promises."""

import numpy as np
import pytest
import torch
from torch import nn

from softedge.config import Check
from softedge.errors import UserError
from softedge.export.deployed import Deployed
from softedge.export.onnx import graph as onnx_graph
from softedge.export.onnx import ranges as onnx_ranges
from softedge.quantize.bias import correct_biases
from softedge.quantize.candidate import Candidate, Judge, graph_of
from softedge.quantize.equalization import equalize, imbalance
from softedge.quantize.fine_tuning import Schedule, fine_tune
from softedge.quantize.gates import against, latency, size
from softedge.quantize.ladder import Ladder, Patients, gates_of
from softedge.quantize.ranges import best_ranges
from softedge.quantize.selection import alike, doubts, margins
from softedge.quantize.sensitivity import fewest_float, rank
from softedge.quantize.simulation import RoundedActivation, RoundedWeight, simulate
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


def judge(deployed, labels=None):
    return Judge(IMAGES, deployed.predict(IMAGES), "probabilities", labels)


def candidate(deployed):
    graph = graph_of(deployed)
    return Candidate(deployed, graph, onnx_ranges.measure(graph, IMAGES[:16], "minmax"))


def test_equalization_keeps_the_function_and_mends_an_imbalance():
    deployed = network()
    spoilt = imbalance(deployed, largest=1000.0)
    np.testing.assert_allclose(spoilt.predict(IMAGES), deployed.predict(IMAGES), atol=1e-4)
    mended, pairs = equalize(spoilt, IMAGES)
    assert pairs == 2
    np.testing.assert_allclose(mended.predict(IMAGES), deployed.predict(IMAGES), atol=1e-4)
    before, after = (judge(deployed).sqnr(candidate(d)) for d in (spoilt, mended))
    assert after > before + 6


def test_equalization_stops_at_hard_swish():
    assert equalize(network(nn.Hardswish), IMAGES)[1] == 0


def test_the_calibration_nearest_to_fp32_is_chosen():
    deployed = network(nn.Hardswish)
    chosen, tried = best_ranges(Candidate(deployed, graph_of(deployed), {}), IMAGES[:24], judge(deployed))
    assert judge(deployed).sqnr(chosen) == pytest.approx(max(tried.values()), abs=0.1)


def test_bias_correction_takes_a_shift_away_again():
    deployed = network()
    spoilt = candidate(deployed)
    narrow = {name: (low, 0.3 * high) for name, (low, high) in spoilt.ranges.items()}  # clipped: every mean is too low
    spoilt = spoilt.changed("narrow", ranges=narrow)
    corrected = correct_biases(spoilt, IMAGES)
    assert judge(deployed).sqnr(corrected) > judge(deployed).sqnr(spoilt) + 1


def test_the_layers_around_a_spoilt_tensor_rank_first():
    deployed = network()
    spoilt = candidate(deployed)
    source = [node for node in spoilt.graph.graph.node if node.op_type == "Conv"][2].input[0]
    spoilt = spoilt.changed("spoilt", ranges={**spoilt.ranges, source: (0.0, 1000.0)})
    layers = rank(spoilt, judge(deployed))
    assert {layer.shape[0] for layer in layers[:2]} == {16, 32}  # the one that writes it and the one that reads it
    assert layers[1].alone_db < layers[2].alone_db - 10
    order = [layer.name for layer in layers]
    assert fewest_float(spoilt, order, lambda option: order[0] in option.scheme.float_nodes) == 1
    assert fewest_float(spoilt, order, lambda option: False) is None


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
    made = candidate(deployed)
    simulation = simulate(deployed, made.graph, made.quantized(), IMAGES)
    planes = (torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float() - deployed.shift) / deployed.scale
    found = deployed.finish(simulation(planes)).detach().numpy()
    file = Judge(IMAGES, found, "probabilities").measure(made.quantized())
    assert file["sqnr_db"] > judge(deployed).sqnr(made)  # nearer to its file than the file is to fp32
    np.testing.assert_allclose(
        deployed.finish(simulation.float_network()(planes)).detach().numpy(), deployed.predict(IMAGES), atol=1e-5
    )


def test_fine_tuning_brings_a_coarse_network_nearer_to_fp32_without_labels():
    deployed = network()
    coarse = candidate(deployed)
    coarse = coarse.changed("coarse", ranges={n: (low * 40, high * 40) for n, (low, high) in coarse.ranges.items()})
    schedule = Schedule(steps=80, batch=16, lr=1e-3, range_lr=2e-2)
    tuned, ranges, _ = fine_tune(deployed, coarse.graph, coarse.quantized(), IMAGES, schedule)
    after = Candidate(tuned, graph_of(tuned), {**coarse.ranges, **ranges})
    assert judge(deployed).sqnr(after) > judge(deployed).sqnr(coarse) + 1


def test_the_ladder_stops_at_the_first_rung_that_passes():
    deployed = network()
    made = candidate(deployed)
    spoilt = made.changed("spoilt", ranges={n: (low * 500, high * 500) for n, (low, high) in made.ranges.items()})
    patients = Patients(deployed, spoilt.quantized(), IMAGES[:24], IMAGES, judge(deployed), judge(deployed))
    noisy = lambda measures: [] if measures["sqnr_db"] > 15 else ["too noisy"]  # noqa: E731
    climb = Ladder(patients, noisy, Schedule(steps=4, batch=8), timed=False).climb()
    assert [(rung.name, rung.passed) for rung in climb.rungs] == [("default", False), ("calibrated", True)]
    assert climb.model is not None
    assert "Use 'calibrated'" in climb.recommendation


def test_the_gates_of_the_recipe_say_which_number_they_refuse():
    refuse = gates_of(Check(min_agreement=0.98, max_drop=0.01), "probabilities")
    assert refuse({"agreement": 0.99, "drop": 0.005}) == []
    assert refuse({"agreement": 0.97, "drop": 0.02}) == [
        "agreement 0.970 is below 0.98",
        "top-1 drop 0.020 is above 0.01",
    ]


def test_a_gate_that_nothing_meets_ends_in_an_honest_recommendation():
    def refuse(measures):
        return ["nothing is good enough"]

    deployed = network()
    made = candidate(deployed)
    patients = Patients(deployed, made.quantized(), IMAGES[:24], IMAGES, judge(deployed), judge(deployed))
    climb = Ladder(patients, refuse, Schedule(steps=4, batch=8), timed=False).climb()
    assert climb.model is None
    assert {rung.name for rung in climb.rungs} == {
        "default",
        "calibrated",
        "equalized",
        "bias",
        "mixed",
        "tuned",
        "weights",
    }
    assert climb.recommendation.startswith("Use fp16 or fp32")
    assert onnx_graph.trace(deployed).graph.output[0].name == "probabilities"


def test_where_no_integers_hold_the_weights_alone_stay_in_8_bits():
    deployed = network(nn.Hardswish)
    made = candidate(deployed)
    plain = [judge(deployed).sqnr(option) for option in (made, made.with_float(frozenset(made.layers())))]
    refuse = lambda measures: [] if measures["sqnr_db"] > plain[1] - 1 else ["too noisy"]  # noqa: E731
    patients = Patients(deployed, made.quantized(), IMAGES[:24], IMAGES, judge(deployed), judge(deployed))
    climb = Ladder(patients, refuse, Schedule(steps=4, batch=8), timed=False).climb()
    assert climb.name == "weights" and climb.model is not None
    assert not [node for node in climb.model.graph.node if node.op_type == "QuantizeLinear"]


def test_a_file_that_passes_on_the_test_images_by_luck_is_not_accepted():
    deployed = network()
    made = candidate(deployed)
    spoilt = made.changed("spoilt", ranges={n: (low * 500, high * 500) for n, (low, high) in made.ranges.items()})
    apart = Judge(IMAGES[:20], deployed.predict(IMAGES[:20]), "probabilities")
    patients = Patients(deployed, spoilt.quantized(), IMAGES[:24], IMAGES, apart, judge(deployed))
    lucky = lambda measures: [] if measures["n"] == 48 and measures["sqnr_db"] > 10 else ["refused"]  # noqa: E731
    climb = Ladder(patients, lucky, Schedule(steps=4, batch=8), timed=False).climb()
    assert climb.model is None
    assert all("on 20 images apart: refused" in rung.why for rung in climb.rungs[1:] if rung.measures)


def test_fine_tuning_that_would_take_too_long_says_how_long():
    deployed = network()
    made = candidate(deployed)
    with pytest.raises(UserError, match=r"s a step here: 0 steps in 1e-06 minutes.*check.tune_minutes"):
        fine_tune(deployed, made.graph, made.quantized(), IMAGES, Schedule(steps=100, minutes=1e-6, batch=8))


def test_a_choice_is_trusted_when_its_lower_bound_is_above_the_gate():
    gates = Check(min_agreement=0.98)
    margin = 1.28 * np.sqrt(0.98 * 0.02 * (1 / 500 + 1 / 1000))
    assert doubts({"agreement": 0.98 + margin + 1e-6, "n": 500}, gates, 1000) == []
    assert (
        "less 0.010 for chance, is below 0.98" in doubts({"agreement": 0.98 + margin - 1e-6, "n": 500}, gates, 1000)[0]
    )
    assert doubts({"distance": 0.5, "n": 500}, gates, 1000) == []


def test_selection_images_have_the_margins_of_the_test_images():
    rng = np.random.default_rng(0)
    softmax = lambda z: np.exp(z) / np.exp(z).sum(1, keepdims=True)  # noqa: E731
    sure, unsure = softmax(rng.normal(size=(900, 5)) * 4), softmax(rng.normal(size=(300, 5)))
    chosen = alike(sure, unsure, 200)
    assert len(set(chosen.tolist())) == 200
    quartiles = [np.quantile(margins(part), (0.25, 0.5, 0.75)) for part in (sure[chosen], unsure, sure)]
    np.testing.assert_allclose(quartiles[0], quartiles[1], rtol=0.2)
    assert quartiles[2][1] > 2 * quartiles[1][1]


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
        return self.found

    def need(self, stage, command):
        return self.found["check"]


class FakeResult:
    def __init__(self, metrics=None, details=None):
        self.metrics, self.details = metrics or {}, details or {}


def test_latency_gate_reads_the_bench_and_says_when_there_is_none():
    row = {"artifact": "onnx-int8", "precision": "int8", "sha256": "s"}
    timed = FakeRun(**{"onnx-int8@local": FakeResult({"p90_ms": 3.0})})
    assert latency(timed, row, Check(max_p90=2.0)) == (["p90 3.00 ms on local above the limit of 2 ms"], None)
    assert latency(timed, row, Check(max_p90=4.0)) == ([], None)
    assert "was not timed" in latency(FakeRun(), row, Check(max_p90=2.0))[1]


def test_comparison_with_an_earlier_run_gives_now_then_and_change():
    earlier = FakeRun(check=FakeResult(details={"rows": [{"artifact": "a", "top1": 0.75, "size_bytes": 10}]}))
    found = against([{"artifact": "a", "top1": 0.5, "size_bytes": 12}, {"artifact": "b"}], earlier)
    assert found[0]["top1"] == {"now": 0.5, "then": 0.75, "change": -0.25}
    assert found[1] == {"artifact": "b", "run": "x", "found": False}
