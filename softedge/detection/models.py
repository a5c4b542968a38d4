"""A pretrained backbone inside torchvision's detectors: Faster / Mask R-CNN with FPN or C4, and SSDLite for phones."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from softedge.backbones import Backbone
from softedge.detection import rcnn
from softedge.detection.features import features
from softedge.detection.settings import Transfer
from softedge.detection.ssdlite import ssdlite
from softedge.errors import UserError
from softedge.records import InputSpec

Head = Literal["fpn", "c4", "ssdlite"]


def build(
    backbone: Backbone, head: Head, classes: int, masks: bool, settings: Transfer, spec: InputSpec, short_sides: Any
) -> nn.Module:
    """A detector that takes lists of float (3, H, W) in 0..1, with targets while training (torchvision's interface).

    classes: without the background.  masks: add a mask head; SSDLite has none.  All BatchNorms are trained, those of
    the heads too (He et al. 2020, arXiv 1911.05722, section 4.2).
    """
    common: dict[str, Any] = {"num_classes": None, "image_mean": list(spec.mean), "image_std": list(spec.std)}
    if head == "ssdlite":
        if masks:
            raise UserError("the ssdlite head has no masks; use --set transfer.head=fpn, or transfer.masks=false")
        return ssdlite(features(backbone, (3, 4)), classes, short_sides[0], spec)
    sides = {"min_size": tuple(short_sides), "max_size": settings.long_side}
    model = (rcnn.c4 if head == "c4" else rcnn.fpn)(backbone, classes, masks, settings.rois, {**common, **sides})
    # torchvision tests at the last training size; the papers test at 800.
    model.transform = rcnn.Resize(settings.test_short_side, model.transform)
    return model


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """All parameters; those of norm layers without weight decay, as in Detectron2."""
    norms = {
        id(p)
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for p in module.parameters(recurse=False)
    }
    decayed = [p for p in model.parameters() if id(p) not in norms and p.requires_grad]
    plain = [p for p in model.parameters() if id(p) in norms and p.requires_grad]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


@torch.no_grad()
def without_shared(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with each tensor once: the C4 head's last stage serves boxes and masks under two names."""
    seen: set[int] = set()
    state = {}
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen or not tensor.numel():
            seen.add(tensor.data_ptr())
            state[name] = tensor.detach().cpu().contiguous()
    return state
