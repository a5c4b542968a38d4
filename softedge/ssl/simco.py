"""SimCo: MoCo without dictionary and without momentum encoder, by means of a second temperature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from softedge import distributed
from softedge.backbones import Backbone
from softedge.config import Pretraining
from softedge.ssl.dual_temperature import dual_temperature
from softedge.ssl.method import Embedder, OneEncoder, reproducible


class SimCo(OneEncoder):
    """Zhang et al. 2022, https://arxiv.org/abs/2203.17248: one encoder, both views query and key in turn.

    The keys are the other views of the batch (of all ranks; the released code keeps to those of a rank), and the
    gradient passes through them too. The loss is the mean of both directions.
    """

    class Settings(Pretraining):
        method: Literal["simco"] = "simco"
        temperature: float = Field(default=0.1, gt=0.0)  # τ_α, within an anchor
        inter_temperature: float = Field(default=1.0, gt=0.0)  # τ_β, between anchors
        joint_views: bool = False  # both views in one pass and one BatchNorm batch; faster for small batches

    def __init__(self, settings: Settings, backbone: Backbone, seed: int):
        super().__init__()
        self.settings = settings
        with reproducible(seed + 1):
            self.encoder = Embedder(backbone, settings.projector, settings.projector_norm)

    def forward(self, views: Sequence[Tensor], index: Tensor) -> Tensor:
        first, second = self._embeddings(views)
        self.clock.lap("queries")
        own = distributed.rank() * len(first) + torch.arange(len(first), device=first.device)
        both = [
            dual_temperature(
                query,
                distributed.gather_with_gradient(key),
                own,
                temperature=self.settings.temperature,
                inter_temperature=self.settings.inter_temperature,
            )
            for query, key in ((first, second), (second, first))
        ]
        self.latest = first.detach(), second.detach()
        self.clock.lap("loss")
        return torch.stack(both).mean()

    def _embeddings(self, views: Sequence[Tensor]) -> tuple[Tensor, ...]:
        if self.settings.joint_views:
            return self.encoder(torch.cat(list(views))).chunk(2)
        return tuple(self.encoder(view) for view in views)
