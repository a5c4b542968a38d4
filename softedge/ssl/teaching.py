"""A pretrained teacher, and what it says of whole images: seen once, reduced, kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from softedge import backbones, config, distributed
from softedge.backbones import Backbone
from softedge.errors import UserError
from softedge.progress import say
from softedge.records import InputSpec
from softedge.ssl.method import Embed
from softedge.weights import packages, starting

NAMED = ("package", "imagenet")  # anything else is a file
_PART = 8192  # images at a time


class Teacher(Protocol):
    """The settings of a teacher; ``ssl.teacher`` is what ``backbone.weights`` may be, but not "auto" or "random"."""

    teacher: str
    teacher_name: str
    teacher_stem_stride: Any  # 1 or 2


def load(settings: Teacher) -> Backbone:
    """The teacher in eval mode; UserError, one line, when none is given or its weights do not fit."""
    if not settings.teacher:
        raise UserError(
            "ssl.method = 'seed' needs a pretrained teacher: --set ssl.teacher=BIG_RUN/pretrain/backbone.safetensors, "
            "a state dict of timm with --set ssl.teacher_name=resnet50, or --set ssl.teacher=package with --set "
            f"ssl.teacher_name={next(iter(packages.PACKAGES))}"
        )
    if settings.teacher in ("auto", "random"):
        raise UserError(
            f"ssl.teacher = '{settings.teacher}' does not say whose weights teach; use {', '.join(NAMED)} or a file"
        )
    if settings.teacher in NAMED and not settings.teacher_name:
        raise UserError(
            f"ssl.teacher = '{settings.teacher}' needs the network's name: --set ssl.teacher_name="
            f"{next(iter(packages.PACKAGES))}"
        )
    if settings.teacher not in NAMED and not Path(settings.teacher).is_file():
        raise UserError(
            f"ssl.teacher = '{settings.teacher}': the file does not exist; use {', '.join(NAMED)} or a file"
        )
    if settings.teacher_name:
        try:
            return backbones.build(_as_backbone(settings)).eval()
        except UserError as error:
            raise UserError(
                str(error).replace("backbone.", "ssl.teacher_").replace("teacher_weights", "teacher")
            ) from None
    try:
        return backbones.load(Path(settings.teacher))
    except UserError as error:
        raise UserError(
            f"ssl.teacher: {error}; a state dict of timm needs its name: --set ssl.teacher_name=..."
        ) from None


def input_files(settings: Teacher) -> tuple[str, ...]:
    """The file that the teacher's weights are in; none for timm's, which its hub keeps."""
    if settings.teacher not in NAMED:
        return (settings.teacher,)
    package = packages.installed(settings.teacher_name) if settings.teacher == "package" else None
    return () if package is None else (str(package.path),)


def spec_of(settings: Teacher, teacher: Backbone, size: int) -> InputSpec:
    """Whole images at ``size`` pixels, prepared as the teacher's weights expect it.

    Where nobody says how that is: bilinear and ImageNet's mean and deviation.
    """
    about = config.Backbone(name=settings.teacher_name or teacher.settings.name, weights=settings.teacher)
    given = starting.preprocessing_of(about)
    if given is None:
        return InputSpec(size, size, config.IMAGENET_MEAN, config.IMAGENET_STD)
    return InputSpec(size, size, given.mean, given.std, given.interpolation)


def _as_backbone(settings: Teacher) -> config.Backbone:
    return config.Backbone(
        name=settings.teacher_name, stem_stride=settings.teacher_stem_stride, weights=settings.teacher
    )


class KeptFeatures(nn.Module):
    """What a teacher says of every image as a whole: (N,) indices -> (N, C) float32 of unit length.

    The features of all images are centred, projected on their first principal components, divided by their standard
    deviation to the power of ``whitening``, scaled to unit length and kept in float16. Until ``fill`` they are zero.
    The teacher is no part of the state: a training that resumes does not need it again.
    """

    def __init__(self, teacher: Backbone, spec: InputSpec, images: int, components: int, whitening: float):
        """spec: how the teacher's images are prepared.  images: how many.  components: C at most."""
        super().__init__()
        self.spec, self.num_features, self.whitening = spec, min(components, teacher.num_features), whitening
        self.described: Tensor
        self.register_buffer("described", torch.zeros(images, self.num_features, dtype=torch.float16))
        self._teacher: list[Backbone] = [teacher]  # in a list: not a submodule
        self._ready = False

    @torch.no_grad()
    def fill(self, embed: Embed) -> None:
        """Ask the teacher about all images, once; all ranks must call it, and get the same."""
        from softedge.export.folding import fold_batch_norm

        if self._ready:
            return
        if distributed.rank() == 0:
            say(f"pretrain: the teacher looks at {len(self.described):,} whole images at {self.spec.size} pixels, once")
        teacher = fold_batch_norm(self._teacher.pop()).to(self.described.device)
        teacher = teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        features = embed(teacher, spec=self.spec)
        mean = distributed.of_first_rank(features.mean(0))
        projection = distributed.of_first_rank(principal(features - mean, self.described.shape[1], self.whitening))
        for kept, part in zip(self.described.split(_PART), features.split(_PART)):
            kept.copy_(distributed.of_first_rank(F.normalize((part - mean) @ projection, dim=1).half()))
        self._ready = True

    def forward(self, index: Tensor) -> Tensor:
        return F.normalize(self.described[index.to(self.described.device)].float(), dim=1)  # float16 is not exact

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._ready = bool(self.described.any())


def principal(centred: Tensor, count: int, whitening: float) -> Tensor:
    """Projection (F, count) of centred (N, F) features on their principal components, strongest first.

    Each is divided by its standard deviation to the power of ``whitening``; what has no variance is left out (zeros).
    """
    covariance = torch.zeros(centred.shape[1], centred.shape[1], dtype=torch.float64, device=centred.device)
    for part in centred.split(_PART):
        covariance += part.double().T @ part.double()
    values, vectors = torch.linalg.eigh(covariance / max(len(centred), 1))
    deviation = values.clamp(min=0).sqrt().flip(0)[:count]
    weights = torch.where(deviation > 1e-4 * deviation[0].clamp(min=1e-12), deviation**-whitening, 0)
    return (vectors.flip(1)[:, :count] * weights).float()
