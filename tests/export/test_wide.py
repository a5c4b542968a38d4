"""8-bit weights with activations of 16 bits or in float: read back by their runtimes, at the nearest steps against the
rounding by hand, and rounded for each layer's output."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from tiny_network import SPEC, images
from torch import nn

from softedge.eval.measures import compare
from softedge.export.contract import artifact_of
from softedge.export.deployed import Deployed
from softedge.export.onnx import candidates as onnx_candidates
from softedge.export.onnx.format import Onnx
from softedge.export.onnx.rewrite import constants, copied, set_constant
from softedge.export.onnx.rounding import Rounded
from softedge.export.onnx.wide import WideCandidates
from softedge.export.openvino import candidates as openvino_candidates
from softedge.export.openvino.format import OpenVino
from softedge.export.parity import one_by_one
from softedge.records import Precision

HELD_OUT = images(64, seed=8)


@pytest.fixture(scope="module")
def network():
    """Layers large enough for their weights to be worth 8 bits."""
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 32, 3, 2), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 40)),
    )
    with torch.no_grad():
        net[-1].weight.mul_(30)
    return Deployed(net, SPEC, labels=tuple(map(str, range(40))))


def made(target, precision, deployed, calibration, folder):
    folder.mkdir(exist_ok=True)
    artifact = target.convert(deployed, precision, calibration, folder)
    return artifact, measured(target, artifact, deployed)


def measured(target, artifact, deployed):
    return compare(deployed.predict(HELD_OUT), target.load(artifact)(HELD_OUT), None, "probabilities")


def nearest_steps(target, precision, deployed, calibration, folder):
    """The file without rounded weights; its ranges, if it has any, are the same."""
    if precision != "w8a16":
        return made(target, precision, deployed, calibration[:0], folder)
    candidates = WideCandidates(deployed, calibration, precision)
    folder.mkdir()
    path = candidates.write(candidates.only(), folder)
    artifact = artifact_of(path, target.name, precision, deployed.spec, deployed.labels, deployed.output)
    return artifact, measured(target, artifact, deployed)


@pytest.mark.parametrize(("target", "precision"), [(Onnx(), "w8a32"), (Onnx(), "w8a16"), (OpenVino(), "w8a32")])
def test_rounded_weights_are_nearer_on_other_images_at_the_same_size(network, pictures, tmp_path, target, precision):
    plain, naive = nearest_steps(target, precision, network, pictures, tmp_path / "nearest")
    artifact, found = made(target, precision, network, pictures, tmp_path / "rounded")
    assert found["sqnr_db"] > naive["sqnr_db"] + 1
    assert found["agreement"] >= naive["agreement"] - 1 / found["n"], "one answer may be a tie"
    assert 0 <= artifact.size_bytes - plain.size_bytes < 100, "the note of how they were rounded"
    assert target.integer_operations(artifact) == target.integer_operations(plain)
    predict = target.load(artifact)
    together = predict(HELD_OUT[:4])
    assert np.abs(one_by_one(predict, HELD_OUT[:4]) - together).max() <= target.tolerance(precision).replay
    assert np.abs(together - network.predict(HELD_OUT[:4])).max() < 0.02


def test_rounded_weights_that_are_no_nearer_are_not_written(network, pictures, tmp_path, monkeypatch):
    def zeroed(model, grids, images):
        graph = copied(model)
        for name in grids:
            node = next(node for node in graph.graph.node if node.name == name)
            tensor = constants(graph)[node.input[1]]
            set_constant(tensor, 0 * numpy_helper.to_array(tensor))
        return Rounded(graph, ())

    for module in (onnx_candidates, openvino_candidates):
        monkeypatch.setattr(module, "rounded", zeroed)
    for target in (Onnx(), OpenVino()):
        plain, _ = made(target, "w8a32", network, pictures[:0], tmp_path / "plain")
        weights = target.files(plain.path)[-1].read_bytes()
        kept, _ = made(target, "w8a32", network, pictures, tmp_path / "kept")
        assert target.files(kept.path)[-1].read_bytes() == weights


def test_activations_of_16_bits_lose_next_to_nothing_beyond_the_weights(network, pictures, tmp_path):
    _, weights = nearest_steps(Onnx(), "w8a32", network, pictures, tmp_path / "a32")
    artifact, both = nearest_steps(Onnx(), "w8a16", network, pictures, tmp_path / "a16")
    assert both["agreement"] >= 0.95 and both["sqnr_db"] > weights["sqnr_db"] - 1
    model = onnx.load(artifact.path)
    onnx.checker.check_model(model, full_check=True)
    stored = {t.name: t for t in model.graph.initializer}
    rounded = [n for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert rounded and {stored[n.input[2]].data_type for n in rounded} == {TensorProto.UINT16}
    weights_of = [
        stored[n.input[0]] for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in stored
    ]
    assert {t.data_type for t in weights_of if len(t.dims) > 1} == {TensorProto.INT8}
    assert Onnx().integer_operations(artifact).keys() <= {"conv_weights", "linear_weights"}


def steps_from_given(artifact, network):
    """How far the weights are from the given ones at most, in steps s = max |w| / 127 of their output channel; of each
    layer that is stored in 8 bits."""
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(artifact.path).graph.initializer}
    coded = {name.removesuffix("_int8"): value for name, value in stored.items() if value.dtype == np.int8}
    weights = dict(network.named_parameters())
    for name, value in coded.items():
        original = next((w for key, w in weights.items() if key.endswith(name)), None)
        if original is None or tuple(original.shape) != value.shape:
            continue
        original = original.detach().numpy()
        scale = np.abs(original).reshape(len(original), -1).max(1).reshape(-1, *[1] * (original.ndim - 1)) / 127
        np.testing.assert_allclose(stored[f"{name}_scale_int8"], scale, rtol=1e-5)
        yield np.abs(value - original / scale).max()


def test_without_images_each_weight_is_at_the_nearest_step_and_with_images_on_the_same_grid(
    network, pictures, tmp_path
):
    plain, measures = made(Onnx(), "w8a32", network, pictures[:0], tmp_path / "nearest")
    assert measures["sqnr_db"] > 25 and "rounding" not in Onnx().notes(plain)
    largest = list(steps_from_given(plain, network))
    assert largest and max(largest) < 0.501
    artifact, _ = made(Onnx(), "w8a32", network, pictures, tmp_path / "rounded")
    farther = list(steps_from_given(artifact, network))
    assert len(farther) == len(largest) and max(farther) > 0.6
    assert Onnx().notes(artifact)["rounding"] == "least error"


def test_openvino_file_with_8_bit_weights_computes_in_float(network, pictures, tmp_path):
    artifact, measures = made(OpenVino(), "w8a32", network, pictures, tmp_path)
    assert measures["sqnr_db"] > 25
    assert OpenVino().integer_operations(artifact).keys() <= {"conv_weights", "linear_weights", "conv_float"}


def test_openvino_finds_the_integers_that_were_chosen(network, pictures):
    """All but weights that are as large as the largest of their channel, with the other sign: -128 has no opposite."""
    candidates = openvino_candidates.OpenVinoCandidates(network, pictures)
    model = candidates.rounded(candidates.weights_only(), pictures).model
    kinds = ("Convolution", "MatMul")
    chosen = {op.get_friendly_name(): op for op in model.source.get_ordered_ops() if op.get_type_name() in kinds}
    compared = 0
    for op in model.network.get_ordered_ops():
        if op.get_type_name() not in kinds:
            continue
        node = op.input_value(1).get_node()
        while node.get_type_name() != "Constant":
            node = node.input_value(0).get_node()
        weight = chosen[op.get_friendly_name()].input_value(1).get_node().get_data()
        if weight.shape[1] == 3:
            continue  # the converter multiplies the first layer's by the scale of the image's channels
        steps = weight / np.abs(weight).max(axis=tuple(range(1, weight.ndim)), keepdims=True) * 128
        np.testing.assert_allclose(steps, steps.round(), atol=1e-3)
        assert (np.abs(steps).round() == np.abs(node.get_data().astype(int))).mean() > 0.99
        compared += 1
    assert compared == 2


@pytest.mark.parametrize("target", [Onnx, OpenVino])
def test_names_say_what_the_bits_are(target):
    for name, bits in target.precisions.items():
        assert Precision.named(name) == bits
