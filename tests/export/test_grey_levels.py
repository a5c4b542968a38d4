"""A mean between two grey levels: the network sees whole ones, and answers as before."""

import numpy as np
import pytest
import torch
from torch import nn

from softedge.export.deployed import Deployed
from softedge.export.grey_levels import on_grey_levels
from softedge.records import InputSpec

HALF = InputSpec(16, 16, (0.5,) * 3, (0.5,) * 3, "bicubic")
IMAGENET = InputSpec(16, 16, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic")
PICTURES = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)


def network(padding=0, bias=True, norm=False, **convolution):
    torch.manual_seed(0)
    first = nn.Conv2d(3, 6, 3, padding=padding, bias=bias, **convolution)
    layers = [first, *([nn.BatchNorm2d(6)] if norm else []), nn.ReLU6(), nn.Conv2d(6, 4, 3), nn.Flatten()]
    return nn.Sequential(*layers).eval()


def features(model, spec):
    return Deployed(model, spec, output="features")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("norm", [True, False])
def test_the_function_stays_and_its_zero_is_a_grey_level(bias, norm):
    before = features(network(bias=bias, norm=norm), HALF)
    after = on_grey_levels(before)
    assert after is not before and after.spec.mean == (127 / 255,) * 3 and after.spec.std == HALF.std
    np.testing.assert_allclose(after.predict(PICTURES), before.predict(PICTURES), atol=1e-5)
    levels = after.normalised(torch.arange(256.0).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)).numpy()[0, 0].ravel()
    integers = levels / np.float32(1 / 127.5)
    np.testing.assert_allclose(integers, np.arange(-127, 129), atol=1e-4)


def test_only_what_a_convolution_pads_differs_by_half_a_grey_level():
    model = network(padding=1, groups=3)
    before = features(model, HALF)
    after, planes = on_grey_levels(before), torch.from_numpy(PICTURES).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        was, now = (_first(deployed)(deployed.normalised(planes)) for deployed in (before, after))
    np.testing.assert_allclose(now[:, :, 1:-1, 1:-1], was[:, :, 1:-1, 1:-1], atol=1e-5)
    edge = (now - was).abs().numpy()
    assert 0 < edge.max() <= 0.5 / 127.5 * np.abs(model[0].weight.detach().numpy()).sum((1, 2, 3)).max()


def _first(deployed):
    return next(module for module in deployed.model.modules() if isinstance(module, nn.Conv2d))


class Skipped(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return (self.conv(x) + x).flatten(1)


class Twice(Skipped):
    def forward(self, x):
        return self.conv(self.conv(x)).flatten(1)


@pytest.mark.parametrize(
    ("model", "spec"),
    [
        (network(), IMAGENET),
        (network(), InputSpec(16, 16, (127 / 255,) * 3, (0.5,) * 3, "bicubic")),
        (network(), InputSpec(16, 16, (0.0,) * 3, (1.0,) * 3, "bicubic")),
        (Skipped(), HALF),
        (Twice(), HALF),
        (network(padding=1, padding_mode="reflect"), HALF),
    ],
)
def test_what_has_no_such_form_or_needs_none_comes_back_as_it_is(model, spec):
    before = features(model.eval(), spec)
    assert on_grey_levels(before) is before


def test_it_is_done_once():
    once = on_grey_levels(features(network(), HALF))
    assert on_grey_levels(once) is once
