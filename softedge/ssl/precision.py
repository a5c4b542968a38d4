"""bfloat16 where it wins: autocast, with depthwise convolutions kept in float32 on CPUs."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn


def resolve(asked: str, device: torch.device) -> torch.dtype:
    """``auto``: bfloat16 on GPUs that compute in it, float32 elsewhere (on CPUs it is not always the faster one)."""
    if asked == "bf16" or (asked == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()):
        return torch.bfloat16
    return torch.float32


def autocast(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[None]:
    """The context to run networks in; no effect for float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


class Float32Conv2d(nn.Conv2d):
    """A convolution outside of autocast."""

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            return super().forward(images.float())


def keep_depthwise_in_float32(module: nn.Module) -> None:
    """Change depthwise convolutions in place: in bfloat16 a CPU runs them several times slower than in float32.

    The class is swapped, not the layer: names in the state dict, weights and optimizers stay what they are.
    """
    for layer in module.modules():
        if type(layer) is nn.Conv2d and layer.groups == layer.in_channels > 1:
            layer.__class__ = Float32Conv2d
