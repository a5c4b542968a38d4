"""Optimizers by name, over all trained weights alike (MoCo decays BatchNorm and biases too)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from softedge.config import Optim


def build(settings: Optim, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """SGD with momentum, AdamW or LARS; the learning rate is set by the loop at every step."""
    listed = list(parameters)
    how: dict[str, Any] = {"fused": True} if listed[0].is_cuda else {"foreach": True}
    if settings.optimizer == "sgd":
        return torch.optim.SGD(
            listed, settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay, **how
        )
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(
            listed, settings.lr, betas=(settings.momentum, 0.999), weight_decay=settings.weight_decay, **how
        )
    return Lars(listed, settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay)


class Lars(torch.optim.Optimizer):
    """SGD whose step is scaled, per tensor, to a share of the weight's norm: You et al. 2017, arXiv 1708.03888.

    Biases and BatchNorm (one-dimensional tensors) are neither scaled nor decayed, as in SimCLR and BYOL.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
    ):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                update = parameter.grad
                if parameter.ndim > 1:
                    update = update.add(parameter, alpha=group["weight_decay"])
                    size, step = parameter.norm(), update.norm()
                    usable = (size > 0) & (step > 0)
                    update = update * torch.where(usable, group["trust"] * size / step.clamp(min=1e-12), 1.0)
                velocity = self.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
                velocity.mul_(group["momentum"]).add_(update)
                parameter.add_(velocity, alpha=-group["lr"])
