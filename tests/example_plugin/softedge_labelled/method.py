"""Pull three views of an image together, the last one small; settings and views of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor

from softedge.backbones import Backbone
from softedge.config import Pretraining, Recipe
from softedge.data.draws import View
from softedge.ssl.method import Embedder, OneEncoder, reproducible


class ThreeViews(OneEncoder):
    class Settings(Pretraining):
        method: Literal["three-views"] = "three-views"
        strength: float = Field(default=1.0, gt=0.0)

    def __init__(self, settings: Settings, backbone: Backbone, seed: int):
        super().__init__()
        self.settings = settings
        with reproducible(seed + 1):
            self.encoder = Embedder(backbone, settings.projector, settings.projector_norm)

    @classmethod
    def views(cls, recipe: Recipe, size: int) -> tuple[View, ...]:
        whole = View(size, recipe.augment)
        return whole, whole, View(size // 2, recipe.augment, max_area=0.5)

    def forward(self, views: Sequence[Tensor], index: Tensor) -> Tensor:
        first, *others = (self.encoder(view) for view in views)
        self.latest = first.detach(), others[0].detach()
        return self.settings.strength * sum(
            ((first - other).square().sum(1).mean() for other in others), start=first.sum() * 0
        )
