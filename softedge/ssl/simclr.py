"""SimCLR: the other images of the batch are the negatives. Read in the order of the paper, with three heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from softedge import distributed
from softedge.backbones import Backbone
from softedge.config import Pretraining
from softedge.errors import UserError
from softedge.recipes.section import Widths
from softedge.ssl.method import Embedder, OneEncoder, reproducible


def nt_xent(anchors: Tensor, candidates: Tensor, itself: Tensor, partner: Tensor, *, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross-entropy.

        l_i = -log exp(z_i · z_partner(i) / τ) / Σ_{k ≠ i} exp(z_i · z_k / τ),   mean over the anchors i

    Chen et al. 2020, https://arxiv.org/abs/2002.05709, eq. (1); the sum runs over all views of all images.
    anchors: (M, C), candidates: (K, C), both of unit length, gradient through both.  itself, partner: int64 (M,), where
    among the candidates the anchor itself and the other view of its image are.
    """
    with torch.autocast(anchors.device.type, enabled=False):
        logits = anchors @ candidates.T / temperature
        logits = logits.scatter(1, itself[:, None], -torch.inf)
        return F.cross_entropy(logits, partner)


def head(kind: str, inputs: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
    """The projection g: (N, inputs) -> (N, outputs).

    v1: linear, ReLU, linear, each linear layer followed by BatchNorm as in the code released with the paper (the last
    one without a shift).  v2: with two hidden layers (https://arxiv.org/abs/2006.10029, section 2; what is kept here
    is the backbone alone, not the first layer of the head).
    ang: hard-swish, dropout and no BatchNorm (Ang 2022, section 2.6), in the order of MobileNetV3's classifier.
    """
    if kind == "ang":
        return nn.Sequential(nn.Linear(inputs, hidden), nn.Hardswish(), nn.Dropout(dropout), nn.Linear(hidden, outputs))
    layers: list[nn.Module] = []
    for _ in range(1 if kind == "v1" else 2):
        layers += [nn.Linear(inputs, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)]
        inputs = hidden
    last = nn.BatchNorm1d(outputs)
    last.bias.requires_grad_(False)
    return nn.Sequential(*layers, nn.Linear(inputs, outputs, bias=False), last)


class SimCLR(OneEncoder):
    """A simple framework for contrastive learning: Chen et al. 2020, https://arxiv.org/abs/2002.05709, algorithm 1.

    Both views pass through the network in one batch. The images of all ranks are each other's negatives; those of
    other micro-batches (``optim.accumulate``) are not. BatchNorm's statistics are those of the rank (the paper
    aggregates them over all devices).
    """

    class Settings(Pretraining):
        method: Literal["simclr"] = "simclr"
        head: Literal["ang", "v1", "v2"] = "v1"  # v2 has the hidden layer twice; ang has no BatchNorm: ssl/simclr.py
        projector: Widths = (2048, 128)  # hidden width and embedding
        dropout: float = Field(default=0.2, ge=0.0, lt=1.0)  # of the head "ang"
        temperature: float = Field(default=0.1, gt=0.0)

    def __init__(self, settings: Settings, backbone: Backbone, seed: int):
        super().__init__()
        if len(settings.projector) != 2 or settings.projector_norm:
            raise UserError(
                f"ssl.projector = {list(settings.projector)}, projector_norm = {settings.projector_norm}: simclr takes "
                "the hidden and the output width, e.g. [2048, 128], and ssl.head says where BatchNorm is"
            )
        self.settings = settings
        with reproducible(seed + 1):
            self.encoder = Embedder(backbone, settings.projector, norm=False)
            self.encoder.projector = head(
                settings.head, backbone.num_features, *settings.projector, dropout=settings.dropout
            )

    def forward(self, views: Sequence[Tensor], index: Tensor) -> Tensor:
        embeddings = self.encoder(torch.cat(list(views)))
        self.clock.lap("queries")
        first, second = embeddings.chunk(2)
        firsts, seconds = distributed.gather_with_gradient(first), distributed.gather_with_gradient(second)
        here = distributed.rank() * len(first) + torch.arange(len(first), device=first.device)
        there = here + len(firsts)
        loss = nt_xent(
            embeddings,
            torch.cat([firsts, seconds]),
            torch.cat([here, there]),
            torch.cat([there, here]),
            temperature=self.settings.temperature,
        )
        self.latest = first.detach(), second.detach()
        self.clock.lap("loss")
        return loss
