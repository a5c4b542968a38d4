"""BYOL: predict what a slowly moving copy of the network says about the other view; no negatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from softedge.recipes.section import Fraction
from softedge.ssl.target import Predicting


def regression(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared distance of unit vectors, ‖q̄ - z̄'‖² = 2 - 2 cos(q, z'), mean over the batch.

    Grill et al. 2020, https://arxiv.org/abs/2006.07733, eq. (2).
    prediction, target: (N, C) of any length, gradient through prediction only.
    """
    return (2 - 2 * F.cosine_similarity(prediction.float(), target.detach().float())).mean()


class BYOL(Predicting):
    """Bootstrap your own latent: Grill et al. 2020, https://arxiv.org/abs/2006.07733.

    The loss is the SUM of both directions, as in the paper. BatchNorm's statistics are those of the rank (the paper
    aggregates them over all devices), and both views are drawn alike (the paper blurs one less and solarizes it).
    """

    class Settings(Predicting.Settings):
        method: Literal["byol"] = "byol"
        momentum: Fraction = 0.99  # of the target network: 0.996 for 1,000 epochs, 0.99 for 300
        momentum_cosine: bool = True  # raise the momentum to 1 along a cosine

    def forward(self, views: Sequence[Tensor], index: Tensor) -> Tensor:
        first, second = views
        target_first, target_second = self.target(first), self.target(second)
        self.clock.lap("keys")
        projection_first, projection_second = self.encoder(first), self.encoder(second)
        predictions = self.predictor(projection_first), self.predictor(projection_second)
        self.clock.lap("queries")
        loss = regression(predictions[0], target_second) + regression(predictions[1], target_first)
        self.latest = F.normalize(projection_first.detach()), F.normalize(projection_second.detach())
        self.clock.lap("loss")
        return loss
