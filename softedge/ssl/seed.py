"""SEED: a small network learns which images a larger one, pretrained without labels, finds similar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from softedge import config, distributed
from softedge.backbones import Backbone
from softedge.data.draws import View
from softedge.data.images import Images
from softedge.recipes.section import Fraction, Pixels, Positive
from softedge.ssl import sizing, teaching
from softedge.ssl.method import Embed, Embedder, OneEncoder, reproducible
from softedge.ssl.queue import KeyQueue
from softedge.ssl.teaching import KeptFeatures


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
    with, which a backbone file does not hold); the student's head is as wide.

    The paper's way (``teacher_size = 0``): teacher and student see the same view, normalised with this recipe's mean
    and standard deviation; the teacher's weights are part of the checkpoint.
    With ``teacher_size`` the teacher sees every whole image once, at those pixels and prepared as its weights expect
    it, and its embedding of an image is kept for all views of it (``KeptFeatures``). Small images are enlarged for a
    teacher that knows large ones, and a step costs the student alone.
    """

    class Settings(config.Pretraining):
        method: Literal["seed"] = "seed"
        # its weights: a backbone.safetensors of softedge; any timm state dict, "package" or "imagenet" (as
        # backbone.weights) with the name below
        teacher: str = ""
        teacher_name: str = ""  # timm name, only for weights that are not in a file written by softedge
        teacher_stem_stride: Literal[1, 2] = 2  # likewise
        teacher_size: Pixels = 0  # of whole images, seen once; 0: the student's view
        components: Positive = 512  # principal ones of the teacher's features that are kept, with teacher_size
        whitening: Fraction = 0.5  # of these: 0 none, 1 full
        projector: tuple[Positive, ...] = (2048,)  # hidden widths; the output is as wide as the teacher's embedding
        queue: Positive = 65536
        temperature: float = Field(default=0.2, gt=0.0)  # τ_S, of the student
        teacher_temperature: float = Field(default=0.01, gt=0.0)  # τ_T

        def files(self) -> tuple[str, ...]:
            return teaching.input_files(self)

    def __init__(self, settings: Settings, backbone: Backbone, teacher: Backbone | KeptFeatures, queue: int, seed: int):
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
        teacher = teaching.load(settings)
        if settings.teacher_size == 0:
            return cls(settings, backbone, teacher, queue, recipe.seed)
        spec = teaching.spec_of(settings, teacher, settings.teacher_size)
        kept = KeptFeatures(teacher, spec, len(images), settings.components, settings.whitening)
        return cls(settings, backbone, kept, queue, recipe.seed)

    @classmethod
    def views(cls, recipe: config.Recipe, size: int) -> tuple[View, ...]:
        return (View(size, recipe.augment),)

    def networks(self) -> list[nn.Module]:
        return [*super().networks(), *([] if isinstance(self.teacher, KeptFeatures) else [self.teacher])]

    def shared_state(self) -> list[Tensor]:
        kept = [self.teacher.described] if isinstance(self.teacher, KeptFeatures) else []
        return [*super().shared_state(), self.queue.keys, *kept]

    def before_epoch(self, epoch: int, embed: Embed) -> None:
        if isinstance(self.teacher, KeptFeatures):
            self.teacher.fill(embed)

    def forward(self, views: Sequence[Tensor], index: Tensor) -> Tensor:
        teacher = self._taught(views[0], index)
        self.clock.lap("keys")
        student = self.encoder(views[0])
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
    def _taught(self, images: Tensor, index: Tensor) -> Tensor:
        """The teacher's embeddings, (N, C) of unit length: of the view, or kept of the whole images."""
        if isinstance(self.teacher, KeptFeatures):
            return self.teacher(index)
        self.teacher.eval()
        return F.normalize(self.teacher(images).float())

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Enqueue the teacher's embeddings of the step that is over, those of all ranks."""
        self.queue.enqueue(distributed.gather(torch.cat(self._waiting)))
        self._waiting.clear()

    def measures(self) -> dict[str, float]:
        return {"queue_fill": len(self.queue) / self.queue.size}
