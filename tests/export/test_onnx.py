"""ONNX files, read back from disk with onnxruntime, against PyTorch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from tiny_network import exact_integers

from softedge.errors import UserError
from softedge.export.deployed import Deployed
from softedge.export.nearest import Judge, nearest
from softedge.export.onnx import candidates as onnx_candidates
from softedge.export.onnx import quantizer as onnx_int8
from softedge.export.onnx import ranges as onnx_ranges
from softedge.export.onnx import rewrite as onnx_rewrite
from softedge.export.onnx.candidates import OnnxCandidates
from softedge.export.onnx.format import Onnx
from softedge.export.onnx.graph import to_half, trace
from softedge.export.onnx.speed import Beginning
from softedge.export.parity import compare
from softedge.records import InputSpec

SPEED = onnx_int8.Scheme()  # fixed, so that a test does not depend on the machine's speed


def run(model: onnx.ModelProto, pictures: np.ndarray) -> np.ndarray:
    return onnx_ranges.session(model).run(None, {"image": pictures})[0]


@pytest.fixture(scope="module")
def rewritten(deployed):
    return onnx_rewrite.for_integers(trace(deployed))


@pytest.fixture(scope="module")
def ranges(rewritten, pictures):
    return onnx_ranges.measure(rewritten, pictures)


@pytest.mark.parametrize(
    ("precision", "largest"), [("fp32", 1e-5), ("fp16", 2e-2), pytest.param("int8", 0.2, marks=exact_integers)]
)
def test_reloaded_file_agrees_with_pytorch(deployed, pictures, tmp_path, precision, largest):
    target = Onnx(scheme=SPEED)
    artifact = target.convert(deployed, precision, pictures, tmp_path)
    found = compare(target.load(artifact)(pictures), deployed.predict(pictures))
    assert found.max_abs_diff <= largest
    assert found.agreement >= (1.0 if precision == "fp32" else 0.95)


def test_file_takes_a_uint8_image_and_carries_labels_preprocessing_and_origin(deployed, pictures, tmp_path):
    artifact = Onnx().convert(deployed, "fp32", pictures[:0], tmp_path)
    model = onnx.load(artifact.path)
    entry = model.graph.input[0]
    assert (entry.name, entry.type.tensor_type.elem_type) == ("image", onnx.TensorProto.UINT8)
    assert [d.dim_param or d.dim_value for d in entry.type.tensor_type.shape.dim] == ["N", 16, 16, 3]
    assert model.graph.output[0].name == "probabilities"
    about = {p.key: p.value for p in model.metadata_props}
    assert json.loads(about["softedge.labels"]) == ["a", "b", "c", "d", "e"]
    assert json.loads(about["softedge.input"])["mean"] == [0.4, 0.5, 0.6]
    assert about["softedge.checkpoint_sha256"] == "0" * 64
    here = str(Path(onnx_rewrite.__file__).parents[3]).encode()
    assert here not in artifact.path.read_bytes() and b".py" not in artifact.path.read_bytes()


def test_fp16_file_is_half_the_size_and_keeps_float32_at_both_ends(deployed, pictures):
    graph = trace(deployed)
    half = to_half(graph)
    assert run(half, pictures).dtype == np.float32
    weights = [t for t in half.graph.initializer if len(t.dims) == 4 and max(t.dims) > 3]
    assert weights and all(t.data_type == onnx.TensorProto.FLOAT16 for t in weights if "weight" in t.name)


def test_fp16_file_of_features_leaves_the_bounds_in_float_that_its_last_relu6_shares_with_others(pictures, tmp_path):
    layers = (torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU6(), torch.nn.Conv2d(8, 8, 3), torch.nn.ReLU6())
    torch.manual_seed(0)
    network = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).eval()
    features = Deployed(network, InputSpec(16, 18, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)), output="features")
    target = Onnx()
    artifact = target.convert(features, "fp16", pictures[:0], tmp_path)
    bounds = {tensor.data_type for tensor in onnx.load(artifact.path).graph.initializer if not tensor.dims}
    assert bounds == {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
    assert compare(target.load(artifact)(pictures), features.predict(pictures), "features").max_abs_diff < 2e-3


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_file_holds_no_tensor_that_nobody_reads_and_is_as_old_as_its_operators_allow(
    deployed, pictures, tmp_path, precision
):
    target = Onnx(scheme=SPEED)
    artifact = target.convert(deployed, precision, pictures, tmp_path)
    model = onnx.load(artifact.path)
    read = {name for node in model.graph.node for name in node.input}
    assert [t.name for t in model.graph.initializer if t.name not in read] == []
    onnx.checker.check_model(model, full_check=True)  # refuses an IR too old for the opset
    assert model.ir_version == 8
    notes = target.notes(artifact)
    assert (notes["ir_version"], notes["opset"]["ai.onnx"]) == (8, 18)
    assert notes["oldest_onnxruntime_tried"] == "1.15.1"  # run there by test_onnx_runtimes.py


def test_batch_one_export_has_a_fixed_batch_and_still_runs_many_images(deployed, pictures, tmp_path):
    target = Onnx(batch="one")
    artifact = target.convert(deployed, "fp32", pictures[:0], tmp_path)
    assert onnx.load(artifact.path).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    assert np.abs(target.load(artifact)(pictures[:5]) - deployed.predict(pictures[:5])).max() < 1e-5


def test_int8_without_calibration_images_and_unknown_precisions_are_one_clear_line(deployed, pictures, tmp_path):
    with pytest.raises(UserError, match="needs calibration images, found none"):
        Onnx().convert(deployed, "int8", pictures[:0], tmp_path)
    with pytest.raises(UserError, match="no precision 'int4'"):
        Onnx().convert(deployed, "int4", pictures, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_damaged_file_is_one_clear_line(deployed, pictures, tmp_path):
    artifact = Onnx().convert(deployed, "fp32", pictures[:0], tmp_path)
    artifact.path.write_bytes(artifact.path.read_bytes()[:500])
    with pytest.raises(UserError, match="cannot be loaded by onnxruntime"):
        Onnx().load(artifact)


def test_every_rewrite_keeps_the_function(deployed, pictures):
    graph = trace(deployed)
    expected = run(graph, pictures)
    for rewrite in (
        onnx_rewrite.pool_globally,
        onnx_rewrite.split_hard_swish,
        onnx_rewrite.pad_depthwise,
        onnx_rewrite.widen_preprocessing,
        onnx_rewrite.for_integers,
    ):
        assert np.abs(run(rewrite(graph), pictures) - expected).max() < 1e-6, rewrite.__name__


def test_joining_a_split_hard_swish_gives_the_graph_back(deployed):
    graph = trace(deployed)
    joined = onnx_rewrite.join_hard_swish(onnx_rewrite.split_hard_swish(graph))
    assert [n.op_type for n in joined.graph.node] == [n.op_type for n in graph.graph.node]


def test_depthwise_convolutions_are_padded_to_full_vectors_with_zeros(rewritten, deployed):
    graph = trace(deployed)
    before = {n.input[1]: n for n in graph.graph.node if n.op_type == "Conv"}
    known, old = onnx_rewrite.constants(rewritten), onnx_rewrite.constants(graph)
    grown = {name: list(known[name].dims) for name in before if known[name].dims != old[name].dims}
    assert [32, 1, 3, 3] in grown.values() and [32, 8, 1, 1] in grown.values() and [8, 32, 1, 1] in grown.values()
    for name, dims in grown.items():
        value = numpy_helper.to_array(known[name])
        kept = numpy_helper.to_array(old[name])
        assert np.array_equal(value[tuple(slice(n) for n in kept.shape)], kept)
        assert np.abs(value).sum() == pytest.approx(np.abs(kept).sum()), dims


def test_hard_swish_gate_on_the_integers_is_exact():
    for low, high in ((-1.0, 5.0), (-8.0, 3.5), (-4.0, 20.0), (0.0, 0.5)):
        x, gate, half = onnx_int8.gated_grids(low, high)
        q = np.arange(256)
        value = x.scale * (q - x.zero)
        clamped = np.clip(q, x.zero - half, min(x.zero + half, 255))
        expected = np.clip(value / 6 + 0.5, 0, 1)
        assert np.abs(gate.scale * (clamped - gate.zero) - expected).max() < 1e-6
        assert value.min() <= max(low, -3 - x.scale) + x.scale and value.max() >= high - 1.5 * x.scale


def test_int8_weights_and_biases_are_those_of_a_hand_written_quantizer(rewritten, ranges):
    quantized = onnx_int8.quantize(rewritten, ranges)
    stored = onnx_rewrite.constants(quantized)
    node = next(n for n in rewritten.graph.node if n.op_type == "Conv" and "project" in n.input[1])
    weight = numpy_helper.to_array(onnx_rewrite.constants(rewritten)[node.input[1]])
    coded = numpy_helper.to_array(stored[node.input[1] + "_q"])
    assert coded.dtype == np.int8
    for channel in range(len(weight)):
        scale = np.abs(weight[channel]).max() / 127
        assert np.array_equal(coded[channel], np.rint(weight[channel] / np.float32(scale)).astype(np.int8))


def test_convolutions_and_the_linear_layer_compute_in_integers_and_logits_stay_in_float(rewritten, ranges, pictures):
    quantized = onnx_int8.quantize(rewritten, ranges)
    counts = onnx_int8.quantized_ops(quantized)
    assert counts["Conv"] == 6 and counts["Gemm"] == 1
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    softmax = next(n for n in quantized.graph.node if n.op_type == "Softmax")
    assert any(softmax.input[0] in n.output and n.op_type == "Gemm" for n in quantized.graph.node)
    weights = [t for t in quantized.graph.initializer if t.name.endswith("weight_q")]
    assert len(weights) == 7 and all(t.data_type == onnx.TensorProto.INT8 for t in weights)


def test_runtime_fuses_every_convolution_into_an_integer_kernel(rewritten, ranges, tmp_path):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    ort.InferenceSession(onnx_int8.quantize(rewritten, ranges).SerializeToString(), options)
    ops = [n.op_type for n in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert ops.count("QLinearConv") == 6 and "Conv" not in ops and "HardSwish" not in ops
    assert ops.count("QGemm") == 1


def test_layers_left_in_float_are_stored_in_int8_and_named(rewritten, ranges, pictures):
    stem = next(n for n in rewritten.graph.node if n.op_type == "Conv")
    mixed = onnx_int8.quantize(rewritten, ranges, onnx_int8.Scheme().with_float(stem.name))
    assert onnx_int8.quantized_ops(mixed)["Conv"] == 5
    everything = frozenset(n.name for n in rewritten.graph.node)
    stored = onnx_int8.quantize(rewritten, ranges, onnx_int8.Scheme(everything))
    onnx_int8.store_weights_in_int8(stored, smallest=1)
    assert onnx_int8.quantized_ops(stored) == {}
    assert not any(
        t.data_type == onnx.TensorProto.FLOAT and "weight" in t.name and t.name.endswith("weight")
        for t in stored.graph.initializer
    )
    assert np.abs(run(stored, pictures) - run(rewritten, pictures)).max() < 0.1


def test_reduced_range_keeps_weights_within_seven_bits(rewritten, ranges):
    quantized = onnx_int8.quantize(rewritten, ranges, onnx_int8.Scheme(reduce_range=True))
    weights = [numpy_helper.to_array(t) for t in quantized.graph.initializer if t.name.endswith("weight_q")]
    assert max(int(np.abs(w.astype(int)).max()) for w in weights) == 63


def test_ranges_match_a_hand_written_loop(rewritten, pictures):
    ranges = onnx_ranges.measure(rewritten, pictures[:9], "mean")
    node = next(n for n in rewritten.graph.node if n.op_type == "Conv" and "project" in n.input[1])
    name = node.output[0]
    session = onnx_ranges.session(onnx_ranges.with_outputs(rewritten, [name]))
    values = [session.run([name], {"image": p[None]})[0] for p in pictures[:9]]
    assert ranges[name] == pytest.approx((np.mean([v.min() for v in values]), np.mean([v.max() for v in values])))
    extremes = onnx_ranges.measure(rewritten, pictures[:9], "minmax")[name]
    assert extremes == pytest.approx((min(v.min() for v in values), max(v.max() for v in values)))


def test_no_integer_is_spent_where_the_activation_behind_is_constant(rewritten, pictures):
    ranges = onnx_ranges.measure(rewritten, pictures, "minmax")
    readers = {name: n.op_type for n in rewritten.graph.node for name in n.input}
    before_gate = [n.output[0] for n in rewritten.graph.node if readers.get(n.output[0]) == "HardSigmoid"]
    assert before_gate and all(-3 <= ranges[name][0] < ranges[name][1] <= 3 for name in before_gate)


def test_least_distortion_clips_a_lone_outlier_and_nothing_else():
    counts = np.zeros(onnx_ranges.BINS, np.int64)
    counts[:200] = 100_000  # values in [0, 10), and one at 100
    counts[-1] = 1
    low, high = onnx_ranges._least_distortion(counts, 0.0, 102.4)
    assert low == 0.0 and high < 60
    counts[:] = 1000
    assert onnx_ranges._least_distortion(counts, 0.0, 102.4) == (0.0, 102.4)


def test_operator_that_onnx_cannot_express_is_named_in_one_line(tmp_path, pictures):
    class Odd(torch.nn.Module):
        def forward(self, x):
            return torch.special.bessel_j0(x.mean((2, 3)))

    odd = Deployed(Odd(), InputSpec(16, 16, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)), output="features")
    with pytest.raises(UserError, match="ONNX cannot express this network: .*bessel_j0") as failed:
        Onnx().convert(odd, "fp32", pictures[:0], tmp_path)
    assert "\n" not in str(failed.value) and list(tmp_path.iterdir()) == []


def test_max_pool_stays_on_the_integers_of_its_input(tmp_path, pictures):
    import onnxruntime as ort

    layers = [torch.nn.Conv2d(3, 16, 3, 1, 1), torch.nn.ReLU(), torch.nn.MaxPool2d(3, 2, 1), torch.nn.Conv2d(16, 8, 1)]
    net = Deployed(torch.nn.Sequential(*layers, torch.nn.Flatten()), InputSpec(16, 16, (0.5,) * 3, (0.2,) * 3))
    graph = onnx_rewrite.for_integers(trace(net))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    quantized = onnx_int8.quantize(graph, onnx_ranges.measure(graph, pictures))
    ort.InferenceSession(quantized.SerializeToString(), options)
    ops = [n.op_type for n in onnx.load(tmp_path / "optimised.onnx").graph.node]
    pool = next(i for i, op in enumerate(ops) if "MaxPool" in op)
    assert [op for op in ops[pool - 1 : pool + 2] if op != "Transpose"][-1] == "QLinearConv"
    assert "DequantizeLinear" not in ops[:pool] and ops.count("QLinearConv") == 2


def nearest_of(deployed, images):
    """The choice that an export makes among the calibrations, all layers in integers."""
    candidates = OnnxCandidates(deployed, images, scheme=onnx_int8.Scheme())
    return nearest(candidates, Judge.of(deployed, candidates.comparison()))


def test_the_default_calibration_is_the_one_nearest_to_float_on_images_apart(deployed, pictures, rewritten):
    graph = rewritten
    measured, apart = np.delete(pictures, np.s_[::4], axis=0), pictures[::4]
    reference = deployed.predict(apart)
    noise = {}
    for method in onnx_ranges.METHODS:
        made = onnx_int8.quantize(graph, onnx_ranges.measure(graph, measured, method))
        found = np.concatenate([onnx_ranges.session(made).run(None, {"image": image[None]})[0] for image in apart])
        noise[method] = compare(found, reference).sqnr_db
    choice = nearest_of(deployed, pictures)
    method = max(noise, key=noise.__getitem__)
    assert choice.option.what == f"calibration by {method}" and noise[method] > min(noise.values())
    assert max(choice.tried.values()) == pytest.approx(noise[method], abs=0.01)
    assert choice.option.model.ranges == onnx_ranges.measure(graph, measured, method)


def test_weights_of_seven_bits_are_the_last_choice_of_those_that_cost_no_time(deployed, pictures, monkeypatch):
    begun = [Beginning("", onnx_int8.Scheme(), {})]  # without a race for the float beginning
    monkeypatch.setattr(OnnxCandidates, "_beginnings", lambda candidates: begun)

    def offered(**settings):
        return list(OnnxCandidates(deployed, pictures[:20], **settings).calibrations())

    def widest(option):
        return max(
            int(np.abs(onnx.numpy_helper.to_array(tensor).astype(int)).max())
            for tensor in option.model.model().graph.initializer
            if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4
        )

    options = offered()
    seven = [option for option in options if option.what.endswith(", weights of 7 bits")]
    plain = [option for option in options if option not in seven]
    assert len(seven) == len(plain) and min(o.tier for o in seven) > max(o.tier for o in plain)
    assert {widest(option) for option in seven[:2]} == {63} and {widest(option) for option in plain[:2]} == {127}
    assert all(option.details["safe"] == "weights of 7 bits" for option in seven)
    assert not any("safe" in option.details for option in plain)
    asked = offered(safe=True)
    assert len(asked) == len(plain) and widest(asked[0]) == 63, "asked for, they are the only ones"
    assert len(offered(methods=("mse",))) == 1, "where a method is named, nothing else is chosen"


def test_a_part_of_the_calibration_images_is_spread_over_all_of_them():
    """They come folder by folder: biases corrected on the first 128 were those of the first class."""
    from softedge.export.calibration import spread

    assert spread(300, 4).tolist() == [0, 100, 199, 299] and spread(3, 64).tolist() == [0, 1, 2]
    assert spread(1, 5).tolist() == [0] and len(set(spread(300, 128).tolist())) == 128


def test_biases_are_corrected_on_images_of_every_folder(deployed, pictures, monkeypatch):
    seen = []
    monkeypatch.setattr(onnx_candidates, "correct_biases", lambda made, images: seen.append(images) or made)
    images = np.repeat(pictures[:20], 20, axis=0)
    options = OnnxCandidates(deployed, images, scheme=onnx_int8.Scheme(), methods=("minmax",))
    options.bias_corrected(next(options.calibrations()))
    assert {image.tobytes() for image in seen[0]} == {image.tobytes() for image in pictures[:20]}


def test_images_that_reach_much_farther_than_the_others_are_left_out_and_at_least_nine_tenths_stay():
    extremes = np.random.default_rng(0).uniform(0.5, 1.5, (40, 7))
    assert onnx_ranges.typical(extremes).all()
    extremes[3, 2], extremes[17, 5] = 60.0, 9.0
    assert np.flatnonzero(~onnx_ranges.typical(extremes)).tolist() == [3, 17]
    extremes[:20] *= 50
    assert onnx_ranges.typical(extremes).mean() >= 0.9


@exact_integers
def test_one_outlier_among_the_calibration_images_does_not_cost_the_others_their_precision(deployed):
    rng = np.random.default_rng(0)
    images = rng.integers(112, 144, (32, 16, 16, 3), dtype=np.uint8)
    images[5] = rng.integers(0, 2, (16, 16, 3), dtype=np.uint8) * 255
    choice = nearest_of(deployed, images)
    assert any("without outliers" in what for what in choice.tried)
    assert choice.tried[choice.option.what] == max(choice.tried.values())
    assert choice.tried["calibration by minmax without outliers"] > choice.tried["calibration by minmax"]
