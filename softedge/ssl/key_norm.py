"""How keys are normalised, so that BatchNorm does not give the positive away.

Query and key of an image pass through BatchNorm in the same batch; the negatives in the queue came from others. A
network can learn to recognise its own batch by its statistics and solve the task without looking at the image (He et
al. 2020, arXiv 1911.05722, section 3.3). ``tests/ssl/test_key_norm.py`` shows the leak and each remedy.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from softedge import distributed

Way = Literal["shuffle", "split", "ema", "batch"]


def resolve(asked: str, world: int) -> Way:
    """``auto``: shuffle across ranks where there are several, else split (shuffling does nothing on one device)."""
    if asked == "auto":
        return "shuffle" if world > 1 else "split"
    return asked  # type: ignore[return-value]


@torch.no_grad()
def encode(encoder: nn.Module, images: Tensor, way: Way, groups: int, generator: torch.Generator) -> Tensor:
    """Keys (N, C) of ``images`` (N, 3, H, W), in the order of the images.

    shuffle: ShuffleBN. Each rank encodes a random share of the images of all ranks.
    split: the batch is cut into ``groups`` random groups, each with statistics of its own.
    ema: running statistics that follow the query encoder's (EMAN, Cai et al. 2021, arXiv 2101.08482): no batch at all.
    batch: nothing is done; it leaks.
    generator: on the CPU, in the same state on every rank.
    """
    if way == "ema":
        encoder.eval()
        return encoder(images)
    encoder.train()
    if way == "batch" or (way == "shuffle" and distributed.world() == 1):
        return encoder(images)
    if way == "split":
        order = torch.randperm(len(images), generator=generator).to(images.device, non_blocking=True)
        keys = torch.cat([encoder(part) for part in images[order].chunk(groups)])
        return torch.empty_like(keys).index_copy_(0, order, keys)
    everything = distributed.gather(images)
    order = torch.randperm(len(everything), generator=generator).to(images.device, non_blocking=True)
    mine = order.chunk(distributed.world())[distributed.rank()]
    keys = distributed.gather(encoder(everything[mine]))
    keys = torch.empty_like(keys).index_copy_(0, order, keys)
    return keys.chunk(distributed.world())[distributed.rank()]


@torch.no_grad()
def follow(key_encoder: nn.Module, encoder: nn.Module, momentum: float, way: Way) -> None:
    """θ_k ← m θ_k + (1 - m) θ_q for all weights at once; with ``ema`` for the running statistics as well."""
    ours, theirs = list(key_encoder.parameters()), list(encoder.parameters())
    if way == "ema":
        ours += [b for b in key_encoder.buffers() if b.is_floating_point()]  # type: ignore[misc]
        theirs += [b for b in encoder.buffers() if b.is_floating_point()]  # type: ignore[misc]
    torch._foreach_lerp_([t.data for t in ours], [t.data for t in theirs], 1 - momentum)
