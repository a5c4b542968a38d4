"""A trained detector as it is deployed: one uint8 picture in, boxes out; resizing, normalisation and NMS inside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from softedge import backbones, config
from softedge.detection import models
from softedge.detection.contract import NAMES
from softedge.detection.detections import Detections
from softedge.detection.folder import WEIGHTS
from softedge.detection.format import Outputs, Uint8
from softedge.detection.inference import to_detections
from softedge.detection.settings import Transfer
from softedge.errors import UserError
from softedge.export.quiet import quiet
from softedge.records import InputSpec

_OPSET = 17


class DeployedDetector(nn.Module):
    """uint8 RGB (1, H, W, 3) -> boxes, scores, labels and, where it has them, masks."""

    def __init__(self, model: nn.Module, labels: tuple[str, ...], masks: bool, spec: InputSpec):
        super().__init__()
        self.model, self.labels, self.masks, self.spec = model, labels, masks, spec
        self.names = NAMES if masks else NAMES[:3]
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        output = self.model([image[0].permute(2, 0, 1).to(torch.float32) / 255])[0]
        boxes = (output["boxes"], output["scores"], output["labels"] - 1)
        return (*boxes, output["masks"][:, 0]) if self.masks else boxes

    @torch.inference_mode()
    def run(self, image: Uint8) -> Outputs:
        """One picture (H, W, 3), in PyTorch: what every exported file is compared with."""
        return dict(zip(self.names, (x.numpy() for x in self(torch.from_numpy(image[None].copy())))))


def load(folder: Path) -> DeployedDetector:
    """Rebuild the detector of a transfer stage's folder."""
    path = Path(folder) / WEIGHTS
    about = backbones.describe(path)
    if about.get("kind") != "detector":
        raise UserError(f"{path} is not a detector; run: softedge transfer RUN --task voc --data DIR")
    if missing := [key for key in ("transfer", "classes", "head", "masks") if key not in about]:
        raise UserError(f"{path} cannot be read as weights (its description has no {missing[0]})")
    backbone = backbones.build(config.Backbone(**about["backbone"]))
    settings, spec = Transfer(**about["transfer"]), InputSpec.from_dict(about["spec"])
    classes = tuple(about["classes"])
    model = models.build(backbone, about["head"], len(classes), about["masks"], settings, spec, settings.short_sides)
    state, own = backbones.read_state(path), models.without_shared(model)
    if state.keys() != own.keys():
        odd = sorted(state.keys() ^ own.keys())
        raise UserError(
            f"{path} does not fit this version of softedge: {len(odd)} tensors differ, the first is {odd[0]}"
        )
    model.load_state_dict(state, strict=False)
    return DeployedDetector(model, classes, about["masks"], spec)


def trace(detector: DeployedDetector, image: Uint8, path: Path) -> None:
    """Write a float32 ONNX file that takes pictures of any size; ``image`` is what it is traced with."""
    dynamic = {"image": {1: "H", 2: "W"}, "boxes": {0: "n"}, "scores": {0: "n"}, "labels": {0: "n"}}
    if detector.masks:
        dynamic["masks"] = {0: "n", 1: "H", 2: "W"}
    with quiet(), torch.no_grad():
        # The tracer's loops over sizes and classes suit torchvision's detectors; torch.export refuses them.
        torch.onnx.export(
            detector,
            (torch.from_numpy(image[None].copy()),),
            str(path),
            dynamo=False,
            opset_version=_OPSET,
            input_names=["image"],
            output_names=list(detector.names),
            dynamic_axes=dynamic,
        )


def detections(outputs: Outputs) -> Detections:
    """What a file says, in the form that average precision is computed from."""
    tensors = {name: torch.from_numpy(np.asarray(value)) for name, value in outputs.items()}
    tensors["labels"] = tensors["labels"] + 1
    if "masks" in tensors:
        tensors["masks"] = tensors["masks"][:, None]
    return to_detections(tensors)
