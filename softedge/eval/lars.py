"""LARS (You, Gitman & Ginsburg 2017, arXiv 1708.03888), in the form that SimSiam's linear protocol uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class Lars(torch.optim.Optimizer):
    """SGD with momentum whose gradient is scaled, per tensor, to the size of the weights.

        λ = η ‖w‖ / (‖∇‖ + β ‖w‖)          (eq. 6; 1 where ‖w‖ or ‖∇‖ is zero)
        v ← m v + λ (∇ + β w),   w ← w − γ v

    γ is the learning rate, m the momentum, β the weight decay, η the trust coefficient. The paper's algorithm 1 has γ
    inside v; here it stands outside, as in NVIDIA's LARC around PyTorch's SGD, which SimSiam and Light-MoCo used: the
    two differ only when γ changes. Every tensor is scaled, biases too.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
    ):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            decay = group["weight_decay"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                size, slope = weight.norm(), weight.grad.norm()
                usable = (size > 0) & (slope > 0)
                ratio = torch.where(usable, group["trust"] * size / (slope + decay * size).clamp(min=1e-12), 1.0)
                update = weight.grad.add(weight, alpha=decay).mul_(ratio)
                velocity = self.state[weight].setdefault("velocity", torch.zeros_like(weight))
                velocity.mul_(group["momentum"]).add_(update)
                weight.sub_(velocity, alpha=group["lr"])
