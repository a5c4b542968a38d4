"""SimMoCo: MoCo without its dictionary, by means of a second temperature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from softedge import distributed
from softedge.backbones import Backbone
from softedge.config import Pretraining
from softedge.recipes.section import Fraction
from softedge.ssl.dual_temperature import dual_temperature
from softedge.ssl.method import Embedder, reproducible
from softedge.ssl.target import Target, WithTarget


class SimMoCo(WithTarget):
    """Zhang et al. 2022, https://arxiv.org/abs/2203.17248: queries against the momentum encoder's keys of the batch.

    The keys are those of all ranks (the released code keeps to those of a rank).
    """

    class Settings(Pretraining):
        method: Literal["simmoco"] = "simmoco"
        temperature: float = Field(default=0.1, gt=0.0)  # τ_α, within an anchor
        inter_temperature: float = Field(default=1.0, gt=0.0)  # τ_β, between anchors
        momentum: Fraction = 0.99  # of the key encoder
        momentum_cosine: bool = False  # raise the momentum to 1 along a cosine
        symmetric: bool = False  # both views are query and key in turn, the losses averaged

    def __init__(self, settings: Settings, backbone: Backbone, seed: int):
        super().__init__()
        self.settings = settings
        with reproducible(seed + 1):
            self.encoder = Embedder(backbone, settings.projector, settings.projector_norm)
        self.target = Target(self.encoder, settings.momentum, settings.momentum_cosine)

    def forward(self, views: Sequence[Tensor], index: Tensor) -> Tensor:
        first, second = views
        keys = self.target(second)
        pairs = [(first, keys)] + ([(second, self.target(first))] if self.settings.symmetric else [])
        self.clock.lap("keys")
        queries = [self.encoder(view) for view, _ in pairs]
        self.clock.lap("queries")
        each = [self.contrast(query, key) for query, (_, key) in zip(queries, pairs)]
        self.latest = queries[0].detach(), keys
        self.clock.lap("loss")
        return torch.stack(each).mean()

    def contrast(self, query: Tensor, key: Tensor) -> Tensor:
        """The loss of one direction: (N, C) and (N, C) -> scalar."""
        own = distributed.rank() * len(query) + torch.arange(len(query), device=query.device)
        return dual_temperature(
            query,
            distributed.gather(key),
            own,
            temperature=self.settings.temperature,
            inter_temperature=self.settings.inter_temperature,
        )
