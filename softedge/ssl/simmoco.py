"""SimMoCo: MoCo without its dictionary, by means of a second temperature."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from softedge import config, distributed
from softedge.backbones import Backbone
from softedge.data.images import Images
from softedge.ssl.dual_temperature import dual_temperature
from softedge.ssl.method import Embedder, Method, reproducible
from softedge.ssl.target import Target


class SimMoCo(Method):
    """Zhang et al. 2022, https://arxiv.org/abs/2203.17248: queries against the momentum encoder's keys of the batch.

    The keys are those of all ranks (the released code keeps to those of a rank).
    """

    def __init__(self, settings: config.SimMoCo, backbone: Backbone, seed: int):
        super().__init__()
        self.settings = settings
        with reproducible(seed + 1):
            self.encoder = Embedder(backbone, settings.projector, settings.projector_norm)
        self.target = Target(self.encoder, settings.momentum, settings.momentum_cosine)

    @classmethod
    def build(cls, recipe: config.Recipe, backbone: Backbone, images: Images) -> Self:
        assert isinstance(recipe.ssl, config.SimMoCo)
        return cls(recipe.ssl, backbone, recipe.seed)

    @property
    def backbone(self) -> Backbone:
        return self.encoder.backbone

    def networks(self) -> list[nn.Module]:
        return [self.encoder, self.target.network]

    def forward(self, views: tuple[Tensor, Tensor], index: Tensor) -> Tensor:
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

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        self.target.follow(self.encoder, progress)

    def measures(self) -> dict[str, float]:
        return {"momentum": self.target.momentum}
