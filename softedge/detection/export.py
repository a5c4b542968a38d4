"""Detectors as ONNX and OpenVINO files: one uint8 picture in, boxes out, resizing, normalisation and NMS in the graph.

Contract of the file (``contract.json`` beside it has the same in JSON):
    image   uint8 RGB [1, H, W, 3], any size
    boxes   float32 [n, 4], x1 y1 x2 y2 in pixels of that image;  scores float32 [n], best first within a class
    labels  int64 [n] into ``labels``;  masks float32 [n, H, W], probability of each pixel (Mask R-CNN only)
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from softedge import backbones, config
from softedge.detection import models as detection_models
from softedge.detection import precisions as detector_precisions
from softedge.detection.batches import picture, to_detections
from softedge.detection.coco_ap import Detections
from softedge.detection.formats import OPENVINO
from softedge.detection.objects import Scenes
from softedge.detection.precisions import Pictures
from softedge.detection.replay import RUNNERS, Outputs, Uint8, agreement
from softedge.detection.settings import Transfer
from softedge.errors import UserError
from softedge.export.base import open_format
from softedge.export.contract import FILE, SCHEMA, model_files, model_sha256
from softedge.export.quiet import quiet
from softedge.records import InputSpec
from softedge.run import atomic_path, size_bytes, write_json

NAMES = ("boxes", "scores", "labels", "masks")
PRECISIONS = ("fp32", "fp16", "int8")
_PARITY = {"fp32": 0.99, "fp16": 0.9}  # of PyTorch's detections; int8 is judged by its average precision
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
        found = (output["boxes"], output["scores"], output["labels"] - 1)
        return (*found, output["masks"][:, 0]) if self.masks else found

    @torch.inference_mode()
    def run(self, image: Uint8) -> Outputs:
        """One picture (H, W, 3), in PyTorch: what every exported file is compared with."""
        return dict(zip(self.names, (x.numpy() for x in self(torch.from_numpy(image[None].copy())))))


def load(folder: Path) -> DeployedDetector:
    """Rebuild the detector of a transfer stage's folder."""
    path = Path(folder) / "detector.safetensors"
    about = backbones.describe(path)
    if about.get("kind") != "detector":
        raise UserError(f"{path} is not a detector; run: softedge transfer RUN --task voc --data DIR")
    backbone = backbones.build(config.Backbone(**about["backbone"]))
    settings, spec = Transfer(**about["transfer"]), InputSpec.from_dict(about["spec"])
    classes = tuple(about["classes"])
    model = detection_models.build(
        backbone, about["head"], len(classes), about["masks"], settings, spec, settings.short_sides
    )
    state, own = backbones.read_state(path), detection_models.without_shared(model)
    if state.keys() != own.keys():
        odd = sorted(state.keys() ^ own.keys())
        raise UserError(
            f"{path} does not fit this version of softedge: {len(odd)} tensors differ, the first is {odd[0]}"
        )
    model.load_state_dict(state, strict=False)
    return DeployedDetector(model, classes, about["masks"], spec)


def export(
    detector: DeployedDetector,
    target: str,
    out: Path,
    scenes: Scenes,
    golden: int = 2,
    *,
    precision: str = "fp32",
    calibration: Pictures | None = None,
) -> Path:
    """Write ``model.onnx`` or ``model.xml`` + ``.bin``, golden pictures and ``contract.json`` into ``out``.

    The file is read back and compared with PyTorch on the first ``golden`` scenes; UserError when detections are lost.
    calibration: pictures without labels, which int8 needs.
    """
    if target not in RUNNERS:
        raise UserError(
            f"a detector cannot be exported to '{target}'; known: {', '.join(RUNNERS)} (the others have no NMS or no "
            "inputs of any size)"
        )
    if precision not in PRECISIONS:
        raise UserError(f"a detector has no precision '{precision}'; known: {', '.join(PRECISIONS)}")
    if precision == "int8" and calibration is None:
        raise UserError("an int8 detector needs pictures to calibrate on, found none")
    out.mkdir(parents=True, exist_ok=True)
    images = [pixels(picture(scene)) for scene in scenes.scenes[:golden]]
    path = out / f"model{open_format(target).suffix}"
    with tempfile.TemporaryDirectory(prefix=".model-", dir=out) as folder:
        made = convert(detector, target, precision, images[0], calibration, Path(folder))
        for file in reversed(model_files(made, target)):  # the .xml, which is looked for, last
            os.replace(file, out / file.name)
    runner = RUNNERS[target](path)
    parity = []
    arrays: dict[str, NDArray[Any]] = {}
    for number, image in enumerate(images):
        found, reference = runner(image), detector.run(image)
        parity.append(agreement(found, reference))
        arrays |= {f"{number}.image": image, **{f"{number}.{name}": value for name, value in found.items()}}
    if min(parity) < _PARITY.get(precision, 0.0):
        raise UserError(
            f"{path.name}: only {100 * min(parity):.1f}% of PyTorch's detections are in the {target} {precision} file's"
        )
    with atomic_path(out / "golden.npz") as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    _write_contract(out, path, (target, precision), detector, min(parity), len(images))
    return path


