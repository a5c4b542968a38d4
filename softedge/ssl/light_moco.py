"""MoCo-v2 and Light-MoCo: the same method with InfoNCE or SoftNCE, in the order of the papers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from softedge import distributed
from softedge.backbones import Backbone
from softedge.config import Pretraining, Recipe
from softedge.data.images import Images
from softedge.errors import UserError
from softedge.recipes.section import Fraction, Positive
from softedge.ssl import key_norm, losses, sizing
from softedge.ssl.method import Embedder, OneEncoder, reproducible
from softedge.ssl.queue import KeyQueue
from softedge.ssl.schedule import cosine


class MoCoV2(OneEncoder):
    """Momentum contrast with an MLP head: Chen et al. 2020, https://arxiv.org/abs/2003.04297.

    What the papers leave open, and what is done here:
    - symmetric loss: the MEAN of both directions (the code released with Light-MoCo adds them up, which doubles the
      learning rate); keys of both views enter the queue.
    - keys are enqueued after the update, those of all micro-batches and ranks together and in the order of the global
      batch: a key is never its own negative, and accumulation or more ranks change nothing.
    - the first step has no negatives yet: its loss and gradient are zero (see ``queue.KeyQueue``).
    """

    class Settings(Pretraining):
        method: Literal["moco-v2"] = "moco-v2"
        queue: Positive = 65536
        temperature: float = Field(default=0.2, gt=0.0)
        momentum: Fraction = 0.999  # of the key encoder
        momentum_cosine: bool = False  # raise the momentum to 1 along a cosine
        symmetric: bool = False  # both views are query and key in turn, the losses averaged
        key_norm: Literal["auto", "shuffle", "split", "ema", "batch"] = (
            "auto"  # keeps BatchNorm from leaking: ssl/key_norm.py
        )
        key_norm_groups: Positive = 4  # groups of the split statistics
        queue_dtype: Literal["fp32", "bf16"] = "fp32"
        joint_views: bool = False  # symmetric: both views in one pass and one BatchNorm batch; faster for small batches

        def queue_length(self) -> int:
            return self.queue

        def keys_per_step(self) -> int:
            return self.batch * (2 if self.symmetric else 1)

        def key_groups(self, world: int) -> int:
            return self.key_norm_groups if key_norm.resolve(self.key_norm, world) == "split" else 1

    settings: Settings

    def __init__(self, settings: Settings, backbone: Backbone, queue: int, seed: int):
        super().__init__()
        self.settings, self.seed = settings, seed
        with reproducible(seed + 1):
            self.encoder = Embedder(backbone, settings.projector, settings.projector_norm)
        self.key_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        dtype = torch.bfloat16 if settings.queue_dtype == "bf16" else torch.float32
        self.queue = KeyQueue(queue, settings.projector[-1], dtype)
        self.key_norm = key_norm.resolve(settings.key_norm, distributed.world())
        self.momentum = settings.momentum
        self.steps: Tensor
        self.progress: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))
        self._step, self._calls, self._progress = 0, 0, 0.0
        self._waiting: list[
            tuple[Tensor, ...]
        ] = []  # keys of this step, one entry per micro-batch; empty between steps

    @classmethod
    def build(cls, recipe: Recipe, backbone: Backbone, images: Images) -> Self:
        settings = recipe.ssl
        assert isinstance(settings, cls.Settings)
        return cls(settings, backbone, sizing.queue_size(recipe, len(images)), recipe.seed)

    def networks(self) -> list[nn.Module]:
        return [*super().networks(), self.key_encoder]

    def shared_state(self) -> list[Tensor]:
        return [*super().shared_state(), self.queue.keys]

    def forward(self, views: Sequence[Tensor], index: Tensor) -> Tensor:
        to_query = list(views) if self.settings.symmetric else [views[0]]
        to_key = [views[1], views[0]] if self.settings.symmetric else [views[1]]
        if self.settings.joint_views:
            to_query, to_key = [torch.cat(to_query)], [torch.cat(to_key)]
        keys = [part for batch in to_key for part in self._keys(batch).split(len(index))]
        self.clock.lap("keys")
        queries = [part for batch in to_query for part in self.encoder(batch).split(len(index))]
        self.clock.lap("queries")
        each = [self.contrast(query, key) for query, key in zip(queries, keys)]
        loss = torch.stack(each).mean()
        self._waiting.append(tuple(keys))
        self.latest = queries[0].detach(), keys[0]
        self.clock.lap("loss")
        return loss

    def contrast(self, query: Tensor, key: Tensor) -> Tensor:
        """The loss of one direction: (N, C) and (N, C) -> scalar."""
        negatives = self.queue.negatives()
        if not len(negatives):
            return (query * 0).sum()
        return losses.info_nce(query, key, negatives, temperature=self.settings.temperature)

    def _keys(self, images: Tensor) -> Tensor:
        # A generator of its own for every call, made from the step: resuming needs no random state.
        self._calls += 1
        seed = np.random.SeedSequence((self.seed, self._step, self._calls)).generate_state(1)[0]
        generator = torch.Generator().manual_seed(int(seed))
        return key_norm.encode(self.key_encoder, images, self.key_norm, self.settings.key_norm_groups, generator)

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Let the key encoder follow, then enqueue the keys of the step that is over."""
        if self.settings.momentum_cosine:
            self.momentum = cosine(self.settings.momentum, 1.0, progress)
        key_norm.follow(self.key_encoder, self.encoder, self.momentum, self.key_norm)
        for direction in zip(*self._waiting):
            self.queue.enqueue(distributed.gather(torch.cat(direction)))
        self._waiting.clear()
        self._step, self._calls = self._step + 1, 0
        self.steps.fill_(self._step)
        self._progress = progress
        self.progress.fill_(progress)

    def measures(self) -> dict[str, float]:
        return {"momentum": self.momentum, "queue_fill": len(self.queue) / self.queue.size}

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._step, self._progress = int(self.steps), float(self.progress)


