"""LARS (You, Gitman & Ginsburg 2017, arXiv 1708.03888), for pretraining and for the linear protocol."""

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
    two differ only when γ changes.

    vectors: scale and decay one-dimensional tensors (biases, BatchNorm) like all others, as the paper and LARC do;
    False gives them plain SGD without weight decay, as SimCLR and BYOL pretrain (arXiv 2002.05709, 2006.07733).
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        vectors: bool = True,
    ):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust})
        self.vectors = vectors

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            decay = group["weight_decay"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                update = weight.grad
                if weight.ndim > 1 or self.vectors:
                    size, slope = weight.norm(), weight.grad.norm()
                    usable = (size > 0) & (slope > 0)
                    ratio = torch.where(usable, group["trust"] * size / (slope + decay * size).clamp(min=1e-12), 1.0)
                    update = weight.grad.add(weight, alpha=decay).mul_(ratio)
                velocity = self.state[weight].setdefault("momentum_buffer", torch.zeros_like(weight))
                velocity.mul_(group["momentum"]).add_(update)
                weight.sub_(velocity, alpha=group["lr"])
