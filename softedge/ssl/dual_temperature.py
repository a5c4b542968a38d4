"""InfoNCE with two temperatures: the loss of SimCo and SimMoCo, which makes a large dictionary unnecessary."""

from __future__ import annotations

import torch
from torch import Tensor


def dual_temperature(
    query: Tensor, keys: Tensor, positive: Tensor, *, temperature: float, inter_temperature: float
) -> Tensor:
    """InfoNCE within an anchor at τ_α, anchors weighted among each other as if at τ_β.

        L = 1/N Σ_i sg[ (1 - p_i(τ_β)) / (1 - p_i(τ_α)) ] · -log p_i(τ_α),   p_i(τ) = softmax_j(q_i · k_j / τ) at j = i

    1 - p_i scales the gradient of an anchor in InfoNCE, more so the harder the anchor is and the smaller τ; the weight
    (without gradient: sg) replaces it by that of the larger τ_β. τ_β = τ_α is InfoNCE.
    Zhang et al. 2022, https://arxiv.org/abs/2203.17248, as in the code released with the paper.
    query: (N, C), keys: (K, C), unit length, gradient through both.  positive: int64 (N,), each query's own key.
    """
    with torch.autocast(query.device.type, enabled=False):
        similarity = query @ keys.T
        log_p = (similarity / temperature).log_softmax(1).gather(1, positive[:, None])[:, 0]
        with torch.no_grad():
            log_p_inter = (similarity / inter_temperature).log_softmax(1).gather(1, positive[:, None])[:, 0]
            # 1 - p; an anchor that is solved to the last bit must not divide by zero.
            intra = (-log_p.expm1()).clamp(min=torch.finfo(log_p.dtype).eps)
            weight = -log_p_inter.expm1() / intra
        return -(weight * log_p).mean()
