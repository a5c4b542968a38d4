"""Contrastive losses against a queue of keys. Functions only: the queue and the schedules live in the method."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LARGE = 1 << 22  # logits (batch x queue): above this the one-pass form saves more memory traffic than it costs


def soft_nce(query: Tensor, key: Tensor, queue: Tensor, *, temperature: float, alpha: float, weights: Tensor) -> Tensor:
    """InfoNCE whose target also gives mass to the hardest negatives in the queue.

        L = -1/N Σ_i [ α log p_i(key) + Σ_k β_k log p_i(k-th nearest queue entry) ],   α + Σ_k β_k = 1

    where p_i is the softmax of z_i · z' / τ over the positive and all Q queue entries.
    Lin et al. 2022, https://arxiv.org/abs/2212.07158, eq. (2). α = 1 is MoCo's InfoNCE.

    query, key: (N, C) unit length, gradient through query only.  queue: (Q, C) unit length, float32 or bfloat16.
    weights: (K,) = β, K ≤ Q.  Returns a scalar, the mean over the batch.
    Large products N x Q go through ``one_pass.one_pass_soft_nce``: same value and gradient, 1/25 of the memory.
    """
    if len(weights) > len(queue):
        raise ValueError(f"{len(weights)} neighbours asked of a queue of {len(queue)} keys")
    if query.shape[0] * queue.shape[0] >= LARGE:
        from softedge.ssl.one_pass import one_pass_soft_nce

        return one_pass_soft_nce(query, key, queue, temperature=temperature, alpha=alpha, weights=weights)
    return plain_soft_nce(query, key, queue, temperature=temperature, alpha=alpha, weights=weights)


def plain_soft_nce(
    query: Tensor, key: Tensor, queue: Tensor, *, temperature: float, alpha: float, weights: Tensor
) -> Tensor:
    """``soft_nce`` with the (N, 1 + Q) logits in memory: eq. (2) as it is written."""
    with torch.autocast(query.device.type, enabled=False):
        query = query.to(torch.promote_types(query.dtype, torch.float32))
        positive = (query * key.detach().to(query.dtype)).sum(1, keepdim=True)
        negatives = query @ queue.detach().to(query.dtype).T
        log_p = F.log_softmax(torch.cat([positive, negatives], 1) / temperature, dim=1)
        nearest = log_p[:, 1:].topk(len(weights), dim=1).values  # log_softmax keeps the order of similarities
        return -(alpha * log_p[:, 0] + (nearest * weights.to(nearest)).sum(1)).mean()


def info_nce(query: Tensor, key: Tensor, queue: Tensor, *, temperature: float) -> Tensor:
    """MoCo's loss, L = -1/N Σ_i log p_i(key): He et al. 2020, https://arxiv.org/abs/1911.05722, eq. (1).

    Shapes as in ``soft_nce``, of which it is the case α = 1 without neighbours.
    """
    return soft_nce(query, key, queue, temperature=temperature, alpha=1.0, weights=query.new_zeros(0))


def linear_decay(k: int, alpha: float) -> Tensor:
    """β_k = 2 (K - k) / ((K - 1) K) · (1 - α), k = 1 … K: the paper's default. (K,) float32, its sum is 1 - α.

    The K-th neighbour gets nothing, as the formula says. The code released with the paper uses a step pattern instead.
    """
    if k < 2:
        raise ValueError(f"the linear pattern needs at least 2 neighbours, found {k}")
    return torch.arange(k - 1, -1, -1, dtype=torch.float32) * (2 * (1 - alpha) / ((k - 1) * k))


def average(k: int, alpha: float) -> Tensor:
    """β_k = (1 - α) / K for every neighbour. (K,) float32."""
    if k < 1:
        raise ValueError(f"the average pattern needs at least 1 neighbour, found {k}")
    return torch.full((k,), (1 - alpha) / k)
