"""Networks with sigmoid heads: one label, or several independent ones, from the weights to the report."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from softedge.errors import UserError
from softedge.export import contract
from softedge.export.base import open_format
from softedge.export.given import read
from softedge.export.verify import verify
from softedge.stages.check import check
from softedge.stages.export_file import export_file
from softedge.stages.gate import gate
from softedge.stages.quantize import quantize
from softedge.stages.report import report

NAME = "test_efficientnet"


def _network(classes):
    torch.manual_seed(3)
    net = timm.create_model(NAME, num_classes=classes)
    for module in net.modules():  # statistics of real activations: with the first ones all signals die out
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        net.train()(torch.randn(64, 3, 32, 32))
        net.get_classifier().weight.mul_(4)  # scores on both sides of a half, and far from it
    return net.eval()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for index in range(120):
        pixels = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(pixels).save(folder / f"{index:03d}.png")
    return folder


def _sigmoid(net, images, spec):
    x = (images / 255.0 - np.array(spec.mean)) / np.array(spec.std)
    with torch.no_grad():
        return 1 / (1 + np.exp(-net(torch.from_numpy(x.transpose(0, 3, 1, 2)).float()).numpy()))


@pytest.fixture(scope="module", params=[1, 3])
def run(request, photos, tmp_path_factory):
    classes = request.param
    net, folder = _network(classes), tmp_path_factory.mktemp(f"scores{classes}")
    save_file(net.state_dict(), folder / "net.safetensors")
    export_file(
        folder / "net.safetensors",
        folder / "run",
        photos,
        NAME,
        labels=["crack", "rust", "moss"][:classes],
        size=32,
        targets=("onnx", "openvino") if classes == 1 else ("onnx",),
        precisions=("fp32",) if classes == 1 else ("fp32", "int8"),
        calibration_images=20,
        activation="sigmoid",
        set=["check.min_agreement=0.5", "quantize.search=false"],
    )
    return folder / "run", net, classes


def test_the_exported_file_gives_the_sigmoid_of_each_logit(run):
    """Read back by onnxruntime alone; a softmax over one output would be 1.0 everywhere."""
    root, net, classes = run
    folder = root / "export" / "onnx-fp32"
    golden = contract.read_golden(folder)
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    assert [o.name for o in session.get_outputs()] == ["scores"]
    actual = session.run(["scores"], {"image": golden.images})[0]
    expected = _sigmoid(net, golden.images, contract.read(folder).spec)
    assert actual.shape == (len(golden.images), classes) and np.abs(actual - expected).max() < 1e-4
    assert actual.std() > 0.05


def test_contract_says_which_activation_and_from_where_a_label_is_present(run):
    root, _, classes = run
    values = json.loads((root / "export" / "onnx-fp32" / "contract.json").read_text())
    assert values["output"]["activation"] == "sigmoid" and values["output"]["present_from"] == 0.5
    assert values["output"]["shape"] == ["N", classes] and len(values["labels"]) == classes


def test_agreement_is_the_share_of_images_whose_every_label_is_decided_alike(run):
    root, _, _ = run
    rows = {row["artifact"]: row for row in check(root).details["rows"]}
    assert rows["onnx-fp32"]["agreement"] == 1.0 and rows["onnx-fp32"]["passed"] and "top1" not in rows["onnx-fp32"]
    assert rows["onnx-fp32"]["n"] == 60
    if "onnx-int8" in rows:
        assert 0.5 < rows["onnx-int8"]["agreement"] <= rows["onnx-int8"]["label_agreement"] <= 1
        assert rows["onnx-int8"]["sqnr_db"] > 6
    gate(root)


def test_search_report_and_verify_take_scores(run):
    root, _, classes = run
    assert len(quantize(root)) == (classes > 1), "only int8 files are searched for"
    check(root)
    report(root)
    text = (root / "report.html").read_text()
    assert "ONNX" in text and "crack" in text
    for folder in (root / "export").iterdir():
        found = verify(folder)
        assert found["passed"] and set(found["rows"][0]["found"].split(", ")) <= {"crack", "rust", "moss", "no label"}


def test_snippet_names_every_label_that_is_present(run):
    root, _, classes = run
    folder = root / "export" / ("openvino-fp32" if classes == 1 else "onnx-int8")
    done = subprocess.run([sys.executable, folder / "snippets" / "run.py"], capture_output=True, text=True, check=True)
    labels, scores = contract.read(folder).labels, contract.read_golden(folder).expected[0]
    present = [label for label, score in zip(labels, scores) if score >= 0.5]
    line = done.stdout.splitlines()[0]
    assert [label for label in labels if label in line] == present or (not present and line.startswith("no label"))
    assert "largest difference to the expected output: 0" in done.stdout


def test_core_ml_file_of_scores_is_a_plain_output_and_no_classifier(photos, tmp_path):
    ct = pytest.importorskip("coremltools")
    net = _network(1)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    asked = {"size": 32, "targets": ("coreml",), "precisions": ("fp32",), "activation": "sigmoid"}
    export_file(tmp_path / "net.safetensors", tmp_path / "run", photos, NAME, labels=["crack"], **asked)
    folder = tmp_path / "run" / "export" / "coreml-fp32"
    spec = ct.models.MLModel(str(folder / "model.mlpackage"), skip_model_load=True).get_spec()
    assert [o.name for o in spec.description.output] == ["scores"] and not spec.description.predictedFeatureName
    artifact, golden = contract.read(folder), contract.read_golden(folder)
    assert open_format("coreml").metadata(artifact) == {"labels": ["crack"], "input": artifact.spec.to_dict()}
    assert np.abs(golden.expected - _sigmoid(net, golden.images, artifact.spec)).max() < 1e-3


def test_sigmoids_where_there_are_none_are_refused(photos, tmp_path):
    net = _network(2)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    with pytest.raises(UserError, match="--activation is softmax or sigmoid; found 'tanh'"):
        export_file(tmp_path / "net.safetensors", tmp_path / "run", photos, NAME, activation="tanh")
    with pytest.raises(UserError, match="features have no activation"):
        export_file(
            tmp_path / "net.safetensors", tmp_path / "run", photos, NAME, activation="sigmoid", output="features"
        )
    state = {k: v for k, v in net.state_dict().items() if not k.startswith("classifier.")}
    save_file(state, tmp_path / "features.safetensors")
    with pytest.raises(UserError, match="has no classifier, and --activation says what is behind one"):
        read(tmp_path / "features.safetensors", NAME, output="scores")
