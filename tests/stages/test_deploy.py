"""The whole path on generated images: every stage is real, done once, and survives being started again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import softedge
from softedge.errors import GateFailed, UserError

TINY = [
    "data.size=32",
    "data.workers=0",
    "backbone.name=mobilenetv3_small_050",
    "ssl.epochs=2",
    "ssl.batch=16",
    "ssl.queue=32",
    "ssl.neighbors=4",
    "ssl.projector=[32, 16]",
    "ssl.knn_every=0",
    "optim.lr=0.03",
    "optim.warmup_epochs=0",
    "probe.few_labels=3",
    "export.calibration_images=24",
    "check.max_drop=1.0",
    "check.min_agreement=0.0",
]


def stripes(rng: np.random.Generator, label: int) -> Image.Image:
    """40 x 36 pixels of stripes: horizontal, vertical or diagonal by the label, in random colours."""
    y, x = np.mgrid[0:36, 0:40]
    phase = (y, x, x + y)[label] / rng.uniform(1.5, 2.5) + rng.uniform(0, 6)
    wave = (np.sin(phase)[..., None] + 1) / 2
    low, high = rng.integers(0, 90, 3), rng.integers(150, 256, 3)
    return Image.fromarray((low + wave * (high - low)).astype(np.uint8))


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos with spaces")
    rng = np.random.default_rng(0)
    for label, name in enumerate(("horizontal", "vertical", "diagonal")):
        (folder / name).mkdir()
        for index in range(24):
            stripes(rng, label).save(folder / name / f"{index:02d}.png")
    (folder / "vertical" / "broken.png").write_bytes((folder / "vertical" / "00.png").read_bytes()[:60])
    return folder


@pytest.fixture(scope="module")
def deployed(photos, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "stripes"
    softedge.deploy(data=str(photos), recipe="light-moco", out=out, targets=["onnx"], set=TINY)
    return out


def test_a_deployment_leaves_every_file_of_the_run_folder(deployed):
    for name in (
        "recipe.toml data/index.json data/result.json pretrain/metrics.jsonl pretrain/backbone.safetensors "
        "pretrain/result.json probe/classifier.safetensors probe/result.json export/onnx-fp32/model.onnx "
        "export/onnx-fp32/contract.json export/onnx-int8/model.onnx export/onnx-int8/result.json check/result.json "
        "bench/onnx-int8@local/result.json bench/onnx-int8@local/samples.json report.html report.json MODEL_CARD.md"
    ).split():
        assert (deployed / name).is_file(), name


def test_the_broken_image_is_set_aside_and_counted(deployed):
    metrics = json.loads((deployed / "data" / "result.json").read_text())["metrics"]
    assert metrics["n_bad"] == 1
    assert metrics["n_train"] + metrics["n_test"] == 72
    assert "broken.png" in (deployed / "report.json").read_text()


def test_the_exported_file_answers_like_the_checkpoint_on_the_test_images(deployed):
    """Read back by onnxruntime itself, against PyTorch fed by Pillow: none of softedge's own export code in between."""
    import onnxruntime
    import torch

    from softedge import backbones
    from softedge.data import load
    from softedge.run import Run

    data = load(Run(deployed))
    images = data.test.prepared(data.spec)
    session = onnxruntime.InferenceSession(deployed / "export" / "onnx-fp32" / "model.onnx")
    probabilities = session.run(None, {"image": images})[0]
    model = backbones.load_classifier(deployed / "probe" / "classifier.safetensors")
    mean, std = torch.tensor(data.spec.mean), torch.tensor(data.spec.std)
    with torch.no_grad():
        inputs = ((torch.from_numpy(images) / 255 - mean) / std).permute(0, 3, 1, 2)
        expected = model(inputs).softmax(1).numpy()
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)


def test_a_second_start_does_nothing_again(deployed, photos):
    before = {p: p.stat().st_mtime_ns for p in deployed.rglob("result.json")}
    softedge.deploy(data=str(photos), recipe="light-moco", out=deployed, targets=["onnx"], set=TINY)
    assert {p: p.stat().st_mtime_ns for p in deployed.rglob("result.json")} == before


def test_the_run_folder_alone_is_enough_to_go_on(deployed):
    before = {p: p.stat().st_mtime_ns for p in deployed.rglob("result.json")}
    softedge.deploy(out=deployed)
    assert {p: p.stat().st_mtime_ns for p in deployed.rglob("result.json")} == before


def test_another_recipe_is_refused_and_nothing_is_lost(deployed, photos):
    weights = (deployed / "pretrain" / "backbone.safetensors").read_bytes()
    with pytest.raises(UserError, match=r"another recipe.*ssl.epochs: 2 -> 3"):
        softedge.deploy(data=str(photos), recipe="light-moco", out=deployed, set=[*TINY, "ssl.epochs=3"])
    assert (deployed / "pretrain" / "backbone.safetensors").read_bytes() == weights


def test_a_gate_that_fails_says_which_file(deployed):
    softedge.check(deployed, set=["check.max_size=1000", "check.doctor=false"], force=True)
    with pytest.raises(GateFailed, match=r"onnx-int8.*1,?000"):
        softedge.gate(deployed)


def test_verify_replays_the_golden_images(deployed):
    softedge.verify(deployed / "export" / "onnx-int8")


def test_unlabelled_images_alone_give_a_feature_extractor(photos, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for index, path in enumerate(sorted(photos.glob("*/[0-9]*.png"))):
        (flat / f"{index}.png").write_bytes(path.read_bytes())
    run = softedge.deploy(
        data=str(flat), recipe="light-moco", out=tmp_path / "run", targets=["onnx"], precisions=["fp32"], set=TINY
    )
    contract = json.loads((run.root / "export" / "onnx-fp32" / "contract.json").read_text())
    assert "features" in json.dumps(contract["output"])
    assert run.result("probe") is None
