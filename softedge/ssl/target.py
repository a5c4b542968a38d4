"""The slowly moving copy of a network that gives the targets of BYOL, MSF and DINO and the keys of SimMoCo."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from softedge.backbones import Backbone
from softedge.config import Pretraining
from softedge.recipes.section import Fraction, Positive, Widths
from softedge.ssl import key_norm
from softedge.ssl.method import Embedder, OneEncoder, projector, reproducible
from softedge.ssl.schedule import cosine


class Target(nn.Module):
    """ξ ← m ξ + (1 - m) θ after every step (Grill et al. 2020, arXiv 2006.07733, eq. 1). No gradient reaches it.

    Its BatchNorm uses the statistics of the batch, as in the papers: there is no queue of negatives from other batches
    that they could give the positive away against (see ``key_norm``).
    rises: raise m to 1 along a cosine of the training (ibid., section 3.2).
    """

    def __init__(self, network: nn.Module, momentum: float, rises: bool):
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.start, self.momentum, self.rises = momentum, momentum, rises

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def follow(self, network: nn.Module, progress: float) -> None:
        """Move towards ``network``. progress: the share of training that is done."""
        if self.rises:
            self.momentum = cosine(self.start, 1.0, progress)
        key_norm.follow(self.network, network, self.momentum, "batch")


class WithTarget(OneEncoder):
    """A method whose ``target`` follows its encoder."""

    target: Target

    def networks(self) -> list[nn.Module]:
        return [self.encoder, self.target.network]

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        self.target.follow(self.encoder, progress)

    def measures(self) -> dict[str, float]:
        return {"momentum": self.target.momentum}


class Predicting(WithTarget):
    """One whose encoder's output goes through a predictor before it is compared with the target (BYOL, MSF)."""

    class Settings(Pretraining):
        projector: Widths = (4096, 256)
        projector_norm: bool = True  # of the predictor as well
        predictor: Positive = 4096  # its hidden width
        momentum: Fraction = 0.99  # of the target network
        momentum_cosine: bool = False  # raise the momentum to 1 along a cosine

    settings: Settings

    def __init__(self, settings: Settings, backbone: Backbone, seed: int):
        super().__init__()
        self.settings = settings
        width, norm = settings.projector[-1], settings.projector_norm
        with reproducible(seed + 1):
            self.encoder = Embedder(backbone, settings.projector, norm, unit=False)
            self.predictor = projector(width, (settings.predictor, width), norm)
        self.target = Target(self.encoder, settings.momentum, settings.momentum_cosine)

    def networks(self) -> list[nn.Module]:
        return [*super().networks(), self.predictor]
