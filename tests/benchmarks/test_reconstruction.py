"""benchmarks/reconstruction.py: weights end on one of the two steps beside them, and a block comes nearer to fp32."""

import copy
import sys
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import reconstruction
from soft_rounding import Settings, SoftRounding, means_of, reconstruct, scale_of, started

from softedge.export.folding import fold_batch_norm
from softedge.quantize.simulation import RoundedWeight


@pytest.fixture
def block():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(6, 12, 1), nn.ReLU6(), nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.ReLU6())


def test_the_soft_weight_begins_at_its_value(block):
    weight = block[0].weight
    soft = SoftRounding(weight.detach() / scale_of(weight), scale_of(weight))
    assert torch.allclose(soft(weight), weight, atol=1e-6)


def test_rounded_weights_are_within_one_step_and_the_largest_stay(block):
    weight, scale = block[0].weight.detach(), scale_of(block[0].weight)
    soft = SoftRounding(weight / scale, scale)
    soft.v.data.normal_(std=5)
    soft.hard = True
    steps = soft(weight) / scale
    assert torch.allclose(steps, steps.round(), atol=1e-4)
    assert (soft(weight) - weight).abs().le(scale * 1.001).all()
    assert torch.allclose(scale_of(soft(weight)), scale)


def test_a_start_keeps_its_integers_until_it_learns(block):
    weight = block[0].weight.detach()
    coded = RoundedWeight()(weight) + 2 * scale_of(weight) * (weight.abs() < 60 * scale_of(weight))
    soft = started(weight, coded, "softedge")
    soft.hard = True
    assert torch.allclose(soft(weight), coded, atol=1e-6)


@pytest.mark.parametrize("beta", [20.0, 2.0])
def test_the_regulariser_is_zero_on_steps_and_one_between(beta):
    soft = SoftRounding(torch.tensor([[0.5, 3.5]]), torch.ones(1, 1))
    assert soft.regulariser(beta).item() == pytest.approx(2)
    soft.v.data = torch.tensor([[9.0, -9.0]])
    assert soft.regulariser(beta).item() == 0


@pytest.mark.parametrize("start", ["float", "softedge"])
def test_reconstruction_lowers_the_error_of_a_block_or_keeps_the_start(block, start):
    x = torch.rand(16, 6, 8, 8)
    with torch.no_grad():
        targets = block(x)
    means = means_of(block, [block[0], block[2]], x)
    learning, soft = copy.deepcopy(block), []
    for layer in (learning[0], learning[2]):
        soft.append(started(layer.weight, RoundedWeight()(layer.weight.data), start))
        layer.requires_grad_(False)
        nn.utils.parametrize.register_parametrization(layer, "weight", soft[-1], unsafe=True)
    settings = Settings(iterations=200, start=start)
    before, after = reconstruct(learning, x, targets, x, soft, means, settings)
    assert after < before or start == "softedge"
    with torch.no_grad():
        assert (learning(x) - targets).square().mean().item() == pytest.approx(min(before, after))


def test_a_network_is_cut_into_its_blocks():
    network = fold_batch_norm(timm.create_model("tf_efficientnet_lite0", num_classes=5).eval())
    units = reconstruction.units_of(network)
    assert len(units) == 18  # 16 blocks, what is before and what is behind
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        wanted, found = network(x), x
        for unit in units:
            found = unit(found)
    assert torch.allclose(wanted, found, atol=1e-5)