def convert(
    detector: DeployedDetector, target: str, precision: str, image: Uint8, calibration: Pictures | None, out: Path
) -> Path:
    """Write the bare model file into ``out``; ``image`` is what the graph is traced with."""
    source = out / "traced.onnx"
    _to_onnx(detector, image, source)
    if target == OPENVINO:
        return _to_openvino(source, out / "model.xml", detector.labels, precision, calibration)
    path = out / "model.onnx"
    if precision == "int8" and calibration is not None:
        detector_precisions.int8_onnx(source, path, calibration)
    else:
        os.replace(source, path)
    _finish(path, detector.labels, precision)
    return path


def _write_contract(
    out: Path, path: Path, kind: tuple[str, str], detector: DeployedDetector, parity: float, n: int
) -> None:
    where = "x1 y1 x2 y2 in pixels of the input image"
    outputs = [
        {"name": "boxes", "dtype": "float32", "shape": ["n", 4], "meaning": where},
        {"name": "scores", "dtype": "float32", "shape": ["n"]},
        {"name": "labels", "dtype": "int64", "shape": ["n"], "meaning": "index into labels"},
        {"name": "masks", "dtype": "float32", "shape": ["n", "H", "W"], "meaning": "probability of each pixel"},
    ]
    values = {
        "schema": SCHEMA,
        "kind": "detector",
        "target": kind[0],
        "precision": kind[1],
        "model": path.name,
        "files": [file.name for file in model_files(path, kind[0])],
        "sha256": model_sha256(path, kind[0]),
        "size_bytes": sum(size_bytes(file) for file in model_files(path, kind[0])),
        "input": {"name": "image", "dtype": "uint8", "layout": "NHWC", "color": "RGB", "shape": [1, "H", "W", 3]},
        "before_the_model": "nothing: resizing, scaling, mean and std are inside the model, and so is NMS",
        "preprocessing": detector.spec.to_dict(),
        "outputs": outputs[: len(detector.names)],
        "labels": list(detector.labels),
        "golden": {"file": "golden.npz", "images": n},
        "parity": {"agreement": parity, "with": "PyTorch fp32", "rule": " ".join((agreement.__doc__ or "").split())},
    }
    write_json(out / FILE, values)


def pixels(image: Tensor) -> Uint8:
    return np.ascontiguousarray((image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())


def _to_onnx(detector: DeployedDetector, image: Uint8, path: Path) -> None:
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


def _finish(path: Path, labels: tuple[str, ...], precision: str) -> None:
    """Put labels and precision into an ONNX file, and halve its weights for fp16."""
    import onnx

    model = onnx.load(path)
    if precision == "fp16":
        model = detector_precisions.half_weights(model)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {"softedge.labels": json.dumps(list(labels)), "softedge.precision": precision})
    model.producer_name = "softedge"
    onnx.save(model, path)


def _to_openvino(
    source: Path, path: Path, labels: tuple[str, ...], precision: str, calibration: Pictures | None
) -> Path:
    with quiet():
        import openvino as ov

        network = ov.convert_model(source)
        if precision == "int8" and calibration is not None:
            network = detector_precisions.int8_openvino(network, calibration)
        network.set_rt_info(json.dumps(list(labels)), ["softedge", "labels"])
        network.set_rt_info(precision, ["softedge", "precision"])
        ov.save_model(network, path, compress_to_fp16=precision == "fp16")
    return path


def detections(outputs: Outputs) -> Detections:
    """What a file says, in the form that average precision is computed from."""
    tensors = {name: torch.from_numpy(np.asarray(value)) for name, value in outputs.items()}
    tensors["labels"] = tensors["labels"] + 1
    if "masks" in tensors:
        tensors["masks"] = tensors["masks"][:, None]
    return to_detections(tensors)