class LightMoCo(MoCoV2):
    """MoCo-v2 with the recipe and the loss for small networks: Lin et al. 2022, https://arxiv.org/abs/2212.07158.

    The recipe (projector, temperature, learning rate, momentum, symmetric loss) is settings; the loss is eq. (2).
    Until the queue holds K keys there are no nearest ones to speak of, and the loss is InfoNCE.
    """

    class Settings(MoCoV2.Settings):
        method: Literal["light-moco"] = "light-moco"  # type: ignore[assignment]
        queue: Positive = 262144
        temperature: float = Field(default=0.1, gt=0.0)
        momentum: Fraction = 0.99
        momentum_cosine: bool = True
        symmetric: bool = True
        alpha: Fraction = 0.8  # the positive's share of the target; 1: InfoNCE
        neighbors: Positive = 20  # K, the hardest negatives that share 1 - alpha
        pattern: Literal["linear", "average"] = "linear"
        alpha_schedule: Literal["static", "incremental"] = "static"  # incremental: cosine from 1 down to alpha

    settings: Settings

    def __init__(self, settings: Settings, backbone: Backbone, queue: int, seed: int):
        if settings.pattern == "linear" and settings.neighbors < 2:
            raise UserError(
                f"ssl.neighbors = {settings.neighbors}: the linear pattern needs 2; or --set ssl.pattern=average"
            )
        if queue < settings.neighbors:
            raise UserError(
                f"ssl.neighbors = {settings.neighbors} is more than the queue of {queue} keys; "
                f"use --set ssl.neighbors={max(2, queue // 20)}"
            )
        super().__init__(settings, backbone, queue, seed)

    @property
    def alpha(self) -> float:
        """The positive's share of the target now: static, or falling from 1 along a cosine (section III.B.3)."""
        if self.settings.alpha_schedule == "static":
            return self.settings.alpha
        return cosine(1.0, self.settings.alpha, self._progress)

    def contrast(self, query: Tensor, key: Tensor) -> Tensor:
        settings, negatives, alpha = self.settings, self.queue.negatives(), self.alpha
        if len(negatives) < settings.neighbors or alpha == 1.0:
            return super().contrast(query, key)
        pattern = losses.linear_decay if settings.pattern == "linear" else losses.average
        weights = pattern(settings.neighbors, alpha).to(query.device, non_blocking=True)
        return losses.soft_nce(query, key, negatives, temperature=settings.temperature, alpha=alpha, weights=weights)

    def measures(self) -> dict[str, float]:
        return {**super().measures(), "alpha": self.alpha}
