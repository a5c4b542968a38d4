"""Depthwise convolutions on maps smaller than their kernel are the same functions, forward and backward."""

import copy

import pytest
import timm
import torch
from small import check_same_function
from torch import nn

from softedge.ssl import cpu_layers
from softedge.ssl.depthwise import DepthwiseConv2d, sum_taps_on_small_maps, weight_gradient


@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (3, 5)])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 4), (4, 4), (4, 2), (7, 9)])
def test_the_gradients_are_those_of_torch(kernel, stride, size):
    torch.manual_seed(0)
    plain = nn.Conv2d(6, 6, kernel, stride, (kernel[0] // 2, kernel[1] // 2), groups=6, dtype=torch.float64)
    changed = copy.deepcopy(plain)
    sum_taps_on_small_maps(changed)
    assert type(changed) is DepthwiseConv2d
    images = [torch.randn(3, 6, *size, dtype=torch.float64).requires_grad_() for _ in range(1)]
    images.append(images[0].detach().clone().requires_grad_())
    outputs = [layer(batch) for layer, batch in zip((plain, changed), images)]
    assert torch.allclose(*outputs, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(outputs[0])
    for output in outputs:
        (output * weights).sum().backward()
    for one, other in [(plain.weight, changed.weight), (plain.bias, changed.bias), tuple(images)]:
        assert torch.allclose(one.grad, other.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("padding", [0, 1, 2, 3])
def test_the_weights_gradient_is_that_of_a_loop_for_any_padding(padding):
    torch.manual_seed(0)
    images, kernel, stride = torch.randn(2, 3, 4, 5, dtype=torch.float64), (4, 3), (2, 1)
    wide = nn.functional.pad(images, (padding,) * 4)
    rows, columns = (wide.shape[2] - 4) // 2 + 1, wide.shape[3] - 3 + 1
    grad = torch.randn(2, 3, rows, columns, dtype=torch.float64)
    expected = torch.zeros(3, 1, 4, 3, dtype=torch.float64)
    for y in range(rows):
        for x in range(columns):
            patch = wide[:, :, 2 * y : 2 * y + 4, x : x + 3]
            expected += (patch * grad[:, :, y, x, None, None]).sum(0)[:, None]
    assert torch.allclose(weight_gradient(grad, images, kernel, stride, (padding, padding)), expected, atol=1e-12)


@pytest.mark.parametrize("size", [32, 64])
def test_a_network_and_its_gradients_stay_the_same(size):
    torch.manual_seed(0)
    plain = timm.create_model("mobilenetv3_small_050", num_classes=0).to(memory_format=torch.channels_last).double()
    changed = copy.deepcopy(plain)
    sum_taps_on_small_maps(changed)
    check_same_function(plain, changed, size)


def test_other_convolutions_are_left_alone():
    layers = nn.Sequential(
        nn.Conv2d(4, 4, 3), nn.Conv2d(4, 8, 3, groups=4), nn.Conv2d(4, 4, 3, groups=4, dilation=2),
        nn.Conv2d(4, 4, 3, groups=4, padding="same"), nn.Conv2d(4, 4, 3, groups=4, padding=1, padding_mode="reflect"),
    )  # fmt: skip
    sum_taps_on_small_maps(layers)
    assert all(type(layer) is nn.Conv2d for layer in layers)


def test_they_are_taken_off_before_an_export():
    network = timm.create_model("mobilenetv3_small_050", num_classes=0)
    before = [type(layer) for layer in network.modules()]
    cpu_layers.put_on(network, torch.float32)
    assert DepthwiseConv2d in {type(layer) for layer in network.modules()}
    cpu_layers.take_off(network)
    assert [type(layer) for layer in network.modules()] == before
