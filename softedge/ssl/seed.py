"""SEED: a small network learns which images a larger one, pretrained without labels, finds similar."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from softedge import backbones, config, distributed
from softedge.backbones import Backbone
from softedge.data.draws import View
from softedge.data.images import Images
from softedge.errors import UserError
from softedge.recipes.section import Positive
from softedge.ssl import sizing
from softedge.ssl.method import Embedder, OneEncoder, reproducible
from softedge.ssl.queue import KeyQueue


def distillation(
    student: Tensor, teacher: Tensor, queue: Tensor, *, temperature: float, teacher_temperature: float
) -> Tensor:
    """Cross-entropy between the teacher's and the student's similarities to a queue of other images.

        L = -1/N Σ_i Σ_j p_T(j | i) log p_S(j | i),   p(j | i) = softmax_j(z_i · d_j / τ),   d = [teacher's z_i; queue]

    Fang et al. 2021, https://arxiv.org/abs/2101.04731, eq. (3) to (6).
    student, teacher: (N, C), queue: (Q, C) of the teacher's embeddings; unit length, gradient through student only.
    """
    with torch.autocast(student.device.type, enabled=False):
        teacher, queue = teacher.detach(), queue.detach()

        def similarities(z: Tensor) -> Tensor:
            return torch.cat([(z * teacher).sum(1, keepdim=True), z @ queue.T], 1)

        wanted = (similarities(teacher) / teacher_temperature).softmax(1)
        return -(wanted * (similarities(student) / temperature).log_softmax(1)).sum(1).mean()


class SEED(OneEncoder):
    """Self-supervised distillation: Fang et al. 2021, https://arxiv.org/abs/2101.04731.

    The teacher is a backbone and its embedding the pooled features (the paper's is that of the head it was pretrained
    with, which a backbone file does not hold); the student's head is as wide. Teacher and student see the same view,
    normalised with this recipe's mean and standard deviation. Its weights are part of the checkpoint.
    """

    class Settings(config.Pretraining):
        method: Literal["seed"] = "seed"
        teacher: str = ""  # its weights: a backbone.safetensors of softedge, or any timm state dict with the name below
        teacher_name: str = ""  # timm name, only for a file that was not written by softedge
        teacher_stem_stride: Literal[1, 2] = 2  # likewise
        projector: tuple[Positive, ...] = (2048,)  # hidden widths; the output is as wide as the teacher's features
        queue: Positive = 65536
        temperature: float = Field(default=0.2, gt=0.0)  # τ_S, of the student
        teacher_temperature: float = Field(default=0.01, gt=0.0)  # τ_T

        def files(self) -> tuple[str, ...]:
            return (self.teacher,)

    def __init__(self, settings: Settings, backbone: Backbone, teacher: Backbone, queue: int, seed: int):
        super().__init__()
        self.settings = settings
        self.teacher = teacher.requires_grad_(False)
        with reproducible(seed + 1):
            self.encoder = Embedder(backbone, (*settings.projector, teacher.num_features), settings.projector_norm)
        self.queue = KeyQueue(queue, teacher.num_features)
        self._waiting: list[Tensor] = []  # the teacher's embeddings of this step's micro-batches

    @classmethod
    def build(cls, recipe: config.Recipe, backbone: Backbone, images: Images) -> Self:
        settings = recipe.ssl
        assert isinstance(settings, cls.Settings)
        queue = sizing.bank_size(settings.queue, settings.batch, len(images))
        return cls(settings, backbone, load_teacher(settings), queue, recipe.seed)

    @classmethod
    def views(cls, recipe: config.Recipe, size: int) -> tuple[View, ...]:
        return (View(size, recipe.augment),)

    def networks(self) -> list[nn.Module]:
        return [*super().networks(), self.teacher]

    def shared_state(self) -> list[Tensor]:
        return [*super().shared_state(), self.queue.keys]

    def forward(self, views: Sequence[Tensor], index: Tensor) -> Tensor:
        images = views[0]
        self.teacher.eval()
        with torch.no_grad():
            teacher = F.normalize(self.teacher(images).float())
        self.clock.lap("keys")
        student = self.encoder(images)
        self.clock.lap("queries")
        loss = distillation(
            student,
            teacher,
            self.queue.negatives(),
            temperature=self.settings.temperature,
            teacher_temperature=self.settings.teacher_temperature,
        )
        self._waiting.append(teacher)
        self.latest = student.detach(), teacher
        self.clock.lap("loss")
        return loss

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Enqueue the teacher's embeddings of the step that is over, those of all ranks."""
        self.queue.enqueue(distributed.gather(torch.cat(self._waiting)))
        self._waiting.clear()

    def measures(self) -> dict[str, float]:
        return {"queue_fill": len(self.queue) / self.queue.size}


def load_teacher(settings: SEED.Settings) -> Backbone:
    """The teacher's backbone from its file; UserError when none is given or the file does not fit."""
    if not settings.teacher:
        raise UserError(
            "ssl.method = 'seed' needs a pretrained teacher: --set ssl.teacher=BIG_RUN/pretrain/backbone.safetensors, "
            "or a state dict of timm with --set ssl.teacher_name=resnet50"
        )
    if settings.teacher_name:
        about = config.Backbone(
            name=settings.teacher_name, stem_stride=settings.teacher_stem_stride, weights=settings.teacher
        )
        return backbones.build(about).eval()
    try:
        return backbones.load(Path(settings.teacher))
    except UserError as error:
        raise UserError(
            f"ssl.teacher: {error}; a state dict of timm needs its name: --set ssl.teacher_name=..."
        ) from None
