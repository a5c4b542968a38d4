"""DINO: a student's small and large views agree with a momentum teacher's large ones; no negatives, no predictor."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from softedge import distributed
from softedge.backbones import Backbone
from softedge.config import Pretraining, Recipe
from softedge.data.draws import View, two_views
from softedge.errors import UserError
from softedge.recipes.section import Fraction, Positive, Widths
from softedge.ssl.method import Embedder, reproducible
from softedge.ssl.target import Target, WithTarget

_LOCAL_SIDE = 96 / 224  # of a local view, as a share of a global one's: the paper's pixels
_MONITORED = 64  # images of a step that the monitor looks at


def self_distillation(
    student: Tensor, teacher: Tensor, centre: Tensor, *, temperature: float, teacher_temperature: float
) -> Tensor:
    """Cross-entropy of every student view with every teacher view of the same image but itself.

        L = mean over t, s ≠ t of -1/N Σ_i Σ_k P_t(k | i) log P_s(k | i)
        P_s = softmax(g_s / τ_s),   P_t = softmax((g_t - c) / τ_t)

    Caron et al. 2021, https://arxiv.org/abs/2104.14294, eq. (1) to (3) and section 3.1 (centring and sharpening).
    student: (S, N, K) and teacher: (T, N, K) logits; the first T student views are those that the teacher saw.
    centre: (K,).  The gradient flows through student only.
    """
    with torch.autocast(student.device.type, enabled=False):
        targets = ((teacher.detach().float() - centre) / teacher_temperature).softmax(2)
        log_p = (student.float() / temperature).log_softmax(2)
        pairs = -torch.einsum("tnk,snk->ts", targets, log_p) / student.shape[1]
        another_view = ~torch.eye(*pairs.shape, dtype=torch.bool, device=pairs.device)
        return pairs[another_view].mean()


def head(inputs: int, widths: Sequence[int], norm: bool) -> nn.Sequential:
    """Linear layers of the given widths with GELU between them: (N, inputs) -> (N, widths[-1]), the bottleneck."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(inputs, width), *([nn.BatchNorm1d(width)] if norm else []), nn.GELU()]
        inputs = width
    last = max(at for at, layer in enumerate(layers) if isinstance(layer, nn.Linear))
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers[: last + 1])


class Prototypes(nn.Module):
    """The weight-normalised last layer, with the norm fixed at 1: (N, C) of unit length -> (N, K) cosines."""

    def __init__(self, width: int, count: int):
        super().__init__()
        self.weight = nn.Parameter(nn.Linear(width, count, bias=False).weight.detach())

    def forward(self, embeddings: Tensor, frozen: bool = False) -> Tensor:
        # Frozen, the gradient is zero and not absent, which fused optimizers do not take; what weight decay then does
        # to the weights is undone by the normalisation.
        weight = self.weight.detach() + 0 * self.weight if frozen else self.weight
        return F.linear(embeddings, F.normalize(weight, dim=1))


