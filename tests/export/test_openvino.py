"""OpenVINO IR, read back from disk, against PyTorch."""

from __future__ import annotations

import re

import numpy as np
import openvino as ov
import pytest
import torch
from onnx import numpy_helper
from openvino import opset13
from torch import nn

from softedge import backbones, config
from softedge.errors import UserError
from softedge.export.candidates import Option
from softedge.export.deployed import Deployed
from softedge.export.onnx.format import Onnx
from softedge.export.onnx.graph import trace
from softedge.export.onnx.quantizer import Scheme
from softedge.export.onnx.rewrite import constants, for_integers
from softedge.export.onnx.rounding import rounded
from softedge.export.onnx.speed import prefixes
from softedge.export.openvino import candidates as openvino_candidates
from softedge.export.openvino import int8
from softedge.export.openvino.core import core
from softedge.export.openvino.format import OpenVino
from softedge.export.openvino.int8 import (
    better_in_float,
    calibration_sets,
    faster_in_float,
    first_layer,
    free_in_float,
    from_onnx_int8,
    layers,
    leading_float,
    reads_rounded,
    weight_grids,
    with_ranges,
)
from softedge.export.openvino.network import _normalised_by_rows, from_onnx, predictor
from softedge.export.parity import compare
from softedge.records import InputSpec


@pytest.mark.parametrize(("precision", "largest"), [("fp32", 1e-5), ("fp16", 2e-2), ("int8", 0.4)])
def test_reloaded_file_agrees_with_pytorch(deployed, pictures, tmp_path, precision, largest):
    target = OpenVino()
    artifact = target.convert(deployed, precision, pictures[:40], tmp_path)
    found = compare(target.load(artifact)(pictures), deployed.predict(pictures))
    assert found.max_abs_diff <= largest and found.sqnr_db > 15
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.bin", "model.xml"]
    text = artifact.path.read_text()
    assert 'names="image"' in text and 'names="probabilities"' in text and "&quot;a&quot;" in text
    if precision == "int8":
        assert text.count('type="FakeQuantize"') >= 6
        assert len(re.findall(r'element_type="i8"', text)) >= 6
    if precision == "fp16":
        assert 'element_type="f16"' in text


def test_batch_one_runs_many_images(deployed, pictures, tmp_path):
    target = OpenVino(batch="one")
    artifact = target.convert(deployed, "fp32", pictures[:0], tmp_path)
    assert np.abs(target.load(artifact)(pictures[:3]) - deployed.predict(pictures[:3])).max() < 1e-5


def test_int8_without_images_and_a_damaged_file_are_one_clear_line(deployed, pictures, tmp_path):
    with pytest.raises(UserError, match="needs calibration images, found none"):
        OpenVino().convert(deployed, "int8", pictures[:0], tmp_path)
    artifact = OpenVino().convert(deployed, "fp32", pictures[:0], tmp_path)
    artifact.path.write_text(artifact.path.read_text()[:300])
    with pytest.raises(UserError, match="cannot be loaded by OpenVINO"):
        OpenVino().load(artifact)


def test_limits_of_a_rounding_are_stored_once(deployed, pictures, tmp_path):
    artifact = OpenVino().convert(deployed, "int8", pictures[:8], tmp_path)
    text = artifact.path.read_text()
    constants = len(re.findall(r'name="[^"]*/(?:input|output)_(?:low|high)"', text))
    assert constants == 2 * text.count('type="FakeQuantize"')
    assert "nncf" not in text
    assert text.count("<dim>") == 4 + 2  # of the image and the probabilities; the runtime infers the others


def test_the_safe_file_has_weights_of_7_bits_where_products_are_added_in_pairs(deployed, pictures, tmp_path):
    largest = {}
    for safe in (False, True):
        folder = tmp_path / str(safe)
        folder.mkdir()
        artifact = OpenVino(safe=safe).convert(deployed, "int8", pictures[:40], folder)
        network = core().read_model(artifact.path)
        dense = [op for op in layers(network).values() if op.get_type_name() != "GroupConvolution"]
        rounded = [op for op in dense if reads_rounded(op)]
        assert len(rounded) >= 3
        largest[safe] = [np.abs(weight_of(op).astype(int)).max() for op in rounded]
        assert compare(OpenVino().load(artifact)(pictures), deployed.predict(pictures)).sqnr_db > 15
    assert max(largest[True]) <= 64 < max(largest[False])


