"""Detectors as ONNX and OpenVINO files, read back from disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from softedge import backbones, config
from softedge.detection import models
from softedge.detection.contract import read
from softedge.detection.deployed import DeployedDetector, detections, load
from softedge.detection.export import write
from softedge.detection.formats import FORMATS, open_runner
from softedge.detection.replay import agreement
from softedge.detection.scenes import Scene, Scenes
from softedge.detection.settings import Transfer
from softedge.errors import GateFailed, UserError
from softedge.records import InputSpec
from softedge.stages import verify

SPEC = InputSpec(64, 64, (0.5, 0.4, 0.3), (0.25, 0.2, 0.3))


def pictures(folder: Path, *sizes: tuple[int, int]) -> Scenes:
    rng = np.random.default_rng(0)
    scenes = []
    for number, (height, width) in enumerate(sizes, start=1):
        path = folder / f"{number}.png"
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)
        none = np.zeros(0, np.int64)
        scenes.append(Scene(number, path, width, height, none.reshape(0, 4), none, none, none > 0, none > 0))
    return Scenes(("cell", "7"), tuple(scenes))


def untrained(head: str, masks: bool = False) -> DeployedDetector:
    backbone = backbones.build(config.Backbone(name="mobilenetv3_small_050"))
    settings = Transfer(test_short_side=64)
    torch.manual_seed(0)
    model = models.build(backbone, head, 2, masks, settings, SPEC, (64,)).eval()
    for module in model.modules():  # fresh BatchNorm statistics let the signal die: every box would score the same
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    images = [torch.rand(3, 64, 64) for _ in range(4)]
    target = {"boxes": torch.tensor([[5.0, 5.0, 40.0, 50.0]]), "labels": torch.tensor([1])}
    if masks:
        target["masks"] = torch.ones(1, 64, 64, dtype=torch.uint8)
    with torch.no_grad():
        model.train()(images, [target] * 4)
        if head == "ssdlite":
            for branch in model.head.classification_head.module_list:
                branch[-1].weight.mul_(8)
    if head == "fpn":
        model.rpn._post_nms_top_n["testing"] = 20
        model.roi_heads.score_thresh = 0.0
        model.roi_heads.detections_per_img = 10
    return DeployedDetector(model, ("cell", "7"), masks, SPEC)


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_the_file_gives_pytorchs_boxes_at_any_picture_size(tmp_path, target):
    model = untrained("ssdlite")
    scenes = pictures(tmp_path, (70, 90), (90, 50))
    path = write(model, target, tmp_path / "out", scenes)
    runner = FORMATS[target].run(path)
    for scene in scenes.scenes:
        image = np.asarray(Image.open(scene.path))
        found, reference = runner(image), model.run(image)
        assert found["boxes"].dtype == np.float32 and found["labels"].dtype == np.int64
        assert agreement(found, reference) == 1.0 and (reference["scores"] > 0.05).sum() > 5
        assert found["boxes"].max() <= max(image.shape) and set(found["labels"]) <= {0, 1}
        assert len(detections(found).boxes) == len(reference["boxes"])
    contract = json.loads((tmp_path / "out/contract.json").read_text())
    assert contract["labels"] == ["cell", "7"] and contract["input"]["shape"] == [1, "H", "W", 3]
    replayed = verify.verify(tmp_path / "out")  # what `softedge verify` calls
    assert replayed["passed"] and replayed["agreement"] == 1.0 and replayed["n"] == 2
    (tmp_path / "out" / contract["files"][-1]).write_bytes(b"other")
    with pytest.raises(UserError, match="changed after the export"):
        verify.verify(tmp_path / "out")


def test_golden_detections_that_do_not_come_again_fail_the_gate(tmp_path):
    write(untrained("ssdlite"), "onnx", tmp_path / "out", pictures(tmp_path, (70, 90)))
    golden = tmp_path / "out" / "golden.npz"
    with np.load(golden) as stored:
        arrays = {name: stored[name] for name in stored.files}
    arrays["0.boxes"] = arrays["0.boxes"] + 5
    np.savez(golden, **arrays)
    with pytest.raises(GateFailed, match="of the detections on a golden picture are reproduced"):
        verify.verify(tmp_path / "out")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector")
    write(untrained("ssdlite"), "onnx", folder, pictures(folder, (70, 90)), golden=1)
    return folder


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "int3"},
        {"precision": None},
        {"input": {"dtype": "uint8", "layout": "NCHW", "color": "RGB"}},
        {"preprocessing": {}},
        {"outputs": [{"name": "boxes"}]},
        {"labels": "cell"},
        {"sha256": 1},
        {"model": "../model.onnx"},
        {"golden": {}},
        {"golden": {"file": "golden.npz", "images": 0}},
        {"golden": {"file": "golden.npz", "images": 5}},
        {"golden": {"file": "contract.json", "images": 1}},
        {"golden": {"file": "none.npz", "images": 1}},
    ],
)
def test_a_field_of_a_detectors_contract_that_is_wrong_is_refused(exported, tmp_path, change):
    folder = tmp_path / "detector"
    shutil.copytree(exported, folder)
    values = json.loads((folder / "contract.json").read_text())
    (folder / "contract.json").write_text(json.dumps(values | change))
    with pytest.raises(UserError, match=r"is damaged"):
        verify.verify(folder)
    del values[next(iter(change))]
    (folder / "contract.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"is damaged"):
        verify.verify(folder)


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_fp16_halves_the_file_and_keeps_the_boxes(tmp_path, target):
    model, scenes = untrained("ssdlite"), pictures(tmp_path, (70, 90))
    sizes = {}
    for precision in ("fp32", "fp16"):
        write(model, target, tmp_path / precision, scenes, golden=1, precision=precision)
        sizes[precision] = weights_size(tmp_path / precision)
    artifact = read(tmp_path / "fp16")
    assert artifact.precision == "fp16" and artifact.output == "detections" and artifact.labels == ("cell", "7")
    image = np.asarray(Image.open(scenes.scenes[0].path))
    assert agreement(open_runner(artifact)(image), model.run(image)) > 0.95
    assert sizes["fp16"] < 0.6 * sizes["fp32"]


@pytest.mark.parametrize("target", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_int8_takes_less_than_half_of_the_file_and_moves_the_scores_little(tmp_path, target):
    model, scenes = untrained("ssdlite"), pictures(tmp_path, (70, 90), (64, 64), (80, 64))
    images = [np.asarray(Image.open(scene.path)) for scene in scenes.scenes]
    with pytest.raises(UserError, match="needs pictures to calibrate on"):
        write(model, target, tmp_path / "none", scenes, precision="int8")
    write(model, target, tmp_path / "int8", scenes, golden=1, precision="int8", calibration=lambda: iter(images))
    write(model, target, tmp_path / "fp32", scenes, golden=1)
    assert weights_size(tmp_path / "int8") < 0.5 * weights_size(tmp_path / "fp32")
    found = open_runner(read(tmp_path / "int8"))(images[0])
    reference = model.run(images[0])
    assert abs(found["scores"].max() - reference["scores"].max()) < 0.1
    assert verify.verify(tmp_path / "int8")["passed"]


def weights_size(folder: Path) -> int:
    """Bytes of the file that holds the weights: beside a network this small the graph's text weighs as much."""
    return max(path.stat().st_size for path in folder.glob("model.*") if path.suffix in (".onnx", ".bin"))


