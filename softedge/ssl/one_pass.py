"""SoftNCE in one pass over the queue: loss, exact top-K and gradient without the batch x queue logits.

The gradient by the query is (E_p[z'] - α z_key - Σ_k β_k z_k) / τ, and E_p[z'] is what attention computes. So the
online softmax of flash attention (Dao et al. 2022, https://arxiv.org/abs/2205.14135) gives loss and gradient together.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

CHUNK = {"cpu": 8192, "cuda": 32768}  # queue entries at a time: in cache on a CPU, few launches on a GPU
GROUPS = 64  # the top-K looks at maxima of this many entries first


def one_pass_soft_nce(
    query: Tensor, key: Tensor, queue: Tensor, *, temperature: float, alpha: float, weights: Tensor, chunk: int = 0
) -> Tensor:
    """``losses.soft_nce`` for large queues; same arguments. The gradient is computed in the forward pass.

    float32 queue: agrees with float64 to about 1e-6. bfloat16 queue: products in bfloat16, sums and the final
    ranking of the neighbours in float32 (bfloat16 similarities tie too often to rank 20 neighbours).
    """
    with torch.autocast(query.device.type, enabled=False):
        chunk = chunk or CHUNK.get(query.device.type, 8192)
        return _OnePass.apply(query, key.detach(), queue.detach(), temperature, alpha, weights, chunk)


class _OnePass(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        queue: Tensor,
        temperature: float,
        alpha: float,
        weights: Tensor,
        chunk: int,
    ) -> Tensor:
        wide = torch.promote_types(query.dtype, torch.float32)
        z, positive_key, weights = query.to(wide), key.to(wide), weights.to(query.device, wide)
        narrow = queue.dtype if queue.dtype == torch.bfloat16 else wide
        neighbors = len(weights)
        positive = (z * positive_key).sum(1) / temperature
        if _kernel_wanted(z, queue):
            maximum, total, mean_key, where = _by_kernel(z, positive, positive_key, queue, temperature, neighbors)
        else:
            # Twice the neighbours survive the coarse ranking of a bfloat16 queue; the exact one follows below.
            keep = min(len(queue), 2 * neighbors if narrow == torch.bfloat16 else neighbors)
            scaled = (z / temperature).to(narrow)
            maximum, total, mean_key, where = _by_chunks(scaled, positive, positive_key, queue, keep, chunk)

        target = alpha * positive_key
        similarity = alpha * positive
        if neighbors:
            near = queue[where].to(wide)
            exact, order = (torch.einsum("nc,nkc->nk", z, near) / temperature).topk(neighbors, dim=1)
            near = near.gather(1, order[:, :, None].expand(-1, -1, near.shape[2]))
            target = target + torch.einsum("k,nkc->nc", weights, near)
            similarity = similarity + exact @ weights
        mass = alpha + weights.sum()  # 1 up to rounding; a tensor, since a number would have to wait for a GPU
        loss = (mass * (maximum + total.log()) - similarity).mean()
        gradient = mean_key.div_(total[:, None]).mul_(mass).sub_(target).mul_(1 / (temperature * len(z)))
        ctx.save_for_backward(gradient.to(query.dtype))
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return ctx.saved_tensors[0] * grad, None, None, None, None, None, None


def _by_chunks(
    scaled: Tensor, positive: Tensor, positive_key: Tensor, queue: Tensor, keep: int, chunk: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The softmax over positive and queue, and where the ``keep`` nearest keys are, a chunk of the queue at a time.

    scaled: query / τ in the dtype of the products.  Returns the logits' maximum (N,), the sum of exp(logit - maximum)
    (N,), the sum of keys weighted by that (N, C), and places (N, keep).
    """
    wide, narrow = positive_key.dtype, scaled.dtype
    # The running softmax starts with the positive alone: maximum, sum of exponentials, weighted sum of keys.
    maximum, total, mean_key = positive.clone(), torch.ones_like(positive), positive_key.clone()
    best = positive.new_empty(len(positive), 0)
    where = torch.empty(len(positive), 0, dtype=torch.long, device=positive.device)
    for start in range(0, len(queue), chunk):
        keys = queue[start : start + chunk].to(narrow)
        logits = scaled @ keys.T
        values, indices = _top(logits, keep)
        if values.shape[1] and start:
            values, indices = torch.cat([best, values.to(wide)], 1), torch.cat([where, indices + start], 1)
            values, order = values.topk(min(keep, values.shape[1]), dim=1)
            indices = indices.gather(1, order)
        best, where = values.to(wide), indices
        new_maximum = torch.maximum(maximum, best[:, 0] if keep else logits.amax(1).to(wide))
        p = logits.sub_(new_maximum[:, None].to(narrow)).exp_()
        shrink = (maximum - new_maximum).exp()
        total = total * shrink + p.sum(1, dtype=wide)
        mean_key.mul_(shrink[:, None])
        if narrow == wide:
            mean_key.addmm_(p, keys)
        else:
            mean_key.add_((p @ keys).to(wide))
        maximum = new_maximum
    return maximum, total, mean_key, where


def _kernel_wanted(query: Tensor, queue: Tensor) -> bool:
    """Whether the Triton kernel was asked for and takes these tensors."""
    if os.environ.get("SOFTEDGE_KERNELS") != "triton" or not len(queue):
        return False
    try:
        from softedge.ssl import triton_pass
    except ImportError:
        return False
    return triton_pass.fits(query, queue)


def _by_kernel(
    query: Tensor, positive: Tensor, positive_key: Tensor, queue: Tensor, temperature: float, keep: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``_by_chunks`` with the Triton kernel; ``query`` (N, C) is not divided by τ."""
    from softedge.ssl import triton_pass

    highest, sums, weighted, _, where = triton_pass.scan(query, queue, temperature, keep)
    maximum = torch.maximum(highest, positive)
    of_queue, own = (highest - maximum).exp(), (positive - maximum).exp()
    total = sums * of_queue + own
    return maximum, total, weighted * of_queue[:, None] + positive_key * own[:, None], where


def _top(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row, values and columns, descending; fewer when there are fewer columns.

    The k columns with the largest maxima over strided groups of ``GROUPS`` entries hold the k largest entries, and a
    maximum is much cheaper than a top-k.
    """
    rows, columns = logits.shape
    stride = columns // GROUPS
    if columns % GROUPS or stride <= k:
        return logits.topk(min(k, columns), dim=1)
    groups = logits.view(rows, GROUPS, stride).amax(1).topk(k, dim=1).indices
    steps = torch.arange(GROUPS, device=logits.device) * stride
    candidates = (groups[:, :, None] + steps).flatten(1)
    values, order = logits.gather(1, candidates).topk(k, dim=1)
    return values, candidates.gather(1, order)
