"""Weights of an IR rounded for each layer's output: against ``export.rounding`` on the PyTorch network."""

from __future__ import annotations

import numpy as np
import openvino as ov
import pytest
import torch
from openvino import opset13 as op
from torch import nn

from softedge.export.openvino.core import core
from softedge.export.openvino.rounding import Layer, layers, rounded
from softedge.export.rounding import LARGEST, Moments, least_error


def plain(images):
    return images.astype(np.float32)


def run(network, images):
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    return next(iter(core().compile_model(network, "CPU", exact)(plain(images)).values()))


@pytest.fixture
def network():
    """A convolution with its own padding, a depthwise one, a linear layer; planes in."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, 1, 1, groups=8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ).eval()
    image = torch.zeros(2, 3, 16, 16)
    return net, ov.convert_model(net, example_input=image, input=[[-1, 3, 16, 16]])


@pytest.fixture
def planes(pictures):
    return np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)) / np.float32(255)


def test_the_first_layer_gets_the_weights_that_the_algorithm_gives_for_its_inputs(network, planes):
    net, ir = network
    moments = Moments(net[0], len(planes))
    x = torch.from_numpy(planes)
    moments.add(x, net[0](x))
    wanted = least_error(net[0].weight.detach().reshape(1, 8, -1), moments.second(), LARGEST)
    found = layers(rounded(ir, planes, plain))[0].weight
    assert (found - wanted).abs().max() < 1e-6
    assert (found - net[0].weight.detach().reshape(1, 8, -1)).abs().max() > 1e-4, "something was rounded"


def test_rounded_weights_are_on_the_grid_and_the_mean_of_each_output_channel_stays(network, planes):
    _, ir = network
    before = run(ir, planes)
    changed = rounded(ir, planes, plain)
    for layer in layers(changed):
        steps = layer.weight.abs().amax(2, keepdim=True) / LARGEST
        assert ((layer.weight / steps) - (layer.weight / steps).round()).abs().max() < 1e-3
    after = run(changed, planes)
    assert np.abs(after.mean(0) - before.mean(0)).max() < 0.2 * np.abs(after - before).max()
    assert np.array_equal(run(ir, planes), before), "the given network is not changed"


@pytest.mark.parametrize("pad", ["explicit", "same_upper", "valid"])
def test_what_a_layer_reads_is_padded_as_openvino_pads_it(planes, pad):
    """The mean output by E[x] and the weights is that of the runtime."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(4, 3, 3, 3)).astype(np.float32)
    image = op.parameter([-1, 3, 16, 16], np.float32)
    made = op.convolution(image, weights, [2, 2], [1, 0], [0, 1], [1, 1], pad)
    (layer,) = layers(ov.Model([made], [image]))
    moments = Moments(layer.module, len(planes))
    layer.add(moments, planes)
    found = (layer.weight @ moments.mean()).reshape(-1)
    assert np.abs(found.numpy() - run(ov.Model([made], [image]), planes).mean((0, 2, 3))).max() < 1e-4


def test_a_linear_layer_of_either_orientation_keeps_its_shape():
    for transposed in (True, False):
        value = np.arange(10, dtype=np.float32).reshape((5, 2) if transposed else (2, 5))
        one = op.parameter([1, 2], np.float32)
        product = op.matmul(one, op.constant(value), False, transposed)
        layer = Layer(product, value)
        assert layer.weight.shape == (1, 5, 2) and np.array_equal(layer.stored(layer.weight), value)
