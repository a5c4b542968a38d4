"""1 x 1 convolutions as matrix products are the same functions."""

import copy

import pytest
import timm
import torch
from small import check_same_function
from torch import nn

from softedge.config import Optim
from softedge.ssl import optimizers
from softedge.ssl.pointwise import PointwiseConv2d, multiply_on_small_maps


@pytest.mark.parametrize("size", [32, 96])  # maps of one position and more at the end, large ones at the beginning
def test_the_network_and_its_gradients_stay_the_same(size):
    torch.manual_seed(0)
    plain = timm.create_model("mobilenetv3_small_050", num_classes=0).to(memory_format=torch.channels_last).double()
    changed = copy.deepcopy(plain)
    names = list(changed.state_dict())
    multiply_on_small_maps(changed)
    assert list(changed.state_dict()) == names
    assert sum(isinstance(layer, PointwiseConv2d) for layer in changed.modules()) > 20
    check_same_function(plain, changed, size)


def test_small_maps_are_multiplied_and_stay_channels_last():
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 8, 1)
    multiply_on_small_maps(layer)
    small, large = torch.randn(3, 6, 2, 2), torch.randn(3, 6, 3, 3)
    assert layer(small).is_contiguous(memory_format=torch.channels_last)
    for images in (small, large):
        expected = torch.einsum("nchw,dc->ndhw", images, layer.weight[:, :, 0, 0]) + layer.bias[:, None, None]
        assert torch.allclose(layer(images), expected, atol=1e-6)


def test_layers_that_are_more_than_a_product_are_left_alone():
    layers = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1, stride=2), nn.Conv2d(4, 4, 1, groups=4))
    multiply_on_small_maps(layers)
    assert all(type(layer) is nn.Conv2d for layer in layers)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_one_pass_over_the_weights_updates_them_as_the_plain_optimizer_does(name):
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 16, 3, dtype=torch.float64).to(memory_format=torch.channels_last)
    fused = copy.deepcopy(plain)
    settings = Optim(optimizer=name, lr=0.1, weight_decay=0.01)
    how = {"lr": 0.1, "weight_decay": 0.01}
    expected = (
        torch.optim.SGD(plain.parameters(), momentum=0.9, **how)
        if name == "sgd"
        else torch.optim.AdamW(plain.parameters(), betas=(0.9, 0.999), **how)
    )
    optimizer = optimizers.build(settings, list(fused.parameters()))
    images = torch.randn(4, 8, 5, 5, dtype=torch.float64)
    for _ in range(3):
        for layer, step in ((plain, expected), (fused, optimizer)):
            layer(images).square().mean().backward()
            step.step()
            step.zero_grad()
    assert optimizer.defaults["fused"]
    for one, other in zip(plain.parameters(), fused.parameters()):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)
