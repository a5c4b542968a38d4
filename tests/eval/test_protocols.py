"""The linear protocols of the papers, and LARS against an independent implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from timm.optim import Lars

from softedge import backbones, config
from softedge.eval import protocols
from softedge.stages import linear


def lars_by_hand(weights, gradients, rates, momentum, decay, trust):
    """Algorithm 1 of arXiv 1708.03888 in plain numpy, one tensor, rate outside of the momentum, timm's ε of 1e-8."""
    w, v = np.array(weights, np.float64), np.zeros_like(weights, np.float64)
    for gradient, rate in zip(gradients, rates):
        g = np.array(gradient, np.float64)
        size, slope = math.sqrt((w**2).sum()), math.sqrt((g**2).sum())
        local = trust * size / (slope + decay * size + 1e-8) if size > 0 and slope > 0 else 1.0
        v = momentum * v + local * (g + decay * w)
        w = w - rate * v
    return w


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("start", ["random", "zero"])
def test_lars_equals_the_algorithm_of_the_paper(decay, start):
    rng = np.random.default_rng(0)
    initial = rng.normal(size=(4, 3)) * (start == "random")
    gradients = rng.normal(size=(6, 4, 3))
    gradients[2] = 0.0  # a tensor that gets no gradient for a step
    rates = [1.6 * 0.5 * (1 + math.cos(math.pi * t / 6)) for t in range(6)]
    weight = torch.nn.Parameter(torch.from_numpy(initial.copy()))
    optimizer = Lars([weight], lr=1.0, momentum=0.9, weight_decay=decay, always_adapt=True)
    for gradient, rate in zip(gradients, rates):
        optimizer.param_groups[0]["lr"] = rate
        weight.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
    expected = lars_by_hand(initial, gradients, rates, 0.9, decay, 0.001)
    assert np.abs(weight.detach().numpy() - expected).max() < 1e-12


def test_lars_steps_do_not_depend_on_the_size_of_the_gradient():
    steps = []
    for scale in (1e-4, 1e4):
        weight = torch.nn.Parameter(torch.full((5,), 2.0))
        weight.grad = scale * torch.arange(1.0, 6.0)
        protocols.PROTOCOLS["simsiam"].optimizer([weight], 1.0).step()
        steps.append((weight.detach() - 2.0).norm().item())
    # The first step has the length lr x trust x |w|.
    assert steps[0] == pytest.approx(0.001 * 2 * math.sqrt(5), rel=1e-3)
    assert steps[1] == pytest.approx(steps[0], rel=1e-3)


def test_the_protocols_have_the_settings_of_the_papers():
    simsiam, ang = protocols.PROTOCOLS["simsiam"], protocols.PROTOCOLS["ang-2022"]
    assert (simsiam.epochs, simsiam.batch, simsiam.rate(4096)) == (90, 4096, 1.6)
    assert (ang.epochs, ang.batch, ang.rate(512)) == (100, 512, 1e-3)


@pytest.mark.parametrize("name", ["simsiam", "ang-2022"])
def test_a_protocol_trains_the_linear_layer_and_leaves_the_network_as_it_was(toy, name):
    run, _, data = toy("run")
    weights = run.folder("pretrain") / "backbone.safetensors"
    before, backbone = backbones.read_state(weights), backbones.load(weights)
    head, losses = protocols.train(protocols.PROTOCOLS[name], backbone, data.train, data, 10, 16, 0, 0.0)
    assert all((v == before[k]).all() for k, v in backbone.state_dict().items())
    assert len(losses) == 30 and np.mean(losses[-3:]) < np.mean(losses[:3])
    assert (protocols.evaluate(protocols.PROTOCOLS[name], backbone, head, data.test, data.spec)).shape == (60, 3)


def test_a_protocol_learns_the_same_with_and_without_the_layers_of_the_training(toy, monkeypatch):
    run, _, data = toy("run")
    protocol, learned, plain = protocols.PROTOCOLS["ang-2022"], [], []
    for put_on in (protocols.cpu_layers.put_on, lambda network, dtype: None):
        monkeypatch.setattr(protocols.cpu_layers, "put_on", put_on)
        backbone = backbones.load(run.folder("pretrain") / "backbone.safetensors")
        head, _ = protocols.train(protocol, backbone, data.train, data, 1, 16, 0, 0.5)
        learned.append(head.weight.detach())
        plain.append({type(layer) for layer in backbone.modules() if isinstance(layer, torch.nn.Conv2d)})
    assert (learned[0] - learned[1]).abs().max() < 1e-4 * learned[1].abs().max()
    assert plain[0] == plain[1]


def test_the_stage_says_how_far_the_cached_probe_is_from_the_protocol(toy):
    run, recipe, data = toy("run")
    settings = recipe.linear.model_copy(update={"epochs": 2, "batch": 16})
    result = linear.stage(run, recipe.model_copy(update={"linear": settings}), data)
    assert result.stage == "linear/simsiam" and "probe_gap" in result.skipped
    assert result.recipe["linear"] == config.Linear(epochs=2, batch=16).model_dump(mode="json")