def weight_of(op):
    node = op.input_value(1).get_node()
    while node.get_type_name() != "Constant":
        node = node.input_value(0).get_node()
    return node.get_data()


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "efficientnet_b0", "resnet18"])
def test_the_image_is_normalised_before_it_is_turned_into_planes(name):
    spec = InputSpec(32, 32, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    torch.manual_seed(0)
    classifier = backbones.Classifier(backbones.build(config.Backbone(name=name)), ("a", "b", "c"), spec).eval()
    network = from_onnx(Deployed(classifier, spec))
    first = next(op for op in network.get_ordered_ops() if op.get_type_name() == "Convolution")
    planes = first.input_value(0).get_node()
    assert planes.get_type_name() == "Transpose"
    assert planes.input_value(0).get_partial_shape()[3].get_length() == 3
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    assert np.abs(predictor(network)(images) - Deployed(classifier, spec).predict(images)).max() < 1e-5


def test_a_network_that_does_not_begin_with_planes_is_left_alone():
    image = opset13.parameter([1, 8, 8, 3], np.uint8, name="image")
    mean = opset13.reduce_mean(opset13.convert(image, "f32"), np.array([1, 2]), keep_dims=False)
    network = ov.Model([opset13.multiply(mean, np.float32(2))], [image])
    kinds = [op.get_type_name() for op in network.get_ordered_ops()]
    assert [op.get_type_name() for op in _normalised_by_rows(network).get_ordered_ops()] == kinds


def test_small_depthwise_layers_and_squeeze_excite_products_stay_in_float_and_large_layers_do_not():
    def network(size: int) -> ov.Model:
        spec = InputSpec(size, size, (0.5,) * 3, (0.25,) * 3)
        backbone = backbones.build(config.Backbone(name="mobilenetv3_small_100"))
        return from_onnx(Deployed(backbones.Classifier(backbone, ("a", "b"), spec).eval(), spec))

    def kinds(chosen: list[str], whole: ov.Model) -> dict[str, int]:
        found = [op.get_type_name() for op in whole.get_ordered_ops() if op.get_friendly_name() in chosen]
        return {kind: found.count(kind) for kind in sorted(set(found))}

    small, large = network(32), network(224)
    # Nine squeeze-excite blocks and the pool; of 11 depthwise layers one has maps of 0.9 MB at 224 pixels.
    assert kinds(better_in_float(small), small) == {"GroupConvolution": 11, "Multiply": 9, "ReduceMean": 10}
    assert kinds(better_in_float(large), large) == {"GroupConvolution": 9, "Multiply": 9, "ReduceMean": 10}
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    ops = with_ranges(small, images, "minmax", ignored=better_in_float(small)).get_ordered_ops()
    rounded = [op for op in ops if op.get_input_size() and reads_rounded(op)]
    assert {op.get_type_name() for op in rounded} <= {"Convolution", "MatMul", "Add", "Transpose", "Reshape"}


def test_calibration_images_that_reach_much_farther_than_the_others_are_also_left_out(deployed, monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.integers(112, 144, (24, 16, 16, 3), dtype=np.uint8)
    images[5] = rng.integers(0, 2, (16, 16, 3), dtype=np.uint8) * 255
    sets = calibration_sets(from_onnx(deployed), images)
    assert {name: len(some) for name, some in sets.items()} == {"": 24, " without outliers": 23}
    assert np.array_equal(sets[" without outliers"], np.delete(images, 5, axis=0))
    assert list(calibration_sets(from_onnx(deployed), images[6:])) == [""]
    seen = []
    monkeypatch.setattr(openvino_candidates, "with_ranges", lambda net, some, *_, **__: seen.append(some))
    monkeypatch.setattr(openvino_candidates, "compressed", lambda network: network)
    options = list(OpenVino().candidates(deployed, "int8", images).calibrations())
    names = ["defaults", "minmax", "defaults without outliers", "minmax without outliers"]
    assert [option.what for option in options if option.tier == 0] == [f"calibration by {name}" for name in names]
    assert [len(some) for some in seen] == [24] * 3 + [23] * 3 + [24]


def test_candidates_leave_what_costs_no_time_in_float_then_the_first_layer_too_and_at_last_nothing(deployed, pictures):
    options = list(OpenVino().candidates(deployed, "int8", pictures[:4]).calibrations())
    network = from_onnx(deployed)
    floats, first = set(better_in_float(network)), set(first_layer(network))
    assert len(first) == 1 and not first & floats
    kinds = {(option.tier, frozenset(option.model.ignored)) for option in options}
    assert kinds == {(0, frozenset(floats)), (1, frozenset(floats | first)), (2, frozenset())}
    rounded = {
        option.tier: sum(op.get_type_name() == "FakeQuantize" for op in option.model.network.get_ops())
        for option in options
    }
    assert rounded[2] >= rounded[0] > rounded[1], "weights and activations that are rounded"


@pytest.mark.parametrize(
    ("activation", "size", "free"), [(nn.Hardswish(), 32, True), (nn.ReLU(), 32, False), (nn.Hardswish(), 256, False)]
)
def test_the_first_layer_is_free_in_float_on_small_maps_before_what_is_in_float_anyway(activation, size, free):
    layers = [nn.Conv2d(3, 8, 3, 2, 1), activation, nn.Conv2d(8, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    spec = InputSpec(size, size, (0.5,) * 3, (0.5,) * 3)
    candidates = openvino_candidates.OpenVinoCandidates(
        Deployed(nn.Sequential(*layers), spec, labels=tuple("abcd")), np.zeros(0, np.uint8)
    )
    graph = for_integers(trace(candidates.deployed))
    floats = faster_in_float(graph, [])
    assert free_in_float(candidates.network, (1, size, size, 3), graph, floats) is free


def test_the_first_layer_in_float_is_tried_by_the_closer_ranges_and_nncf_alone_where_all_is_noisy(deployed, pictures):
    """The noise is made up: what is tried next must follow from what was measured, whatever that is."""

    def tried(noise):
        options, made = OpenVino().candidates(deployed, "int8", pictures[:4]), []
        for option in options.calibrations():
            made.append((option.tier, option.model.ranges))
            options.told(option, noise[option.model.ranges])
        return made

    begun = [(0, "defaults"), (0, "minmax")]
    assert tried({"defaults": 24.0, "minmax": 23.0}) == [*begun, (1, "defaults")]
    assert tried({"defaults": 19.0, "minmax": 20.0}) == [*begun, (1, "minmax")]
    assert tried({"defaults": 19.0, "minmax": 19.5}) == [*begun, (1, "minmax"), (2, "defaults")]


def test_the_integers_of_an_onnx_file_and_full_bias_correction_are_options(deployed, pictures, tmp_path):
    options = OpenVino().candidates(deployed, "int8", pictures[:16])
    (tmp_path / "onnx").mkdir()
    onnx = Onnx(scheme=Scheme()).convert(deployed, "int8", pictures[:16], tmp_path / "onnx")
    translated = options.predict(options.from_file(onnx), pictures)
    same = compare(translated, Onnx().load(onnx)(pictures)).sqnr_db
    assert same > compare(translated, deployed.predict(pictures)).sqnr_db, "nearer to that file than to fp32"
    made = options.with_float(next(options.calibrations()), options.layers()[-1:])
    corrected = options.bias_corrected(made)
    assert options.float_layers(corrected) == options.float_layers(made) >= {options.layers()[-1]}
    assert "layer by layer" in corrected.what and options.bias_corrected(options.from_file(onnx)) is None


@pytest.mark.parametrize("scheme", [None, Scheme()])
def test_an_onnx_file_in_openvino_has_its_biases_in_float_its_image_in_rows_and_the_same_answers(
    deployed, pictures, tmp_path, scheme
):
    settings = {"scheme": scheme} if scheme else {"float_prefix": list(prefixes(trace(deployed)))[1]}
    made = Onnx(calibration="minmax", **settings).convert(deployed, "int8", pictures[:16], tmp_path)
    plain, network = ov.convert_model(made.path), from_onnx_int8(made.path)
    assert np.array_equal(predictor(network)(pictures), predictor(plain)(pictures))

    def kinds(model):
        return {op.get_element_type().get_type_name() for op in model.get_ops() if op.get_type_name() == "Constant"}

    assert "i32" in kinds(plain) and "i32" not in kinds(network)
    planes = next(op for op in network.get_ordered_ops() if op.get_type_name() == "Transpose")
    before = planes.input_value(0)
    assert before.get_element_type().get_type_name() == "f32" and before.get_node().get_type_name() != "Convert"
    assert before.get_partial_shape()[3].get_length() == 3


def test_what_onnxruntime_leaves_in_float_for_its_speed_is_computed_in_integers(
    deployed, pictures, tmp_path, monkeypatch
):
    options = OpenVino().candidates(deployed, "int8", pictures[:16])
    until = list(prefixes(trace(deployed)))[1]
    mixed = options.from_file(Onnx(float_prefix=until).convert(deployed, "int8", pictures[:16], tmp_path))
    assert leading_float(mixed.model.network)
    monkeypatch.setattr(int8, "_FREE", 0)
    leaner, begun = options.leaner(mixed)
    assert not leading_float(leaner.model.network) and leading_float(begun.model.network)
    assert leaner.details == mixed.details, "the export is renewed with the file that decided about it"
    known = {op.get_friendly_name(): name for name, op in layers(options.network).items()}
    depthwise = {known[name] for name in better_in_float(options.network) if name in known}
    assert depthwise and options.float_layers(leaner) == depthwise
    assert options.float_layers(begun) == depthwise | {known[name] for name in first_layer(options.network)}
    for option in (leaner, begun):
        assert compare(options.predict(option, pictures), deployed.predict(pictures)).sqnr_db > 15
    monkeypatch.undo()
    (only,) = options.leaner(mixed)
    assert only.what == begun.what, "on small images the first layer costs nothing in float"


def test_nncf_finds_the_integers_of_weights_that_were_rounded_before(deployed, pictures):
    candidates = OpenVino().candidates(deployed, "int8", pictures[:40])
    ignored = [*better_in_float(candidates.network), *first_layer(candidates.network)]
    plain = candidates.with_float(candidates._option("plain", "minmax", "", ignored, 0), candidates.layers()[-1:])
    candidate = candidates.rounded(plain, pictures[:40])
    graph = trace(deployed)
    grids = weight_grids(graph)
    assert list(grids) == list(candidates.layers())
    chosen = constants(rounded(graph, grids, pictures[:40]).graph)
    names = {node.name: node.input[1] for node in graph.graph.node if node.name in grids}
    changed = 0
    for name in list(grids)[3:]:  # before: two that are only compressed, and one of 7 bits
        weights = numpy_helper.to_array(chosen[names[name]])
        found, before = (decoded(layers(o.model.network)[name], weights) for o in (candidate, plain))
        steps = grids[name].steps.reshape(-1, *[1] * (weights.ndim - 1))
        assert (np.abs(found - weights) < 0.1 * steps).all(), name
        changed += int((np.abs(found - before) > 0.5 * steps).sum())
    assert changed > 80
    assert candidate.model.in_float == plain.model.in_float


def test_the_integers_of_a_file_are_not_rounded_again(deployed, pictures):
    candidates = OpenVino().candidates(deployed, "int8", pictures[:8])
    option = Option("the integers of a file", openvino_candidates.Quantization(candidates.network, "", ""))
    assert candidates.rounded(option, pictures[:8]) is None


def decoded(op, like):
    """The weights of an operation as it multiplies them, in the shape of ``like``."""
    network = ov.Model([opset13.result(op.input_value(1))], [])
    return next(iter(core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([]).values())).reshape(
        like.shape
    )
