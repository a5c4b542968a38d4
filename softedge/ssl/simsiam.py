"""SimSiam: predict what the network itself says about the other view; neither negatives nor a momentum encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from softedge.backbones import Backbone
from softedge.config import Pretraining
from softedge.recipes.section import Positive, Widths
from softedge.ssl.method import Embedder, OneEncoder, projector, reproducible


def negative_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """D(p, stopgrad(z)) = -cos(p, z), mean over the batch; -1 is the best there is.

    Chen & He 2021, https://arxiv.org/abs/2011.10566, eq. (1) and (3).
    prediction, target: (N, C) of any length, gradient through prediction only.
    """
    return -F.cosine_similarity(prediction.float(), target.detach().float()).mean()


class SimSiam(OneEncoder):
    """Exploring simple Siamese representation learning: Chen & He 2021, https://arxiv.org/abs/2011.10566, algorithm 1.

    The last layer of the projector has BatchNorm too, without scale and shift, as in the released code. Everything
    follows one learning rate (the released code keeps the predictor's constant), and BatchNorm's statistics are those
    of the rank (theirs are aggregated over all devices).
    """

    class Settings(Pretraining):
        method: Literal["simsiam"] = "simsiam"
        projector: Widths = (2048, 2048, 2048)
        projector_norm: bool = True  # of the predictor as well
        predictor: Positive = 512  # its hidden width

    def __init__(self, settings: Settings, backbone: Backbone, seed: int):
        super().__init__()
        self.settings = settings
        width, norm = settings.projector[-1], settings.projector_norm
        with reproducible(seed + 1):
            self.encoder = Embedder(backbone, settings.projector, norm, unit=False)
            if norm:
                self.encoder.projector.append(nn.BatchNorm1d(width, affine=False))
            self.predictor = projector(width, (settings.predictor, width), norm)

    def networks(self) -> list[nn.Module]:
        return [*super().networks(), self.predictor]

    def forward(self, views: Sequence[Tensor], index: Tensor) -> Tensor:
        first, second = (self.encoder(view) for view in views)
        predictions = self.predictor(first), self.predictor(second)
        self.clock.lap("queries")
        loss = negative_cosine(predictions[0], second) / 2 + negative_cosine(predictions[1], first) / 2
        self.latest = F.normalize(first.detach()), F.normalize(second.detach())
        self.clock.lap("loss")
        return loss
