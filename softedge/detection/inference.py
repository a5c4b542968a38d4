"""A detector run over scenes, and what it says read off torchvision's outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from softedge.detection import pictures
from softedge.detection.detections import Detections
from softedge.detection.masks import encode
from softedge.detection.scenes import Scenes
from softedge.progress import track


@torch.inference_mode()
def detect(model: nn.Module, scenes: Scenes, what: str = "detect") -> list[Detections]:
    """Run a detector over every scene, one at a time, in eval mode; the mode is given back as it was."""
    place, was_training = next(model.parameters()).device, model.training
    model.eval()
    answers = []
    try:
        for scene in track(scenes.scenes, what):
            (output,) = model([pictures.planes(scene).to(place)])
            answers.append(to_detections({k: v.cpu() for k, v in output.items()}))
    finally:
        model.train(was_training)
    return answers


def to_detections(output: dict[str, Tensor]) -> Detections:
    """torchvision's output for one image; label 1 is class 0, a mask is where its probability is above a half."""
    masks: tuple[dict[str, Any], ...] = ()
    if "masks" in output:
        maps = (output["masks"][:, 0] > 0.5).numpy().astype(np.uint8)
        masks = tuple(encode(one) for one in maps)
    return Detections(
        output["boxes"].float().numpy(),
        output["scores"].float().numpy(),
        output["labels"].numpy().astype(np.int64) - 1,
        masks,
    )
