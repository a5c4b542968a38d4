"""Detectors as ONNX and OpenVINO files: one uint8 picture in, boxes out, resizing, normalisation and NMS in the graph.

Contract of the file (``contract.json`` beside it has the same in JSON):
    image   uint8 RGB [1, H, W, 3], any size
    boxes   float32 [n, 4], x1 y1 x2 y2 in pixels of that image;  scores float32 [n], best first within a class
    labels  int64 [n] into ``labels``;  masks float32 [n, H, W], probability of each pixel (Mask R-CNN only)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from softedge import backbones, config
from softedge.data.objects import Scenes
from softedge.errors import UserError
from softedge.eval import detection_models
from softedge.eval.coco_ap import Detections
from softedge.eval.detection_data import picture, to_detections
from softedge.export.contract import model_files, model_sha256
from softedge.export.quiet import quiet
from softedge.records import InputSpec
from softedge.run import atomic_path, read_json, size_bytes, write_json

Uint8 = NDArray[np.uint8]
Outputs = dict[str, NDArray[Any]]
Runner = Callable[[Uint8], Outputs]
NAMES = ("boxes", "scores", "labels", "masks")
_OPSET = 17


class DeployedDetector(nn.Module):
    """uint8 RGB (1, H, W, 3) -> boxes, scores, labels and, where it has them, masks."""

    def __init__(self, model: nn.Module, labels: tuple[str, ...], masks: bool):
        super().__init__()
        self.model, self.labels, self.masks = model, labels, masks
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
    settings, spec = config.Transfer(**about["transfer"]), InputSpec.from_dict(about["spec"])
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
    return DeployedDetector(model, classes, about["masks"])


def export(detector: DeployedDetector, target: str, out: Path, scenes: Scenes, golden: int = 2) -> Path:
    """Write ``model.onnx`` or ``model.xml`` + ``.bin`` (fp32), golden pictures and ``contract.json`` into ``out``.

    The file is read back and compared with PyTorch on the first ``golden`` scenes; UserError when detections are lost.
    """
    if target not in RUNNERS:
        raise UserError(f"a detector cannot be exported to '{target}'; known: {', '.join(RUNNERS)}")
    out.mkdir(parents=True, exist_ok=True)
    images = [_pixels(picture(scene)) for scene in scenes.scenes[:golden]]
    path = out / ("model.onnx" if target == "onnx" else "model.xml")
    onnx_path = out / "model.onnx"
    _to_onnx(detector, images[0], onnx_path)
    if target == "openvino":
        _to_openvino(onnx_path, path, detector.labels)
        onnx_path.unlink()
    runner = RUNNERS[target](path)
    parity = []
    arrays: dict[str, NDArray[Any]] = {}
    for number, image in enumerate(images):
        found, reference = runner(image), detector.run(image)
        parity.append(agreement(found, reference))
        arrays |= {f"{number}.image": image, **{f"{number}.{name}": value for name, value in found.items()}}
    if min(parity) < 0.99:
        raise UserError(
            f"{path.name}: only {100 * min(parity):.1f}% of PyTorch's detections are in the {target} file's"
        )
    with atomic_path(out / "golden.npz") as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    _write_contract(out, path, target, detector, min(parity), len(images))
    return path


def _write_contract(out: Path, path: Path, target: str, detector: DeployedDetector, parity: float, n: int) -> None:
    pixels = "x1 y1 x2 y2 in pixels of the input image"
    outputs = [
        {"name": "boxes", "dtype": "float32", "shape": ["n", 4], "meaning": pixels},
        {"name": "scores", "dtype": "float32", "shape": ["n"]},
        {"name": "labels", "dtype": "int64", "shape": ["n"], "meaning": "index into labels"},
        {"name": "masks", "dtype": "float32", "shape": ["n", "H", "W"], "meaning": "probability of each pixel"},
    ]
    values = {
        "schema": 1,
        "kind": "detector",
        "target": target,
        "precision": "fp32",
        "model": path.name,
        "files": [file.name for file in model_files(path)],
        "sha256": model_sha256(path),
        "size_bytes": sum(size_bytes(file) for file in model_files(path)),
        "input": {"name": "image", "dtype": "uint8", "layout": "NHWC", "color": "RGB", "shape": [1, "H", "W", 3]},
        "before_the_model": "nothing: resizing, scaling, mean and std are inside the model, and so is NMS",
        "outputs": outputs[: len(detector.names)],
        "labels": list(detector.labels),
        "golden": {"file": "golden.npz", "images": n},
        "parity": {"agreement": parity, "with": "PyTorch fp32", "rule": " ".join((agreement.__doc__ or "").split())},
    }
    write_json(out / "contract.json", values)


def _pixels(image: Tensor) -> Uint8:
    return np.ascontiguousarray((image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())


def _to_onnx(detector: DeployedDetector, image: Uint8, path: Path) -> None:
    import onnx

    dynamic = {"image": {1: "H", 2: "W"}, "boxes": {0: "n"}, "scores": {0: "n"}, "labels": {0: "n"}}
    if detector.masks:
        dynamic["masks"] = {0: "n", 1: "H", 2: "W"}
    with atomic_path(path) as temporary:
        with quiet(), torch.no_grad():
            # The tracer's loops over sizes and classes suit torchvision's detectors; torch.export refuses them.
            torch.onnx.export(
                detector,
                (torch.from_numpy(image[None].copy()),),
                str(temporary),
                dynamo=False,
                opset_version=_OPSET,
                input_names=["image"],
                output_names=list(detector.names),
                dynamic_axes=dynamic,
            )
        model = onnx.load(temporary)
        onnx.helper.set_model_props(model, {"softedge.labels": json.dumps(list(detector.labels))})
        model.producer_name = "softedge"
        onnx.save(model, temporary)


def _to_openvino(source: Path, path: Path, labels: Sequence[str]) -> None:
    with quiet():
        import openvino as ov

        network = ov.convert_model(source)
        network.set_rt_info(json.dumps(list(labels)), ["softedge", "labels"])
        ov.save_model(network, path, compress_to_fp16=False)


def run_onnx(path: Path, threads: int = 1) -> Runner:
    """The file read back with onnxruntime: one picture (H, W, 3) -> outputs by name."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, threads
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda image: dict(zip(names, session.run(None, {"image": image[None]})))


