"""Frozen features: what k-NN, the linear probe and the report work on."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from softedge.backbones import normalise
from softedge.data.images import Images, Uint8
from softedge.records import InputSpec


@torch.inference_mode()
def extract(
    model: nn.Module, images: Images | Uint8, spec: InputSpec, batch: int = 256, device: str | None = None
) -> NDArray[np.float32]:
    """Run ``model`` over all images in eval mode.

    model: (N, 3, S, S) normalised float -> (N, D), a backbone (features) or a classifier (logits); its training mode
    and device are given back as they were.  images: ``Images`` or uint8 (N, S, S, 3).  Returns float32 (N, D).
    """
    place = torch.device(device) if device else next(model.parameters()).device
    was_training = model.training
    model.eval()
    rows: list[NDArray[np.float32]] = []
    try:
        for start in range(0, len(images), batch):
            if isinstance(images, Images):
                part = images.subset(np.arange(start, min(start + batch, len(images)))).prepared(spec)
            else:
                part = images[start : start + batch]
            inputs = normalise(torch.from_numpy(np.ascontiguousarray(part)).to(place), spec)
            rows.append(cast(torch.Tensor, model(inputs)).float().cpu().numpy())
    finally:
        model.train(was_training)
    return np.concatenate(rows) if rows else np.empty((0, 0), np.float32)
