"""Depthwise convolutions whose kernel is larger than the map: a gradient without oneDNN's reference loop.

5 x 5 kernels meet maps of 4 x 4, 3 x 3 and 2 x 2 positions at the end of MobileNetV3 and EfficientNet for images of up
to 128 pixels. oneDNN has no fast kernel there for the gradient of the weights, nor for anything on a map of one
position.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution, (N, C, H, W) -> (N, C, H', W'); the same function as ``nn.Conv2d``."""

    def forward(self, images: Tensor) -> Tensor:
        rows, columns = images.shape[2:]
        if min(rows, columns) >= max(self.kernel_size):
            return super().forward(images)
        assert not isinstance(self.padding, str)  # plain numbers: ``sum_taps_on_small_maps`` takes no others
        out: Tensor = _Depthwise.apply(images, self.weight, self.stride, self.padding)  # type: ignore[no-untyped-call]
        return out if self.bias is None else out + self.bias[:, None, None]


class _Depthwise(torch.autograd.Function):
    """Forward and the gradient of the images as in torch; the gradient of the weights tap by tap."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        if images.shape[2:] == (1, 1) and _one_output(weight, stride, padding):
            return images * weight[:, 0, padding[0], padding[1], None, None]
        return F.conv2d(images, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        images, weight = ctx.saved_tensors
        of_images = of_weight = None
        if ctx.needs_input_grad[0]:
            of_images = _image_gradient(grad, images, weight, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(grad, images, weight.shape[2:], ctx.stride, ctx.padding)
        return of_images, of_weight, None, None


def _one_output(weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> bool:
    """Whether a map of one position becomes one position."""
    return all((1 + 2 * p - k) // s == 0 and p < k for k, s, p in zip(weight.shape[2:], stride, padding))


def _image_gradient(
    grad: Tensor, images: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    if images.shape[2:] == (1, 1) and grad.shape[2:] == (1, 1):
        return grad * weight[:, 0, padding[0], padding[1], None, None]
    needed = [True, False, False]
    return torch.ops.aten.convolution_backward(
        grad, images, weight, None, stride, padding, (1, 1), False, (0, 0), len(weight), needed
    )[0]


def weight_gradient(
    grad: Tensor, images: Tensor, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """d loss / d weight of a depthwise convolution, (C, 1, kh, kw), the sum over all places of each of its taps.

    grad: of the output, (N, C, H', W').  images: the input, (N, C, H, W).  Fast where both are in channels_last memory
    and the map is small: it passes over the map once for each tap.
    """
    grad, images = grad.permute(0, 2, 3, 1), images.permute(0, 2, 3, 1)
    out = grad.new_zeros(*kernel, grad.shape[3])
    for row in range(kernel[0]):
        of_rows = _overlap(row - padding[0], stride[0], grad.shape[1], images.shape[1])
        for column in range(kernel[1]):
            of_columns = _overlap(column - padding[1], stride[1], grad.shape[2], images.shape[2])
            if of_rows and of_columns:
                part = images[:, of_rows[1], of_columns[1]]
                out[row, column] = (grad[:, of_rows[0], of_columns[0]] * part).sum((0, 1, 2))
    return out.permute(2, 0, 1)[:, None]


def _overlap(offset: int, stride: int, outputs: int, inputs: int) -> tuple[slice, slice] | None:
    """The outputs ``i`` for which ``i * stride + offset`` is an input, and those inputs; None where there are none."""
    first = max(0, -(offset // stride))  # the least i with i * stride + offset >= 0
    last = min(outputs - 1, (inputs - 1 - offset) // stride)
    if first > last:
        return None
    return slice(first, last + 1), slice(first * stride + offset, last * stride + offset + 1, stride)


def sum_taps_on_small_maps(module: nn.Module) -> None:
    """Change the depthwise convolutions in place; as in ``precision`` the class is swapped, not the layer."""
    for layer in module.modules():
        if (
            type(layer) is nn.Conv2d
            and layer.groups == layer.in_channels == layer.out_channels > 1
            and layer.kernel_size != (1, 1)
            and layer.dilation == (1, 1)
            and layer.padding_mode == "zeros"
            and not isinstance(layer.padding, str)
        ):
            layer.__class__ = DepthwiseConv2d
