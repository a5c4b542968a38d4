"""Quality of the representation during training: measures without labels, and k-NN where there are labels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from softedge.config import Recipe
from softedge.data.images import Data, Uint8
from softedge.records import InputSpec

_HELD_OUT = 0.2  # of the labelled training images, for k-NN during training; the test split is not touched
_MOST_BYTES = 256 << 20  # of prepared images kept in memory for it
_MOST_IMAGES = 20_000


@torch.no_grad()
def measures(embeddings: Tensor, partners: Tensor) -> dict[str, float]:
    """Label-free measures of unit-length embeddings (N, C) and of other views of the same images (N, C).

    std: mean standard deviation of a coordinate × √C: 1 when spread over the sphere, 0 when collapsed (arXiv
    2011.10566).  effective_rank: exp of the entropy of the normalised singular values (Roy & Vetterli 2007), 1 … C.
    alignment: E ‖z − z'‖², 0 is perfect; uniformity: log E exp(−2 ‖z_i − z_j‖²), lower is better (arXiv 2005.10242).
    """
    z, partner = embeddings.float(), partners.float()
    if not torch.isfinite(z).all():
        return {}  # the loss says so too, and the guard stops
    values = torch.linalg.svdvals(z - z.mean(0))
    share = values / values.sum().clamp(min=1e-12)
    uniformity = torch.pdist(z).square().mul(-2).exp().mean().log() if len(z) > 1 else torch.zeros(())
    return {
        "std": float(z.std(0, correction=0).mean() * math.sqrt(z.shape[1])),
        "effective_rank": float(torch.exp(-(share * share.clamp(min=1e-12).log()).sum())),
        "alignment": float((z - partner).square().sum(1).mean()),
        "uniformity": float(uniformity),
    }


@dataclass(frozen=True)
class Knn:
    """Weighted k-NN within the labelled training images: a held-out part is classified by the rest."""

    bank: Uint8
    bank_labels: NDArray[np.int64]
    held_out: Uint8
    held_out_labels: NDArray[np.int64]
    classes: int
    spec: InputSpec
    k: int
    temperature: float

    @classmethod
    def build(cls, recipe: Recipe, data: Data) -> Knn | None:
        """None when there are fewer than two classes or ten labelled images."""
        labelled = len(data.train)
        if len(data.classes) < 2 or labelled < 10:
            return None
        most = min(_MOST_IMAGES, _MOST_BYTES // (3 * data.spec.size**2), labelled)
        order = np.random.default_rng(recipe.seed).permutation(labelled)[:most]
        cut = max(1, round(most * _HELD_OUT))
        held_out, bank = data.train.subset(order[:cut]), data.train.subset(order[cut:])
        return cls(
            bank.prepared(data.spec),
            bank.labels,
            held_out.prepared(data.spec),
            held_out.labels,
            len(data.classes),
            data.spec,
            recipe.knn.k,
            recipe.knn.temperature,
        )

    def top1(self, backbone: nn.Module) -> float:
        """Accuracy of the held-out part, a fraction."""
        from softedge.eval.features import extract
        from softedge.eval.knn import knn_predict

        bank, held_out = (extract(backbone, images, self.spec) for images in (self.bank, self.held_out))
        votes = knn_predict(bank, self.bank_labels, held_out, self.classes, self.k, self.temperature)
        return float((votes.argmax(1) == self.held_out_labels).mean())
