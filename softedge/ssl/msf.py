"""MSF: pull an image not to its own other view alone but to the nearest neighbours of that view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from softedge import distributed
from softedge.backbones import Backbone
from softedge.config import Recipe
from softedge.data.images import Images
from softedge.recipes.section import Positive, Widths
from softedge.ssl import sizing
from softedge.ssl.queue import KeyQueue
from softedge.ssl.target import Predicting


def mean_shift(query: Tensor, target: Tensor, bank: Tensor, *, neighbors: int) -> Tensor:
    """Squared distance of the query to the entries of the bank that are nearest to the target.

        L = 1/N Σ_i 1/k Σ_{z ∈ NN_k(u_i)} (2 - 2 v_i · z)

    Koohpayegani et al. 2021, https://arxiv.org/abs/2105.07269, section 3. k = 1 with the target in the bank is BYOL.
    query, target: (N, C), bank: (Q, C), unit length, gradient through query only.
    """
    with torch.autocast(query.device.type, enabled=False):
        bank = bank.detach()
        nearest = (target.detach() @ bank.T).topk(min(neighbors, len(bank)), dim=1).indices
        return (2 - 2 * (query @ bank.T).gather(1, nearest)).mean()


class MSF(Predicting):
    """Mean shift for self-supervised learning: Koohpayegani et al. 2021, https://arxiv.org/abs/2105.07269.

    The targets enter the bank before the loss: a target is its own first neighbour. The bank holds at most as many
    targets as there are images, and only what was really enqueued (the released code starts with random vectors).
    Both views are drawn alike (the paper's better variant augments the target weakly).
    """

    class Settings(Predicting.Settings):
        method: Literal["msf"] = "msf"
        projector: Widths = (4096, 512)
        queue: Positive = 1_024_000  # targets among which the nearest are sought; at most as many as there are images
        neighbors: Positive = 5  # k, the image's own target included

    settings: Settings

    def __init__(self, settings: Settings, backbone: Backbone, queue: int, seed: int):
        super().__init__(settings, backbone, seed)
        self.queue = KeyQueue(queue, settings.projector[-1])

    @classmethod
    def build(cls, recipe: Recipe, backbone: Backbone, images: Images) -> Self:
        settings = recipe.ssl
        assert isinstance(settings, cls.Settings)
        return cls(settings, backbone, sizing.bank_size(settings.queue, settings.batch, len(images)), recipe.seed)

    def shared_state(self) -> list[Tensor]:
        return [*super().shared_state(), self.queue.keys]

    def forward(self, views: Sequence[Tensor], index: Tensor) -> Tensor:
        first, second = views
        target = F.normalize(self.target(second))
        self.queue.enqueue(distributed.gather(target))
        self.clock.lap("keys")
        query = F.normalize(self.predictor(self.encoder(first)).float())
        self.clock.lap("queries")
        loss = mean_shift(query, target, self.queue.negatives(), neighbors=self.settings.neighbors)
        self.latest = query.detach(), target
        self.clock.lap("loss")
        return loss

    def measures(self) -> dict[str, float]:
        return {**super().measures(), "queue_fill": len(self.queue) / self.queue.size}
