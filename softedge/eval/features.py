"""Frozen features: what k-NN, the linear probe and the report work on."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from softedge.backbones import normalise
from softedge.data.images import Images, Uint8
from softedge.machine.memory import keep_freed
from softedge.records import InputSpec
from softedge.run import atomic_path

_LARGEST_BATCH = 256
_PIXELS = 32 * 224 * 224  # of a batch: with more, its maps leave the caches and a CPU takes two to three times as long


@torch.inference_mode()
def extract(
    model: nn.Module, images: Images | Uint8, spec: InputSpec, batch: int = 0, device: str | None = None
) -> NDArray[np.float32]:
    """Run ``model`` over all images in eval mode.

    model: (N, 3, S, S) normalised float -> (N, D), a backbone (features) or a classifier (logits); its training mode
    and device are given back as they were.  images: ``Images`` or uint8 (N, S, S, 3).  batch: 0 chooses by the pixels.
    Returns float32 (N, D).
    """
    place = torch.device(device) if device else next(model.parameters()).device
    batch = batch or min(_LARGEST_BATCH, max(1, _PIXELS // spec.size**2))
    if place.type == "cpu":
        keep_freed()
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


def save(folder: Path, test: NDArray[np.float32], images: Images, logits: NDArray[np.float32]) -> None:
    """Write ``features.npz``: what the report shows of the test images and of a classifier's answers to them.

    test: features (N, D).  images: the N test images.  logits: (N, classes).  ``test_rows`` (N,) says which images they
    are, among all that the run was made with.
    """
    with atomic_path(folder / "features.npz") as temporary, open(temporary, "wb") as file:
        np.savez(
            file,
            test_features=test,
            test_rows=images.rows_of(np.arange(len(images))),
            test_labels=images.labels,
            test_predictions=logits.argmax(1),
            test_probabilities=softmax(logits),
        )


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities (N, classes) of logits (N, classes)."""
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return cast(NDArray[np.float32], shifted / shifted.sum(1, keepdims=True))
