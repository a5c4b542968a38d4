"""k-means for prototypes, on the device that holds the points, and how concentrated each cluster is."""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK = 1 << 26  # distances in memory at a time


@torch.no_grad()
def kmeans(points: Tensor, k: int, generator: torch.Generator, iterations: int = 20) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm from k random points: centroids (k, C) and the assignment int64 (N,) of points (N, C), N ≥ k.

    A cluster that loses all its points starts again at the point that is farthest from its centroid.
    generator: on the CPU. 20 iterations are what PCL's released code asks of faiss (which starts 5 times; here once).
    """
    if len(points) < k:
        raise ValueError(f"{k} clusters asked of {len(points)} points")
    centroids = points[torch.randperm(len(points), generator=generator)[:k].to(points.device)].clone()
    assignment, distance = nearest(points, centroids)
    for _ in range(iterations):
        counts = torch.bincount(assignment, minlength=k)
        sums = torch.zeros_like(centroids).index_add_(0, assignment, points)
        centroids = sums / counts.clamp(min=1)[:, None]
        empty = (counts == 0).nonzero()[:, 0]
        centroids[empty] = points[distance.topk(len(empty)).indices]
        before = assignment
        assignment, distance = nearest(points, centroids)
        if torch.equal(before, assignment) and not len(empty):
            break
    return centroids, assignment


def nearest(points: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """For each of (N, C) points the nearest of (K, C) centroids: int64 (N,) and the Euclidean distance (N,)."""
    where = []
    for part in points.split(max(1, _CHUNK // len(centroids))):
        # ‖x - c‖² without ‖x‖², which does not change the order.
        where.append((centroids.square().sum(1) - 2 * part @ centroids.T).argmin(1))
    indices = torch.cat(where)
    return indices, (points - centroids[indices]).norm(dim=1)


def concentration(distance: Tensor, assignment: Tensor, k: int, temperature: float, smooth: float = 10.0) -> Tensor:
    """How loosely the Z points of a cluster lie around its centroid, (k,): the temperature of its prototype.

        φ = Σ_z ‖v_z - c‖ / (Z log(Z + α))

    Li et al. 2021, https://arxiv.org/abs/2005.04966, eq. (12), α = 10; then, as in the released code: clusters of one
    point get the largest φ, the lowest and highest tenth are clipped, and the mean is scaled to ``temperature``.
    """
    counts = torch.bincount(assignment, minlength=k)
    sums = torch.zeros(k, dtype=distance.dtype, device=distance.device).index_add_(0, assignment, distance)
    phi = sums / (counts.clamp(min=1) * (counts + smooth).log())
    phi = torch.where(counts > 1, phi, phi[counts > 1].max() if bool((counts > 1).any()) else 0.0)
    phi = phi.clamp(torch.quantile(phi, 0.1), torch.quantile(phi, 0.9))
    if not bool((phi > 0).all()):  # points that coincide with their centroids: nothing to scale
        return torch.full_like(phi, temperature)
    return phi * (temperature / phi.mean())
