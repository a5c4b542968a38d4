"""Weights that learn which of two steps to go to, for reconstruction.py: AdaRound, and the loss of BRECQ and QDrop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from softedge.export.rounding import LARGEST

ZETA, GAMMA = 1.1, -0.1  # the rectified sigmoid is stretched to them
FIRST_BETA, LAST_BETA = 20.0, 2.0
WARM_UP = 0.2  # of the iterations, without a regulariser
_BATCH = 16  # images of a pass without gradients
_EXACT = 1e-4  # of a step: a weight that is on one, such as the largest of its channel, stays there
_REACH = 0.02  # of a step: how far from its start, towards fp32's, a weight begins that starts rounded


@dataclass(frozen=True)
class Settings:
    """lr: Adam's, of V.  regulariser: λ, where the error is in units of the error at the start and the regulariser is a
    mean over weights.  start: "float", or "softedge" for the integers that its rounding found.  drop: the share of
    activations that stay in float.  positions: of a unit's outputs in one batch, about; 2 to 32 images."""

    iterations: int = 300
    lr: float = 0.03
    regulariser: float = 1.0
    start: str = "softedge"
    drop: float = 0.5
    positions: int = 1024
    seed: int = 0


class SoftRounding(nn.Module):
    """Weights between two steps: s (floor(w / s) + h(V)) within ±127 s, eq. 22 and 23 of AdaRound.

    h(V) = clip(sigmoid(V) (ζ − γ) + γ, 0, 1).  values: weights in steps, where V starts.  scale: s, (O, 1, ...).
    """

    down: Tensor
    scale: Tensor
    movable: Tensor

    def __init__(self, values: Tensor, scale: Tensor):
        super().__init__()
        near = values.round()
        values = torch.where((values - near).abs() < _EXACT, near, values)
        down = values.floor()
        self.hard = False
        self.register_buffer("down", down)
        self.register_buffer("scale", scale)
        self.register_buffer("movable", values > down)
        self.v = nn.Parameter(-((ZETA - GAMMA) / (values - down - GAMMA) - 1).log())

    def share(self) -> Tensor:
        """h(V)."""
        return (self.v.sigmoid() * (ZETA - GAMMA) + GAMMA).clamp(0, 1)

    def regulariser(self, beta: float) -> Tensor:
        """The sum of 1 − |2 h(V) − 1|^β, eq. 24: 0 where every weight is on a step."""
        return (1 - (2 * self.share() - 1).abs().pow(beta)).sum()

    def forward(self, weight: Tensor) -> Tensor:
        share = self.share()
        if self.hard:
            share = (share >= 0.5).to(share)
        return (self.down + share * self.movable).clamp(-LARGEST, LARGEST) * self.scale


def scale_of(weight: Tensor) -> Tensor:
    """The step of each output channel, (O, 1, ...)."""
    largest = weight.detach().abs().flatten(1).amax(1).clamp_min(1e-12)
    return (largest / LARGEST).reshape(-1, *[1] * (weight.dim() - 1))


def started(weight: Tensor, coded: Tensor, start: str) -> SoftRounding:
    """coded: the weight as softedge rounded it; its integers come out again if V does not move."""
    scale = scale_of(weight)
    values, integers = weight.detach() / scale, (coded.detach() / scale).round()
    if start == "softedge":
        values = integers + (values - integers).clamp(-_REACH, _REACH)
    return SoftRounding(values, scale)


def layers_of(module: nn.Module) -> list[tuple[str, nn.Conv2d | nn.Linear]]:
    return [(name, layer) for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


def batched(module: nn.Module, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([module(part) for part in inputs.split(_BATCH)])


def read_by(module: nn.Module, layer: nn.Module, inputs: Tensor) -> Tensor:
    """What ``layer`` reads while ``module`` runs."""
    kept: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, given: kept.append(given[0].clone()))
    batched(module, inputs)
    handle.remove()
    return torch.cat(kept)


def means_of(module: nn.Module, layers: Sequence[nn.Module], inputs: Tensor) -> list[Tensor]:
    """The mean of each output channel of each layer, (O,)."""
    sums = [torch.zeros(()) for _ in layers]

    def adds(index: int) -> Any:
        def add(layer: nn.Module, given: Any, output: Tensor) -> None:
            positions = output.movedim(1, -1).flatten(0, -2)
            sums[index] = sums[index] + positions.mean(0) * len(output)

        return add

    handles = [layer.register_forward_hook(adds(index)) for index, layer in enumerate(layers)]
    batched(module, inputs)
    for handle in handles:
        handle.remove()
    return [total / len(inputs) for total in sums]


def correct_biases(unit: nn.Module, inputs: Tensor, wanted: Sequence[Tensor]) -> None:
    """Give each output channel of the unit's layers the mean that is wanted, one layer after the other."""
    for (_, layer), mean in zip(layers_of(unit.eval()), wanted):
        if layer.bias is not None:
            layer.bias.data += mean - means_of(unit, [layer], inputs)[0]


def learn(
    part: nn.Module, inputs: Tensor, targets: Tensor, exact: Tensor, soft: Sequence[SoftRounding], settings: Settings
) -> None:
    """Learn which way the weights ``soft`` of ``part`` go, so that it maps ``inputs`` to ``targets``; then round them.

    exact: what fp32 reads, a share of which takes the place of ``inputs``; ``inputs`` themselves where none does.
    """
    unit = float((batched(part.eval(), inputs) - targets).square().mean())
    rng = np.random.default_rng(settings.seed)
    positions = targets[0].numel() // targets.shape[1]
    batch = int(np.clip(settings.positions // positions, 2, min(32, len(inputs))))
    optimiser = torch.optim.Adam([each.v for each in soft], settings.lr)
    weights = sum(each.v.numel() for each in soft)
    part.train()
    for iteration in range(settings.iterations):
        chosen = torch.from_numpy(rng.choice(len(inputs), batch, replace=False))
        x = inputs[chosen]
        if exact is not inputs:
            x = torch.where(torch.rand_like(x) < settings.drop, exact[chosen], x)
        loss = (part(x) - targets[chosen]).square().mean() / max(unit, 1e-20)
        progress = (iteration / settings.iterations - WARM_UP) / (1 - WARM_UP)
        if progress >= 0:
            beta = FIRST_BETA + (LAST_BETA - FIRST_BETA) * progress
            sums = torch.stack([each.regulariser(beta) for each in soft])
            loss = loss + settings.regulariser * sums.sum() / weights
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    part.eval()
    for each in soft:
        each.hard = True


def reconstruct(
    part: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    exact: Tensor,
    soft: Sequence[SoftRounding],
    wanted: Sequence[Tensor],
    settings: Settings,
) -> tuple[float, float]:
    """``learn``, with biases corrected before and after; the start stays where it was nearer.  The squared errors of
    the start and of what was learned.  wanted: of each layer's output channels, the means."""

    def rounded_error() -> float:
        for each in soft:
            each.hard = True
        correct_biases(part, inputs, wanted)
        return float((batched(part, inputs) - targets).square().mean())

    first = [each.v.detach().clone() for each in soft]
    before = rounded_error()
    for each in soft:
        each.hard = False
    correct_biases(part, inputs, wanted)
    learn(part, inputs, targets, exact, soft, settings)
    after = rounded_error()
    if not after < before:
        for each, value in zip(soft, first):
            each.v.data.copy_(value)
        rounded_error()
    return before, after
