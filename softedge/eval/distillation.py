"""Distillation: a network learns from the soft labels of a teacher on all training images, with labels and without.

Chen et al. 2020 (SimCLRv2), https://arxiv.org/abs/2006.10029, section 2; teacher and student see the same view, mixed
images included (Beyer et al. 2022, arXiv 2106.05237).
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from softedge.backbones import Classifier, normalise
from softedge.config import Recipe
from softedge.data.images import UNLABELLED, Images
from softedge.eval.crops import Crops
from softedge.eval.optimising import optimise


def distillation(logits: Tensor, teacher: Tensor, labels: Tensor, *, alpha: float, temperature: float) -> Tensor:
    """Cross-entropy with the teacher on all images, and with the labels on those that have one.

        L = -(1-α)/N Σ_{i labelled} log p_S(y_i | x_i) - α/N Σ_i Σ_y p_T(y | x_i; τ) log p_S(y | x_i; τ)

    Chen et al. 2020, eq. (2) is α = 1 and eq. (3) the rest; p(y | x; τ) = softmax_y(logits / τ).  N: of the batch.
    logits: (N, C) of the student.  teacher: p_T(y | x; τ), (N, C).  labels: (N,), ``UNLABELLED`` where there is none.
    """
    soft = -(teacher * functional.log_softmax(logits / temperature, 1)).sum(1).mean()
    hard = functional.cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="sum") / len(logits)
    return (1 - alpha) * hard + alpha * soft


class Teacher(Protocol):
    """What answers for the views of a batch."""

    def __call__(self, views: Tensor, indices: Tensor, temperature: float) -> Tensor:
        """Probabilities (B, C) at ``temperature`` for uint8 or float views (B, S, S, 3) of images ``indices`` (B,)."""
        ...


class Answers:
    """A teacher that has answered once for every image: probabilities (N, C)."""

    def __init__(self, probabilities: NDArray[np.floating]):
        self.logits = torch.from_numpy(np.log(np.maximum(probabilities, 1e-12))).float()

    def __call__(self, views: Tensor, indices: Tensor, temperature: float) -> Tensor:
        return (self.logits[indices.cpu()] / temperature).softmax(1).to(views.device)


class ViewClassifier:
    """A classifier that answers for every view, at its own size and with its own normalisation."""

    def __init__(self, classifier: Classifier):
        self.classifier = classifier.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, views: Tensor, indices: Tensor, temperature: float) -> Tensor:
        spec = self.classifier.spec
        self.classifier.to(views.device)
        if views.shape[1] != spec.size:
            planes = views.permute(0, 3, 1, 2).float()
            planes = functional.interpolate(planes, (spec.size, spec.size), mode="bilinear", antialias=True)
            views = planes.permute(0, 2, 3, 1).contiguous()
        return (self.classifier(normalise(views, spec)).float() / temperature).softmax(1)


def teach(
    student: Classifier,
    images: Images,
    teacher: Teacher,
    recipe: Recipe,
    *,
    checkpoint: Path | None = None,
    show: bool = False,
) -> list[float]:
    """Train ``student`` in place, in eval mode afterwards; the loss of every step.

    images: with labels and without; the teacher's indices are theirs.  Settings come from ``recipe.distill`` and the
    flip from ``recipe.augment``.  checkpoint: resume from it where it exists.
    """
    settings, spec = recipe.distill, student.spec
    torch.manual_seed(recipe.seed)
    labels = torch.from_numpy(np.asarray(images.labels, np.int64))
    numbered = images.subset(np.arange(len(images)))
    numbered.labels = np.arange(len(images))  # a batch says which images are in it
    crops = Crops(
        numbered,
        spec,
        settings.batch,
        recipe.seed,
        min_area=settings.min_area,
        flip=recipe.augment.flip,
        workers=max(0, recipe.data.workers),
    )
    rng = np.random.default_rng([recipe.seed, 2])
    weights = {"alpha": settings.alpha, "temperature": settings.temperature}

    def loss(classifier: Classifier, views: Tensor, indices: Tensor) -> Tensor:
        known = labels.to(indices.device)[indices]
        if settings.mixup <= 0:
            wanted = teacher(views, indices, settings.temperature)
            return distillation(classifier(normalise(views, spec)), wanted, known, **weights)
        share = float(rng.beta(settings.mixup, settings.mixup))
        order = torch.from_numpy(rng.permutation(len(views))).to(views.device)
        mixed = views.float().mul(share).add_(views[order].float(), alpha=1 - share)
        if isinstance(teacher, Answers):  # it has never seen a mixed image
            wanted = teacher(views, indices, settings.temperature)
            wanted = share * wanted + (1 - share) * wanted[order]
        else:
            wanted = teacher(mixed, indices, settings.temperature)
        logits = classifier(normalise(mixed, spec))
        first, second = (distillation(logits, wanted, part, **weights) for part in (known, known[order]))
        return share * first + (1 - share) * second

    return optimise(
        student,
        crops,
        loss,
        settings,
        rng,
        shown="distill" if show else "",
        checkpoint=checkpoint,
        cores=recipe.plan.threads,
    )