@pytest.mark.slow
def test_masks_are_in_the_graph_too(tmp_path):
    model = untrained("fpn", masks=True)
    path = write(model, "onnx", tmp_path / "out", pictures(tmp_path, (70, 90)), golden=1)
    image = np.random.default_rng(1).integers(0, 255, (64, 80, 3), dtype=np.uint8)
    found, reference = FORMATS["onnx"].run(path)(image), model.run(image)
    assert found["masks"].shape[1:] == (64, 80)
    assert agreement(found, reference) == 1.0
    assert np.abs(found["masks"] - reference["masks"]).max() < 1e-3


def test_agreement_counts_lost_and_moved_detections():
    reference = {
        "boxes": np.array([[0, 0, 10, 10], [20, 20, 30, 30]], np.float32),
        "scores": np.array([0.9, 0.5], np.float32),
        "labels": np.array([0, 1]),
    }
    swapped = {name: value[::-1] for name, value in reference.items()}
    assert agreement(swapped, reference) == 1.0
    moved = {**reference, "boxes": reference["boxes"] + np.array([[0, 0, 0, 2], [0, 0, 0, 0]], np.float32)}
    assert agreement(moved, reference) == 0.5
    empty = {name: value[:0] for name, value in reference.items()}
    assert agreement(empty, reference) == 0.0 and agreement(empty, empty) == 1.0


def test_a_classifier_or_an_unknown_target_is_one_clear_line(tmp_path):
    backbone = backbones.build(config.Backbone(name="mobilenetv3_small_050"))
    backbones.save(tmp_path / "detector.safetensors", backbone, SPEC)
    with pytest.raises(UserError, match="is not a detector"):
        load(tmp_path)
    with pytest.raises(UserError, match="known: onnx, openvino"):
        write(untrained("ssdlite"), "coreml", tmp_path, pictures(tmp_path, (64, 64)))
