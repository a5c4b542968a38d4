"""Convolutions that train faster on a CPU: put on for the training, taken off before anything is exported."""

from __future__ import annotations

import torch
from torch import nn

from softedge.ssl.depthwise import DepthwiseConv2d, sum_taps_on_small_maps
from softedge.ssl.pointwise import PointwiseConv2d, multiply_on_small_maps
from softedge.ssl.precision import Float32Conv2d, keep_depthwise_in_float32


def put_on(module: nn.Module, dtype: torch.dtype) -> None:
    """Change the layers of a network that is trained in ``dtype`` on a CPU, in place; weights and names stay."""
    if dtype == torch.bfloat16:
        keep_depthwise_in_float32(module)
    multiply_on_small_maps(module)
    sum_taps_on_small_maps(module)


def take_off(module: nn.Module) -> None:
    """Plain convolutions again, in place: traced, the others would become other operators."""
    for layer in module.modules():
        if type(layer) in (PointwiseConv2d, DepthwiseConv2d, Float32Conv2d):
            layer.__class__ = nn.Conv2d
