"""Rounding of weights by the error of each layer's output, against every rounding there is and plain least squares."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from timm.layers import Conv2dSame, StdConv2d
from torch import nn

from softedge.export import rounding as module
from softedge.export.deployed import Deployed
from softedge.export.rounding import _columns, _sums, least_error, rounded
from softedge.records import InputSpec

SPEC = InputSpec(16, 16, (0.5, 0.4, 0.3), (0.2, 0.3, 0.2))
IMAGES = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)


def nearest(weight):
    scale = weight.abs().amax(2, keepdim=True) / 127
    return (weight / scale).round() * scale


def error(weight, coded, moments):
    difference = weight - coded
    return torch.einsum("gok,gkl,gol->go", difference, moments, difference)


def correlated(groups, inputs, seed=0):
    torch.manual_seed(seed)
    x = torch.randn(groups, inputs, 400) + 2 * torch.randn(groups, 1, 400)
    return x @ x.transpose(1, 2) / 400


def test_the_error_of_outputs_is_smaller_than_of_the_nearest_steps_and_close_to_the_best_of_all_roundings():
    torch.manual_seed(1)
    weight, moments = torch.randn(1, 20, 6), correlated(1, 6)
    coded = least_error(weight, moments)
    scale = weight.abs().amax(2, keepdim=True) / 127
    low = (weight / scale).floor()
    best = torch.full((1, 20), torch.inf)
    for up in itertools.product((0, 1), repeat=6):  # every weight to the step below or above it
        steps = (low + torch.tensor(up)).clamp(-127, 127)
        best = torch.minimum(best, error(weight, steps * scale, moments))
    found = error(weight, coded, moments)
    assert found.mean() < 0.6 * error(weight, nearest(weight), moments).mean()
    assert found.mean() < 2 * best.mean()


def test_inputs_that_do_not_correlate_are_rounded_to_the_nearest():
    torch.manual_seed(2)
    weight = torch.randn(3, 4, 9)
    moments = torch.diag_embed(torch.rand(3, 9) + 0.5)
    torch.testing.assert_close(least_error(weight, moments), nearest(weight))


def test_the_largest_weight_stays_so_that_a_format_finds_the_same_integers():
    torch.manual_seed(3)
    weight, moments = torch.randn(2, 8, 12), correlated(2, 12)
    coded = least_error(weight, moments)
    torch.testing.assert_close(coded.abs().amax(2), weight.abs().amax(2), rtol=0, atol=0)
    torch.testing.assert_close(nearest(coded), coded)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(6, 4, 3, stride=2, padding=1),
        nn.Conv2d(6, 6, (3, 5), padding=(1, 0), groups=6, dilation=(2, 1)),
        nn.Conv2d(6, 4, 4, padding="same", groups=2),
        Conv2dSame(6, 4, 3, stride=2),
        nn.Linear(6, 4),
    ],
)
def test_the_columns_of_a_layer_times_its_weights_are_its_outputs(layer):
    x = torch.randn(2, 6, 10, 11) if isinstance(layer, nn.Conv2d) else torch.randn(2, 6)
    output = layer(x)
    groups = getattr(layer, "groups", 1)
    weight = layer.weight.reshape(groups, layer.weight.shape[0] // groups, -1)
    product = (weight @ _columns(layer, x, output)).reshape(layer.weight.shape[0], len(x), -1)
    expected = output.reshape(len(x), layer.weight.shape[0], -1).transpose(0, 1) - layer.bias.reshape(-1, 1, 1)
    torch.testing.assert_close(product, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(_sums(layer, x, output), _columns(layer, x, output).sum(2, keepdim=True))
    some = _columns(layer, x, output, every=2, first=1)
    every = torch.arange(output[0, 0].numel() if output.ndim > 2 else len(x))
    if output.ndim > 2:
        every = every.reshape(output.shape[2:])[1::2, 1::2].reshape(-1)
        whole = _columns(layer, x, output).reshape(*some.shape[:2], len(x), -1)[..., every].flatten(2)
    else:
        whole = _columns(layer, x, output)[..., 1::2]
    torch.testing.assert_close(some, whole)


def test_moments_that_have_no_inverse_leave_the_nearest_steps():
    torch.manual_seed(4)
    weight = torch.randn(3, 4, 9)
    moments = torch.stack([torch.eye(9), torch.full((9, 9), torch.inf), torch.full((9, 9), torch.nan)])
    torch.testing.assert_close(least_error(weight, moments), nearest(weight))


@pytest.mark.parametrize("inputs", [1, 127, 128, 129, 300])
def test_inputs_in_blocks_give_what_one_input_after_the_other_gives(inputs):
    torch.manual_seed(5)
    weight, moments = torch.randn(1, 6, inputs), correlated(1, inputs)
    order = moments[0].diagonal().argsort(descending=True, stable=True)
    matrix = (moments[0] + 0.01 * moments[0].diagonal().mean() * torch.eye(inputs))[order][:, order].double()
    left, scale = weight[0][:, order].double(), weight[0].abs().amax(1).double() / 127
    top, coded = left.abs().argmax(1), torch.zeros(6, inputs, dtype=torch.float64)
    largest = left.gather(1, top[:, None])[:, 0]
    for k in range(inputs):  # each rounded weight is made up for by least squares over those that are left
        value = torch.where(top == k, largest, (left[:, k] / scale).round().clamp(-127, 127) * scale)
        error, coded[:, k] = left[:, k] - value, value
        if k + 1 < inputs:
            rest = torch.linalg.solve(matrix[k + 1 :, k + 1 :], matrix[k + 1 :, k])
            left[:, k + 1 :] += error[:, None] * rest
    found = least_error(weight, moments)[0][:, order].double()
    assert ((found - coded).abs() > 1e-4 * scale[:, None]).double().mean() < 0.02, "ties aside"


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.dense = nn.Conv2d(16, 32, 1)
        self.twice = nn.Conv2d(32, 32, 1)
        self.head = nn.Linear(32, 5)

    def forward(self, x):
        x = self.depthwise(self.norm(self.stem(x)).relu()).relu()
        return self.head(self.twice(self.twice(self.dense(x).relu()).relu()).relu().mean((2, 3)))


def test_a_rounded_network_is_nearer_than_the_nearest_steps_and_every_output_channel_keeps_its_mean():
    torch.manual_seed(0)
    deployed = Deployed(Net().eval(), SPEC, tuple("abcde"))
    found, plain = rounded(deployed, IMAGES), deployed.folded()
    original = deployed.folded()
    with torch.no_grad():
        for module in plain.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                flat = module.weight.reshape(1, module.weight.shape[0], -1)
                module.weight.copy_(nearest(flat).reshape(module.weight.shape))
        planes = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float()
        exact, made, naive = (d.model(d.normalised(planes)) for d in (original, found, plain))
    torch.testing.assert_close(made.mean(0), exact.mean(0), rtol=0, atol=1e-5)
    assert (made - exact).square().mean() < 0.5 * (naive - exact).square().mean()
    assert torch.equal(found.model.twice.weight, original.model.twice.weight), "its two inputs have no one moment"


def test_layers_whose_moments_would_not_fit_into_memory_keep_their_weights(monkeypatch):
    torch.manual_seed(0)
    deployed = Deployed(Net().eval(), SPEC, tuple("abcde"))
    monkeypatch.setattr(module, "WIDEST", 16**2)
    found, original = rounded(deployed, IMAGES).model, deployed.folded().model
    assert torch.equal(found.stem.weight, original.stem.weight), "27 inputs"
    assert not torch.equal(found.dense.weight, original.dense.weight), "16 inputs"


class Odd(nn.Module):
    """Layers that are no plain product of weights and inputs, or are called otherwise than usual."""

    def __init__(self):
        super().__init__()
        self.standardized = StdConv2d(3, 8, 3, padding=1)
        self.reflected = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
        self.named = nn.Conv2d(8, 8, 1, bias=False)
        self.plain = nn.Conv2d(8, 8, 3, dilation=2, groups=4, bias=False)
        self.unused = nn.Linear(8, 3)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.reflected(self.standardized(x).relu() + 1).relu()
        return self.head(self.plain(self.named(input=x).relu() + 1).mean((2, 3)))


@pytest.mark.parametrize("images", [IMAGES, IMAGES[:1], 0 * IMAGES])
def test_layers_that_are_more_than_weights_times_inputs_keep_their_weights(images):
    torch.manual_seed(6)
    deployed = Deployed(Odd().eval(), SPEC, tuple("abc"))
    found, original = rounded(deployed, images).model, deployed.folded().model
    for name in ("standardized", "reflected", "named"):
        assert torch.equal(getattr(found, name).weight, getattr(original, name).weight), name
        bias = getattr(found, name).bias
        assert bias is None or torch.equal(bias, getattr(original, name).bias), name
    for name in ("plain", "head"):
        assert not torch.equal(getattr(found, name).weight, getattr(original, name).weight), name
    assert np.isfinite(rounded(deployed, images).predict(IMAGES)).all()
