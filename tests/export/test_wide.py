"""8-bit weights with activations of 16 bits or in float: read back by their runtimes, against the rounding by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from tiny_network import SPEC
from torch import nn

from softedge.eval.measures import compare
from softedge.export.deployed import Deployed
from softedge.export.onnx.format import Onnx
from softedge.export.openvino.format import OpenVino
from softedge.records import Precision


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


def made(target, precision, deployed, pictures, folder):
    artifact = target.convert(deployed, precision, pictures, folder)
    measures = compare(deployed.predict(pictures), target.load(artifact)(pictures), None, "probabilities")
    return artifact, measures


def test_activations_of_16_bits_lose_next_to_nothing_beyond_the_weights(network, pictures, tmp_path):
    for name in ("a16", "a32"):
        (tmp_path / name).mkdir()
    _, weights = made(Onnx(), "w8a32", network, pictures, tmp_path / "a32")
    artifact, both = made(Onnx(), "w8a16", network, pictures, tmp_path / "a16")
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


def test_weights_alone_are_within_half_a_step_of_the_given_ones(network, pictures, tmp_path):
    """Each weight against round(w / s) s with s = max |w| / 127 of its output channel."""
    artifact, measures = made(Onnx(), "w8a32", network, pictures, tmp_path)
    assert measures["sqnr_db"] > 25
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(artifact.path).graph.initializer}
    coded = {name.removesuffix("_int8"): value for name, value in stored.items() if value.dtype == np.int8}
    weights = dict(network.named_parameters())
    compared = 0
    for name, value in coded.items():
        original = next((w for key, w in weights.items() if key.endswith(name)), None)
        if original is None or tuple(original.shape) != value.shape:
            continue
        original = original.detach().numpy()
        scale = np.abs(original).reshape(len(original), -1).max(1).reshape(-1, *[1] * (original.ndim - 1)) / 127
        assert np.abs(value * scale - original).max() <= 0.5001 * scale.max()
        compared += 1
    assert compared


def test_openvino_file_with_8_bit_weights_computes_in_float(network, pictures, tmp_path):
    artifact, measures = made(OpenVino(), "w8a32", network, pictures, tmp_path)
    assert measures["sqnr_db"] > 25
    assert OpenVino().integer_operations(artifact).keys() <= {"conv_weights", "linear_weights", "conv_float"}


@pytest.mark.parametrize("target", [Onnx, OpenVino])
def test_names_say_what_the_bits_are(target):
    for name, bits in target.precisions.items():
        assert Precision.named(name) == bits