def run_openvino(path: Path, threads: int = 1) -> Runner:
    """The file read back with OpenVINO in float32: one picture (H, W, 3) -> outputs by name."""
    import openvino as ov

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    compiled = ov.Core().compile_model(path, "CPU", settings)
    names = [output.any_name for output in compiled.outputs]
    return lambda image: dict(zip(names, (np.array(value) for value in compiled([image[None]]).values())))


RUNNERS: dict[str, Callable[[Path], Runner]] = {"onnx": run_onnx, "openvino": run_openvino}


def agreement(found: Outputs, reference: Outputs, above: float = 0.05) -> float:
    """Share of the reference's detections with a score above 0.05 that are found: same label, score within 0.01, every
    side within a pixel. Below it lie hundreds of near ties, of which the limit of 100 keeps one or the other.
    """
    reference = {name: value[reference["scores"] > above] for name, value in reference.items()}
    if not len(reference["scores"]):
        return 1.0
    near = (
        (reference["labels"][:, None] == found["labels"][None])
        & (np.abs(reference["scores"][:, None] - found["scores"][None]) < 0.01)
        & (np.abs(reference["boxes"][:, None] - found["boxes"][None]).max(-1, initial=0.0) < 1.0)
    )
    return float(near.any(1).mean())


def detections(outputs: Outputs) -> Detections:
    """What a file says, in the form that average precision is computed from."""
    tensors = {name: torch.from_numpy(np.asarray(value)) for name, value in outputs.items()}
    tensors["labels"] = tensors["labels"] + 1
    if "masks" in tensors:
        tensors["masks"] = tensors["masks"][:, None]
    return to_detections(tensors)


def verify(folder: Path) -> float:
    """Replay the golden pictures of an export folder; the share of the expected detections that came again."""
    contract = read_json(folder / "contract.json")
    path = folder / contract["model"]
    if model_sha256(path) != contract["sha256"]:
        raise UserError(f"{path} was changed after the export; export the detector again")
    runner = RUNNERS[contract["target"]](path)
    with np.load(folder / contract["golden"]["file"], allow_pickle=False) as golden:
        shares = []
        for number in range(contract["golden"]["images"]):
            expected = {o["name"]: golden[f"{number}.{o['name']}"] for o in contract["outputs"]}
            shares.append(agreement(runner(golden[f"{number}.image"]), expected))
    return min(shares)
