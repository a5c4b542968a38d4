"""The baseline with labels: how good the backbone gets when all images are labelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from softedge.backbones import Backbone
from softedge.config import Pretraining, Recipe
from softedge.data.draws import View
from softedge.data.images import UNLABELLED, Images
from softedge.errors import UserError
from softedge.recipes.section import Fraction
from softedge.ssl.method import Method, reproducible


class Supervised(Method):
    """Cross-entropy on one view, through the same loop, augmentation and schedules as the other methods."""

    uses_labels = True

    class Settings(Pretraining):
        method: Literal["supervised"] = "supervised"
        label_smoothing: Fraction = 0.1

    def __init__(self, settings: Settings, backbone: Backbone, labels: Tensor, seed: int):
        super().__init__()
        self.settings = settings
        self._backbone = backbone
        with reproducible(seed + 1):
            self.head = nn.Linear(backbone.num_features, int(labels.max()) + 1)
        self.labels: Tensor
        self.register_buffer("labels", labels, persistent=False)  # part of the data, not of the training

    @classmethod
    def build(cls, recipe: Recipe, backbone: Backbone, images: Images) -> Self:
        assert isinstance(recipe.ssl, cls.Settings)
        labels = torch.from_numpy(np.asarray(images.labels, np.int64))
        known = int((labels != UNLABELLED).sum())
        if known == 0:
            raise UserError("ssl.method = 'supervised' needs labelled images, found none; use 'light-moco'")
        return cls(recipe.ssl, backbone, labels, recipe.seed)

    @classmethod
    def views(cls, recipe: Recipe, size: int) -> tuple[View, ...]:
        return (View(size, recipe.augment),)

    @property
    def backbone(self) -> Backbone:
        return self._backbone

    def forward(self, views: Sequence[Tensor], index: Tensor) -> Tensor:
        features = self.backbone(views[0])
        logits = self.head(features).float()
        self.clock.lap("queries")
        labels = self.labels[index.to(self.labels.device)]
        known = (labels != UNLABELLED).sum().clamp(min=1)
        # Unlabelled images count as zero, so that a batch without any label has a loss of 0 instead of 0 / 0.
        loss = F.cross_entropy(
            logits, labels, ignore_index=UNLABELLED, label_smoothing=self.settings.label_smoothing, reduction="sum"
        )
        unit = F.normalize(features.detach().float(), dim=1)
        self.latest = unit, unit
        self.clock.lap("loss")
        return loss / known
