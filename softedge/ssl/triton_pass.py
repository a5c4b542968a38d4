"""The scan over the queue of ``one_pass`` as one Triton kernel: nothing of size batch x queue but maxima of groups.

Optional (SOFTEDGE_KERNELS=triton, on CUDA). Tested against float64 in Triton's interpreter, which knows no products in
bfloat16, and compiled ahead of time for two generations of GPUs; never run or timed on one.
"""

from __future__ import annotations

import os

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

GROUP = 16  # queue entries per maximum
_ROWS, _ENTRIES = 64, 64  # of a tile of logits
_GATHERED = 1 << 24  # elements of keys gathered at a time for the exact ranking


@triton.jit
def _scan(  # type: ignore[no-untyped-def]
    query,
    queue,
    maxima,
    highest,
    total,
    mean_key,
    n,
    length,
    groups,
    per_part,
    scale,
    width: tl.constexpr,
    rows_: tl.constexpr,
    entries_: tl.constexpr,
    group_: tl.constexpr,
    wide_: tl.constexpr,
):
    """One tile of rows over one part of the queue: group maxima, and the softmax's maximum, sum and mean of keys."""
    rows = tl.program_id(0) * rows_ + tl.arange(0, rows_)
    part = tl.program_id(1)
    columns = tl.arange(0, width)
    here = rows < n
    z = tl.load(query + rows[:, None] * width + columns[None, :], mask=here[:, None], other=0.0)
    if wide_:
        z = z.to(tl.float32)
    high = tl.full((rows_,), float("-inf"), tl.float32)
    sums = tl.zeros((rows_,), tl.float32)
    weighted = tl.zeros((rows_, width), tl.float32)
    for start in range(part * per_part, min((part + 1) * per_part, length), entries_):
        entries = start + tl.arange(0, entries_)
        there = entries < length
        places = entries[:, None].to(tl.int64) * width + columns[None, :]
        keys = tl.load(queue + places, mask=there[:, None], other=0.0)
        if wide_:
            keys = keys.to(tl.float32)
        logits = tl.dot(z, tl.trans(keys), input_precision="ieee").to(tl.float32) * scale
        logits = tl.where(there[None, :], logits, float("-inf"))
        best = tl.max(tl.reshape(logits, (rows_, entries_ // group_, group_)), axis=2)
        at = start // group_ + tl.arange(0, entries_ // group_)
        inside = here[:, None] & (at[None, :] < groups)
        tl.store(maxima + rows[:, None].to(tl.int64) * groups + at[None, :], best, mask=inside)
        higher = tl.maximum(high, tl.max(logits, axis=1))
        p = tl.exp(logits - higher[:, None])
        shrink = tl.exp(high - higher)
        sums = sums * shrink + tl.sum(p, axis=1)
        products = tl.dot(p.to(keys.dtype), keys, input_precision="ieee").to(tl.float32)
        weighted = weighted * shrink[:, None] + products
        high = higher
    tl.store(highest + part * n + rows, high, mask=here)
    tl.store(total + part * n + rows, sums, mask=here)
    tl.store(mean_key + (part * n + rows[:, None]) * width + columns[None, :], weighted, mask=here[:, None])


def fits(query: Tensor, queue: Tensor) -> bool:
    """Whether the kernel takes these: a width that is a power of two, and on a GPU bfloat16 keys.

    With float32 keys it needs more shared memory than most GPUs have, and cuBLAS is there for them.
    """
    width = query.shape[1]
    if query.is_cuda:
        kinds = queue.dtype == torch.bfloat16
    else:
        kinds = os.environ.get("TRITON_INTERPRET") == "1" and queue.dtype in (torch.float32, torch.bfloat16)
    shape = 16 <= width <= 128 and width & (width - 1) == 0
    return shape and kinds and query.dtype == torch.float32 and queue.is_contiguous()


def scan(query: Tensor, queue: Tensor, temperature: float, keep: int, parts: int = 32) -> tuple[Tensor, ...]:
    """The softmax over the queue and the ``keep`` nearest entries, exactly ranked in float32.

    query: (N, C) float32 of unit length, queue: (Q, C).  parts: of the queue, that run at the same time.
    Returns the logits' maximum (N,), the sum of exp(logit - maximum) (N,), the sum of keys weighted by it (N, C), and
    the values and places (N, keep) of the largest logits, descending.
    """
    n, width = query.shape
    length, device = len(queue), query.device
    per_part = -(-length // (parts * _ENTRIES)) * _ENTRIES
    parts = -(-length // per_part)
    groups = -(-length // GROUP)
    maxima = torch.empty(n, groups, device=device)
    highest, total = torch.empty(parts, n, device=device), torch.empty(parts, n, device=device)
    mean_key = torch.empty(parts, n, width, device=device)
    narrow = query.to(queue.dtype).contiguous()
    _scan[(-(-n // _ROWS), parts)](
        narrow,
        queue,
        maxima,
        highest,
        total,
        mean_key,
        n,
        length,
        groups,
        per_part,
        1.0 / temperature,
        width=width,
        rows_=_ROWS,
        entries_=_ENTRIES,
        group_=GROUP,
        wide_=queue.dtype == torch.float32 or not query.is_cuda,  # the interpreter has no products in bfloat16
    )
    maximum = highest.amax(0)
    shrink = (highest - maximum).exp_()
    weighted = (mean_key * shrink[:, :, None]).sum(0)
    # bfloat16 logits may misplace a neighbour that is near to the last one: look at twice as many groups.
    wanted = min(groups, keep if queue.dtype == torch.float32 else 2 * keep)
    chosen = maxima.topk(wanted, dim=1).indices if keep else maxima.new_empty(n, 0, dtype=torch.long)
    values, places = _ranked(query, queue, chosen, temperature, keep)
    return maximum, (total * shrink).sum(0), weighted, values, places


def _ranked(query: Tensor, queue: Tensor, groups: Tensor, temperature: float, keep: int) -> tuple[Tensor, Tensor]:
    """The largest logits among the members of the chosen groups, (N, keep), in float32."""
    members = (groups[:, :, None] * GROUP + torch.arange(GROUP, device=groups.device)).flatten(1)
    missing, members = members >= len(queue), members.clamp(max=len(queue) - 1)
    step = max(1, _GATHERED // max(1, members.shape[1] * queue.shape[1]))
    logits = [
        torch.einsum("nc,nkc->nk", query[at : at + step], queue[members[at : at + step]].float())
        for at in range(0, len(query), step)
    ]
    scores = (torch.cat(logits) / temperature).masked_fill_(missing, -torch.inf)
    values, order = scores.topk(keep, dim=1)
    return values, members.gather(1, order)
