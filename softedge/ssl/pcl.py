"""PCL-v2: MoCo-v2, and beside it a contrast with the prototypes of clusters that are found anew for every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from softedge import distributed
from softedge.backbones import Backbone
from softedge.config import Recipe
from softedge.data.images import Images
from softedge.errors import UserError
from softedge.progress import say
from softedge.recipes.section import Positive
from softedge.ssl import clustering, sizing
from softedge.ssl.light_moco import MoCoV2
from softedge.ssl.method import Embed

_IMAGES_PER_CLUSTER = 12.8  # in the finest clustering: 1.28 million images and 100,000 clusters in the paper


def proto_nce(query: Tensor, prototypes: Tensor, phi: Tensor, own: Tensor, others: Tensor) -> Tensor:
    """The query against its prototype and other ones, each with a temperature of its own.

        L = -1/N Σ_i log exp(v_i · c_own(i) / φ_own(i)) / [ the same + Σ_{j ∈ others, j ≠ own(i)} exp(v_i · c_j / φ_j) ]

    Li et al. 2021, https://arxiv.org/abs/2005.04966, the second term of eq. (11) for one clustering. The released code
    also counts the other images' prototypes as negatives, and an image's own one where another image shares it.
    query: (N, C), prototypes: (K, C), unit length, gradient through query only.  phi: (K,).  own: int64 (N,), the
    query's prototype.  others: int64 (r,), negative prototypes.
    """
    with torch.autocast(query.device.type, enabled=False):
        positive = (query * prototypes[own]).sum(1) / phi[own]
        negative = query @ prototypes[others].T / phi[others]
        negative = negative.masked_fill(others[None] == own[:, None], -torch.inf)
        logits = torch.cat([positive[:, None], negative], 1)
        return F.cross_entropy(logits, torch.zeros_like(own))


class Clusterings(nn.Module):
    """Several clusterings of the N training images: centroids of unit length, φ, and who belongs where."""

    def __init__(self, sizes: Sequence[int], width: int, images: int):
        super().__init__()
        self.sizes = tuple(sizes)
        self.centroids: Tensor
        self.phi: Tensor
        self.assignment: Tensor
        self.fitted: Tensor
        self.register_buffer("centroids", torch.zeros(sum(self.sizes), width))
        self.register_buffer("phi", torch.ones(sum(self.sizes)))
        self.register_buffer("assignment", torch.zeros(len(self.sizes), images, dtype=torch.int64))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self.ready = False  # the same as ``fitted`` on the host

    @torch.no_grad()
    def fit(self, embeddings: Tensor, temperature: float, seed: int) -> None:
        """Cluster (N, C) embeddings of unit length, and give all ranks what rank 0 has found."""
        start = 0
        for row, k in enumerate(self.sizes):
            generator = torch.Generator().manual_seed(seed + row)
            centroids, assignment = clustering.kmeans(embeddings, k, generator)
            distance = (embeddings - centroids[assignment]).norm(dim=1)
            part = slice(start, start + k)
            self.centroids[part] = distributed.of_first_rank(F.normalize(centroids, dim=1))
            self.phi[part] = distributed.of_first_rank(clustering.concentration(distance, assignment, k, temperature))
            self.assignment[row] = distributed.of_first_rank(assignment)
            start += k
        self.fitted.fill_(True)
        self.ready = True

    def loss(self, query: Tensor, index: Tensor, negatives: int, generator: torch.Generator) -> Tensor:
        """Mean ``proto_nce`` over the clusterings.  query: (N, C).  index: int64 (N,), which images."""
        losses = []
        own = self.assignment[:, index.to(self.assignment.device)]
        for row, (centroids, phi) in enumerate(zip(self.centroids.split(self.sizes), self.phi.split(self.sizes))):
            others = torch.randperm(len(phi), generator=generator)[:negatives].to(query.device)
            losses.append(proto_nce(query, centroids, phi, own[row], others))
        return torch.stack(losses).mean()

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.ready = bool(self.fitted)


class PCL(MoCoV2):
    """Prototypical contrastive learning: Li et al. 2021, https://arxiv.org/abs/2005.04966.

        L = InfoNCE + 1/M Σ_m ProtoNCE_m      (eq. 11; M clusterings of different fineness)

    Before each epoch the momentum encoder embeds all images without augmentation, and k-means finds the prototypes.
    The first ``instance_epochs`` train with InfoNCE alone. "v2" is MoCo-v2's head and augmentation.
    """

    class Settings(MoCoV2.Settings):
        method: Literal["pcl-v2"] = "pcl-v2"  # type: ignore[assignment]
        queue: Positive = 16384
        clusters: Annotated[tuple[Positive, ...], Field(min_length=1)] = (
            25_000,
            50_000,
            100_000,
        )  # fewer on few images
        negatives: Positive = 16384  # r, other prototypes in the denominator at most
        instance_epochs: int = Field(default=20, ge=0)  # epochs with InfoNCE alone, before there are prototypes

    settings: Settings

    def __init__(self, settings: Settings, backbone: Backbone, queue: int, seed: int, images: int):
        super().__init__(settings, backbone, queue, seed)
        if settings.instance_epochs >= settings.epochs:
            raise UserError(
                f"ssl.instance_epochs = {settings.instance_epochs} leaves none of the {settings.epochs} epochs to the "
                f"prototypes; use --set ssl.instance_epochs={settings.epochs // 10}"
            )
        self.prototypes = Clusterings(cluster_sizes(settings.clusters, images), settings.projector[-1], images)

    @classmethod
    def build(cls, recipe: Recipe, backbone: Backbone, images: Images) -> Self:
        settings = recipe.ssl
        assert isinstance(settings, cls.Settings)
        method = cls(settings, backbone, sizing.queue_size(recipe, len(images)), recipe.seed, len(images))
        if method.prototypes.sizes != settings.clusters and distributed.rank() == 0:
            say(f"clusters: {method.prototypes.sizes} instead of {settings.clusters}, for {len(images)} images")
        return method

    def shared_state(self) -> list[Tensor]:
        return [*super().shared_state(), self.prototypes.centroids, self.prototypes.phi]

    def before_epoch(self, epoch: int, embed: Embed) -> None:
        if epoch >= self.settings.instance_epochs:
            seed = int(np.random.SeedSequence((self.seed, epoch)).generate_state(1)[0])
            self.prototypes.fit(embed(self.key_encoder), self.settings.temperature, seed)

    def forward(self, views: Sequence[Tensor], index: Tensor) -> Tensor:
        self._index = index
        return super().forward(views, index)

    def contrast(self, query: Tensor, key: Tensor) -> Tensor:
        loss = super().contrast(query, key)
        if not self.prototypes.ready:
            return loss
        seed = np.random.SeedSequence((self.seed, self._step, self._calls, 1)).generate_state(1)[0]
        generator = torch.Generator().manual_seed(int(seed))
        return loss + self.prototypes.loss(query, self._index, self.settings.negatives, generator)

    def measures(self) -> dict[str, float]:
        return {**super().measures(), "objective": float(self.prototypes.ready)}


def cluster_sizes(wanted: Sequence[int], images: int) -> tuple[int, ...]:
    """The recipe's numbers of clusters, all of them less in proportion where the images are too few for them."""
    share = min(1.0, images / _IMAGES_PER_CLUSTER / max(wanted))
    return tuple(min(max(2, round(k * share)), images) for k in wanted)
