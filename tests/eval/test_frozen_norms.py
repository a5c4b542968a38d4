"""BatchNorm inside the convolution: outputs and gradients of BatchNorm in eval mode, and nothing left behind."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from softedge.eval import frozen_norms

IMAGES = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def network(name: str) -> nn.Module:
    torch.manual_seed(1)
    net = timm.create_model(name, num_classes=0)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.1)
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 2)
    return net


@pytest.mark.parametrize(
    "name", ["tf_efficientnet_lite0", "mobilenetv3_small_050", "mobilenetv4_conv_small", "resnet18"]
)
def test_outputs_and_gradients_are_those_of_batch_norm_in_eval_mode(name):
    net = network(name).train()
    frozen_norms.hold(net)
    expected = net(IMAGES)
    expected.square().mean().backward()
    gradients = {key: parameter.grad.clone() for key, parameter in net.named_parameters()}
    statistics = {key: value.clone() for key, value in net.state_dict().items()}
    net.zero_grad()
    with frozen_norms.folded(net) as count:
        assert count == sum(isinstance(layer, nn.BatchNorm2d) for layer in net.modules())
        found = net(IMAGES)
        found.square().mean().backward()
        assert net.state_dict().keys() == statistics.keys()
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
    for key, parameter in net.named_parameters():
        scale = gradients[key].abs().max()
        assert torch.allclose(parameter.grad, gradients[key], rtol=1e-3, atol=1e-3 * float(scale) + 1e-9), key
    assert all(torch.equal(value, statistics[key]) for key, value in net.state_dict().items())


def test_afterwards_the_network_is_what_it_was_also_after_an_error():
    net = network("mobilenetv3_small_050").train()
    kinds = [type(layer) for layer in net.modules()]
    with pytest.raises(KeyboardInterrupt), frozen_norms.folded(net):
        raise KeyboardInterrupt
    assert [type(layer) for layer in net.modules()] == kinds
    assert not any("norm" in vars(layer) for layer in net.modules())


def test_a_batch_norm_that_is_not_behind_a_convolution_is_held():
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.ReLU())
    net.append(nn.BatchNorm2d(4))
    with frozen_norms.folded(net) as count:
        assert count == 1
        before = net[0].running_mean.clone()
        net.train()
        frozen_norms.hold(net)
        net(IMAGES)
        assert torch.equal(net[0].running_mean, before)
