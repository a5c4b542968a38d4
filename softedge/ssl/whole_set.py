"""What a network makes of all training images, for methods that look at the whole set before an epoch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from softedge import distributed
from softedge.data.images import Images
from softedge.records import InputSpec


def embed(
    network: nn.Module,
    images: Images,
    spec: InputSpec,
    device: torch.device,
    chosen: NDArray[np.int64] | None = None,
) -> Tensor:
    """``network`` on every image, or on those at ``chosen``: float32 (images, C) on ``device``.

    Prepared as at test time, in eval mode. Each rank takes a share; all get the same, in the order of the images.
    """
    from softedge.eval.features import extract

    images = images if chosen is None else images.subset(chosen)
    world, rank = distributed.world(), distributed.rank()
    share = -(-len(images) // world)
    mine = images.subset(np.arange(rank * share, (rank + 1) * share) % len(images))  # the last share wraps around
    # Uncompiled: each batch would be recorded as a further CUDA graph of the same step.
    with torch.compiler.set_stance("force_eager"):
        rows = torch.from_numpy(extract(network, mine, spec, device=str(device))).to(device)
    return distributed.gather(rows)[: len(images)]