class DINO(WithTarget):
    """Self-distillation with no labels: Caron et al. 2021, https://arxiv.org/abs/2104.14294, algorithm 1.

    The teacher sees two global views, the student those and the local ones (multi-crop: Caron et al. 2020,
    https://arxiv.org/abs/2006.09882). Views of one size pass through the network in one batch, with BatchNorm
    statistics of their own. The centre is that of all ranks and micro-batches of a step. All views are coloured alike
    (the paper blurs and solarizes each of the global ones differently), and the weight decay is constant.
    """

    class Settings(Pretraining):
        method: Literal["dino"] = "dino"
        projector: Widths = (2048, 2048, 256)  # the last is the bottleneck before the prototypes
        prototypes: Positive = 65536  # K
        local_views: int = Field(default=8, ge=0)  # besides the two global ones
        local_size: int = Field(default=0, ge=0)  # pixels; 0: 96 for every 224 of data.size
        local_area: tuple[Fraction, Fraction] = (0.05, 0.4)  # of the image; the global views' is augment.min_area to 1
        temperature: float = Field(default=0.1, gt=0.0)  # τ_s, of the student
        teacher_temperature: float = Field(default=0.04, gt=0.0)  # τ_t
        teacher_temperature_start: float = Field(default=0.04, gt=0.0)  # from which it rises linearly
        teacher_warmup_epochs: float = Field(default=0.0, ge=0.0)  # in so many epochs
        centre_momentum: Fraction = 0.9
        momentum: Fraction = 0.996  # of the teacher
        momentum_cosine: bool = True  # raise the momentum to 1 along a cosine
        freeze_epochs: float = Field(default=1.0, ge=0.0)  # at the beginning, in which the prototypes do not move

    def __init__(self, settings: Settings, backbone: Backbone, seed: int):
        super().__init__()
        low, high = settings.local_area
        if low >= high:
            raise UserError(f"ssl.local_area = [{low}, {high}]: expected a smaller and a larger share of the image")
        self.settings = settings
        with reproducible(seed + 1):
            self.encoder = Embedder(backbone, settings.projector, norm=False)
            self.encoder.projector = head(backbone.num_features, settings.projector, settings.projector_norm)
            self.prototypes = Prototypes(settings.projector[-1], settings.prototypes)
        self.target = Target(self.encoder, settings.momentum, settings.momentum_cosine)
        self.target_prototypes = Target(self.prototypes, settings.momentum, settings.momentum_cosine)
        self.centre: Tensor
        self.progress: Tensor
        self.register_buffer("centre", torch.zeros(settings.prototypes))
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))
        self._progress = 0.0  # the same on the host: reading a buffer would wait for the GPU
        self._waiting: list[Tensor] = []  # mean teacher logits of this step's micro-batches

    @classmethod
    def views(cls, recipe: Recipe, size: int) -> tuple[View, ...]:
        settings = recipe.ssl
        assert isinstance(settings, cls.Settings)
        low, high = settings.local_area
        local = recipe.augment.model_copy(update={"min_area": low})
        side = settings.local_size or round(size * _LOCAL_SIDE)
        return (*two_views(size, recipe.augment), *[View(side, local, max_area=high)] * settings.local_views)

    def shared_state(self) -> list[Tensor]:
        return [*super().shared_state(), self.centre]

    @property
    def epoch(self) -> float:
        """Epochs that are over."""
        return self._progress * self.settings.epochs

    @property
    def teacher_temperature(self) -> float:
        """τ_t now."""
        start, end = self.settings.teacher_temperature_start, self.settings.teacher_temperature
        warmup = self.settings.teacher_warmup_epochs
        return end if self.epoch >= warmup else start + (end - start) * self.epoch / warmup

    def forward(self, views: Sequence[Tensor], index: Tensor) -> Tensor:
        count, images = len(views), len(index)
        teacher = self.target(torch.cat(list(views[:2])))
        targets = self.target_prototypes(teacher)
        self.clock.lap("keys")
        sizes = [list(group) for _, group in itertools.groupby(views, key=lambda view: view.shape[-1])]
        student = torch.cat([self.encoder(torch.cat(group)) for group in sizes])
        frozen = self.epoch + 1e-9 < self.settings.freeze_epochs  # a share of training is not exact
        logits = self.prototypes(student, frozen)
        self.clock.lap("queries")
        loss = self_distillation(
            logits.view(count, images, -1),
            targets.view(2, images, -1),
            self.centre,
            temperature=self.settings.temperature,
            teacher_temperature=self.teacher_temperature,
        )
        self._waiting.append(targets.float().mean(0))
        self.latest = self._expected(logits[:images].detach(), targets[images:])
        self.clock.lap("loss")
        return loss

    @torch.no_grad()
    def _expected(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """What the monitor sees of (N, K) logits: the mean prototype under the distributions of some images, (n, C).

        The same for all images if the distributions collapse, to one prototype or to uniformity. The bottleneck does
        not show that: its vectors lie close together, and the centre takes away what they have in common.
        """
        p_student = (student[:_MONITORED].float() / self.settings.temperature).softmax(1)
        p_teacher = ((teacher[:_MONITORED].float() - self.centre) / self.teacher_temperature).softmax(1)
        prototypes = F.normalize(self.prototypes.weight.float(), dim=1)
        return F.normalize(p_student @ prototypes), F.normalize(p_teacher @ prototypes)

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Let the teacher follow; c ← m c + (1 - m) · mean teacher logits of the step that is over (eq. 4)."""
        super().after_step(progress)
        self.target_prototypes.follow(self.prototypes, progress)
        mean = distributed.gather(torch.stack(self._waiting).mean(0)[None]).mean(0)
        self._waiting.clear()
        self.centre.lerp_(mean, 1 - self.settings.centre_momentum)
        self._progress = progress
        self.progress.fill_(progress)

    def measures(self) -> dict[str, float]:
        # The loss is another one at every step, as the centre moves: it may rise, and the guard must not mind.
        own = {"teacher_temperature": self.teacher_temperature, "objective": self._progress}
        return {**super().measures(), **own}

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._progress = float(self.progress)
