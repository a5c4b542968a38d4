"""Weights that softedge did not train: timm state dicts with an architecture's name, softedge files without one."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import cv2
import numpy as np
import onnxruntime
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from softedge import backbones, config
from softedge.cli import app
from softedge.errors import GateFailed, UserError
from softedge.export import contract, given
from softedge.export.verify import verify
from softedge.records import InputSpec
from softedge.stages import export as exporting
from softedge.stages.bench import bench
from softedge.stages.check import check
from softedge.stages.export_file import export_file, read
from softedge.stages.gate import gate
from softedge.stages.quantize import quantize
from softedge.stages.report import report

NAME = "mobilenetv3_small_050"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    net = timm.create_model(NAME, num_classes=4)
    for module in net.modules():  # statistics of real activations: with the first ones all signals die out
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        net.train()(torch.randn(64, 3, 32, 32))
    net.eval()
    folder = tmp_path_factory.mktemp("weights")
    save_file(net.state_dict(), folder / "net.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, folder / "net.pth")
    return folder, net


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for index in range(60):
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(folder / f"{index:02d}.png")
    (folder / "broken.png").write_bytes(b"not an image")
    return folder


def test_exported_timm_classifier_is_the_same_function_and_verifies(weights, photos, tmp_path):
    folder, net = weights
    (tmp_path / "labels.txt").write_text("ant\nbee\ncat\ndog\n")
    results = export_file(
        folder / "net.safetensors",
        tmp_path / "out",
        photos,
        NAME,
        labels=tmp_path / "labels.txt",
        size=32,
        targets=("onnx",),
        precisions=("fp32", "int8"),
        calibration_images=20,
    )
    assert [r.skipped for r in results] == [{}, {}]
    exported = tmp_path / "out" / "export" / "onnx-fp32"
    golden = contract.read_golden(exported)
    artifact = contract.read(exported)
    assert artifact.labels == ("ant", "bee", "cat", "dog") and artifact.spec.size == 32 and artifact.spec.resize == 37
    x = (golden.images / 255.0 - np.array(artifact.spec.mean)) / np.array(artifact.spec.std)
    with torch.no_grad():
        expected = net(torch.from_numpy(x.transpose(0, 3, 1, 2)).float()).softmax(1).numpy()
    assert np.abs(golden.expected - expected).max() < 1e-5
    assert verify(exported)["passed"] and verify(tmp_path / "out" / "export" / "onnx-int8")["passed"]
    notes = json.loads((tmp_path / "out" / "export" / "onnx-int8" / "contract.json").read_text())["notes"]
    assert notes["quantized_ops"]["Conv"] > 30 and notes["quantized_ops"]["Gemm"] == 1
    done = subprocess.run(
        [sys.executable, exported / "snippets" / "run.py"], capture_output=True, text=True, check=True
    )
    assert "largest difference to the expected output: 0" in done.stdout


ONE = given.preprocessing(32, "0.5", "0.25", None, None)


def grey_network(folder, name=NAME):
    """timm's network for one channel, with statistics of real activations; its weights in a file."""
    torch.manual_seed(0)
    size = {"img_size": 32} if "vit" in name else {}
    net = timm.create_model(name, num_classes=4, in_chans=1, **size).train()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        net(torch.randn(64, 1, 32, 32))
    save_file(net.eval().state_dict(), folder / "grey.safetensors")
    if size:
        (folder / "config.json").write_text(json.dumps({"architecture": name, "model_args": size}))
    return net


@pytest.mark.parametrize(
    "one",
    [{"targets": ["onx"]}, {"precisions": ["fp99"]}, {"precisions": []}, {"set": ["export.precisions=['fp99']"]}],
)
def test_a_misspelt_format_or_precision_is_refused_before_the_weights_are_read(photos, tmp_path, one):
    with pytest.raises(UserError, match="unknown target 'onx'|no 'fp99' in|nothing to export"):
        export_file(tmp_path / "absent.pth", tmp_path / "run", photos, **one)


@pytest.mark.parametrize("name", [NAME, "test_resnet", "test_vit", "mobileone_s0"])
def test_weights_for_grey_images_answer_to_the_grey_levels_of_a_photo(tmp_path, name, capsys):
    net = grey_network(tmp_path, name)
    deployed, _ = read(tmp_path / "grey.safetensors", name, preprocessing=ONE)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    levels = torch.from_numpy(pixels @ np.array([0.299, 0.587, 0.114])).float()
    with torch.no_grad():
        expected = net(((levels / 255 - 0.5) / 0.25)[:, None]).softmax(1).numpy()
    assert np.abs(deployed.predict(pixels) - expected).max() < 1e-4
    assert "grey.safetensors is for grey images: 0.299 R + 0.587 G + 0.114 B of photos" in capsys.readouterr().err


def test_a_run_of_grey_weights_says_so_in_the_contract_and_its_programs_take_photos(photos, tmp_path):
    net = grey_network(tmp_path)
    asked = {"targets": ("onnx",), "precisions": ("fp32", "int8"), "preprocessing": ONE, "calibration_images": 20}
    results = export_file(tmp_path / "grey.safetensors", tmp_path / "out", photos, NAME, **asked)
    assert [r.skipped for r in results] == [{}, {}]
    exported = tmp_path / "out/export/onnx-fp32"
    values, golden = contract.describe(exported), contract.read_golden(exported)
    assert values["before_the_model"].endswith("scaling, mean, std and the conversion to grey are inside the model")
    assert values["checkpoint"]["grey"].startswith("photos become 0.299 R + 0.587 G + 0.114 B")
    levels = torch.from_numpy(golden.images @ np.array([0.299, 0.587, 0.114])).float()
    with torch.no_grad():
        expected = net(((levels / 255 - 0.5) / 0.25)[:, None]).softmax(1).numpy()
    assert np.abs(golden.expected - expected).max() < 1e-4
    assert verify(exported)["passed"] and verify(tmp_path / "out/export/onnx-int8")["passed"]
    done = subprocess.run([sys.executable, exported / "snippets/run.py"], capture_output=True, text=True, check=True)
    assert "largest difference to the expected output: 0" in done.stdout


def test_grey_weights_need_one_mean_and_one_std(tmp_path):
    grey_network(tmp_path)
    with pytest.raises(
        UserError, match="is for grey images, and mean and std have values for three channels; give one"
    ):
        read(tmp_path / "grey.safetensors", NAME)
    settings = {"mean": [0.5], "std": [0.25], "input_size": [1, 32, 32], "crop_pct": 1.0}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": NAME, "pretrained_cfg": settings}))
    assert read(tmp_path / "grey.safetensors", NAME)[0].spec == InputSpec(32, 32, (0.5,) * 3, (0.25,) * 3, "bilinear")


def hand_written(weights, folder):
    """The network with a classifier of two layers, as users replace it; its weights in ``own.pth``."""
    net = copy.deepcopy(weights[1])
    torch.manual_seed(1)
    layers = (torch.nn.Linear(1024, 32), torch.nn.BatchNorm1d(32), torch.nn.Hardswish(), torch.nn.Linear(32, 4))
    net.classifier = torch.nn.Sequential(torch.nn.Dropout(), *layers[:3], torch.nn.Dropout(), layers[3]).eval()
    with torch.no_grad():
        torch.nn.init.normal_(layers[1].running_mean, std=0.3)
        torch.nn.init.normal_(layers[3].weight, std=1.0)
    torch.save(net.state_dict(), folder / "own.pth")
    return net


def test_a_classifier_of_two_layers_goes_through_every_stage(weights, photos, tmp_path, capsys):
    net, out = hand_written(weights, tmp_path), tmp_path / "out"
    words = ["export-file", str(tmp_path / "own.pth"), "--backbone", NAME, "--images", str(photos), "--out", str(out)]
    words += ["--targets", "onnx", "--precisions", "fp32", "--size", "32", "--devices", "local"]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, UserError) and "say which activation with --head, such" in str(done.exception)
    done = CliRunner().invoke(app, [*words, "--head", "hardswish"])
    assert done.exit_code == 0, done.output
    exported = out / "export/onnx-fp32"
    golden, artifact = contract.read_golden(exported), contract.read(exported)
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    x = (golden.images / 255.0 - np.array(artifact.spec.mean)) / np.array(artifact.spec.std)
    with torch.no_grad():
        expected = net(torch.from_numpy(x.transpose(0, 3, 1, 2)).float()).softmax(1).numpy()
    assert expected.std(axis=0).max() > 0.01 and np.abs(golden.expected - expected).max() < 1e-5
    (found,) = session.run(None, {"image": golden.images})
    assert np.abs(found - expected).max() < 1e-5
    assert contract.describe(exported)["checkpoint"]["head"] == "hardswish between its linear layers, from --head"
    (row,) = check(out, force=True).details["rows"]
    assert row["passed"] and len(bench(out, devices=["local"])) == 1 and report(out).is_file()
    capsys.readouterr()
    (again,) = exporting.export(out, force=True)  # of the network that the run keeps
    assert again.skipped == {} and np.abs(contract.read_golden(exported).expected - expected).max() < 1e-5


def test_a_run_with_another_activation_is_not_taken_for_done(weights, photos, tmp_path):
    net = hand_written(weights, tmp_path)
    asked = {"backbone": NAME, "size": 32, "targets": ("onnx",), "precisions": ("fp32",)}
    export_file(tmp_path / "own.pth", tmp_path / "out", photos, head="gelu", **asked)
    with pytest.raises(UserError, match='made with other settings .*"gelu" -> "relu".*; add --force'):
        export_file(tmp_path / "own.pth", tmp_path / "out", photos, head="relu", **asked)
    export_file(tmp_path / "own.pth", tmp_path / "out", photos, head="relu", **asked, force=True)
    net.classifier[3] = torch.nn.ReLU()
    golden = contract.read_golden(tmp_path / "out/export/onnx-fp32")
    spec = contract.read(tmp_path / "out/export/onnx-fp32").spec
    x = torch.from_numpy(((golden.images / 255.0 - spec.mean) / spec.std).transpose(0, 3, 1, 2)).float()
    with torch.no_grad():
        assert np.abs(golden.expected - net(x).softmax(1).numpy()).max() < 1e-5


def test_prefixes_of_training_frameworks_are_taken_off(weights):
    folder, net = weights
    deployed, name = read(folder / "net.pth", NAME, size=32)
    assert name == NAME and deployed.labels == ("0", "1", "2", "3")
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(deployed.model(x), net(x))


def test_features_leave_the_classifier_off(weights):
    folder, net = weights
    deployed, _ = read(folder / "net.safetensors", NAME, size=32, output="features")
    assert deployed.output == "features"
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(deployed.model(x), net.forward_head(net.forward_features(x), pre_logits=True))


def test_tensors_without_a_place_are_named_and_not_dropped(tmp_path):
    """Squeeze-and-excitation of a network that looks alike otherwise: without it the answers would be others."""
    state = timm.create_model("seresnet18", num_classes=3).state_dict()
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(UserError, match=r"tensors have no place in the network, the first is 'layer1.0.se.fc1.weight'"):
        read(tmp_path / "net.pth", "resnet18")


def test_names_for_a_classifier_that_is_not_there_are_refused(weights, tmp_path):
    _, net = weights
    head = ("classifier.weight", "classifier.bias")
    torch.save({k: v for k, v in net.state_dict().items() if k not in head}, tmp_path / "features.pth")
    with pytest.raises(UserError, match="has no classifier, and --labels names its classes"):
        read(tmp_path / "features.pth", NAME, labels=["a", "b"])


def test_softedge_files_need_no_architecture(tmp_path):
    spec = InputSpec(32, 36, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    backbone = backbones.build(config.Backbone(name=NAME))
    backbones.save(tmp_path / "b.safetensors", backbone, spec)
    deployed, name = read(tmp_path / "b.safetensors")
    assert (deployed.output, deployed.spec, name) == ("features", spec, NAME)


def test_weights_labels_and_images_that_do_not_fit_are_one_clear_line(weights, photos, tmp_path):
    folder, _ = weights
    good = folder / "net.safetensors"
    with pytest.raises(UserError, match="does not hold weights of mobilenetv3_small_075: .* tensors do not fit"):
        read(good, "mobilenetv3_small_075")
    with pytest.raises(UserError, match="did you mean 'mobilenetv3_small_050'"):
        read(good, "mobilenetv3_small_050x")
    with pytest.raises(UserError, match="has 2 labels, the classifier 4 classes"):
        read(good, NAME, labels=["a", "b"])
    with pytest.raises(
        UserError, match="--size is 0; give a whole number, 1 or more: the input's height and width in pixels"
    ):
        export_file(good, tmp_path / "out", photos, NAME, size=0)
    with pytest.raises(UserError, match="was not written by softedge"):
        read(good)
    with pytest.raises(UserError, match="does not exist"):
        read(tmp_path / "none.safetensors", NAME)
    truncated = tmp_path / "truncated.safetensors"
    truncated.write_bytes(good.read_bytes()[:20000])
    with pytest.raises(UserError, match="cannot be read as weights"):
        read(truncated, NAME)
    nothing = tmp_path / "nothing.pth"
    nothing.touch()
    with pytest.raises(UserError, match=r"nothing.pth is empty \(0 bytes\)"):
        read(nothing, NAME)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="has no readable images"):
        export_file(good, tmp_path / "out", empty, NAME, size=32, targets=("onnx",), precisions=("fp32",))
    assert not (tmp_path / "out" / "export").exists()


def test_three_images_all_calibrate_with_a_warning(weights, photos, tmp_path, capsys):
    folder, _ = weights
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(photos.glob("0*.png"))[:3]:
        (few / path.name).write_bytes(path.read_bytes())
    good = folder / "net.safetensors"
    export_file(good, tmp_path / "out", few, NAME, size=32, targets=("onnx",), precisions=("int8",))
    assert "only 3 calibration images" in capsys.readouterr().err


def test_label_files_of_windows_editors_and_names_that_occur_twice_are_read_as_they_are(weights, tmp_path):
    """ImageNet has 'crane' twice, a bird and a machine."""
    folder, _ = weights
    (tmp_path / "labels.txt").write_bytes(b"\xef\xbb\xbfcrane\r\nbee\r\ncrane\r\ndog\r\n")
    deployed, _ = read(folder / "net.safetensors", NAME, labels=tmp_path / "labels.txt")
    assert deployed.labels == ("crane", "bee", "crane", "dog")


def test_weights_with_nan_are_refused_by_the_tensor_that_holds_it(weights, tmp_path):
    _, net = weights
    state = {key: value.clone() for key, value in net.state_dict().items()}
    state["conv_stem.weight"][0, 0, 0, 0] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(UserError, match=r"NaN or infinite values in 1 of \d+ tensors, the first is 'conv_stem.weight'"):
        read(tmp_path / "nan.safetensors", NAME)


def test_weights_that_give_every_image_the_same_are_refused(weights, photos, tmp_path):
    save_file(
        {key: torch.zeros_like(value) for key, value in weights[1].state_dict().items()}, tmp_path / "zeros.safetensors"
    )
    with pytest.raises(UserError, match="zeros.safetensors are the same for every image: its weights are damaged"):
        export_file(tmp_path / "zeros.safetensors", tmp_path / "out", photos, NAME, size=32, targets=("onnx",))
    assert not (tmp_path / "out").exists()


def test_the_run_of_other_weights_is_not_replaced(weights, photos, tmp_path):
    folder, net = weights
    asked = {"backbone": NAME, "size": 32, "targets": ("onnx",), "precisions": ("fp32",), "calibration_images": 10}
    (made,) = export_file(folder / "net.safetensors", tmp_path / "out", photos, **asked)
    other = {key: value * 1.5 if key == "classifier.weight" else value for key, value in net.state_dict().items()}
    save_file(other, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="net.safetensors; give another --out, or --force to replace it"):
        export_file(tmp_path / "other.safetensors", tmp_path / "out", photos, **asked)
    assert contract.read(tmp_path / "out/export/onnx-fp32").sha256 == made.details["sha256"]
    (again,) = export_file(tmp_path / "other.safetensors", tmp_path / "out", photos, **asked, force=True)
    assert again.details["sha256"] != made.details["sha256"]
    save_file(net.state_dict(), tmp_path / "other.safetensors")  # trained again
    (anew,) = export_file(tmp_path / "other.safetensors", tmp_path / "out", photos, **asked)
    assert anew.details["sha256"] not in (again.details["sha256"], "")


def test_classifier_of_one_output_is_refused_where_nobody_says_that_it_is_a_sigmoid(tmp_path):
    save_file(timm.create_model(NAME, num_classes=1).state_dict(), tmp_path / "one.safetensors")
    with pytest.raises(
        UserError, match=r"one output \('0'\), and its softmax is 1.0 for every image; .*--activation sigmoid"
    ):
        read(tmp_path / "one.safetensors", NAME)
    assert read(tmp_path / "one.safetensors", NAME, output="features")[0].output == "features"


@pytest.mark.parametrize("name", ["mobileone_s0", "repvgg_a0"])
def test_weights_whose_branches_are_merged_already_are_the_same_network(name, tmp_path):
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=3).eval()
    save_file(net.state_dict(), tmp_path / "branches.safetensors")
    save_file(timm.models.reparameterize_model(net).state_dict(), tmp_path / "merged.safetensors")
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    first, second = (read(tmp_path / f"{kind}.safetensors", name)[0] for kind in ("branches", "merged"))
    assert np.abs(first.predict(images) - second.predict(images)).max() < 1e-5


@pytest.fixture(scope="module")
def run_of_weights(weights, photos, tmp_path_factory):
    folder, _ = weights
    out = tmp_path_factory.mktemp("given") / "run"
    many = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(1)
    for name in ("ant", "bee"):
        (many / name).mkdir()
        for index in range(60):
            pixels = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            Image.fromarray(pixels).save(many / name / f"{index:02d}.png")
    export_file(
        folder / "net.safetensors",
        out,
        many,
        NAME,
        labels=["ant", "bee", "cat", "dog"],
        size=32,
        targets=("onnx",),
        precisions=("fp32", "fp16"),  # int8 of random weights is refused by its noise
        set=["check.min_accuracy=0.9"],
    )
    return out, many


def test_weights_from_elsewhere_become_a_run_that_every_later_command_accepts(run_of_weights):
    """Images are split: what calibrates is not what the gate asks. Folders named like classes are their labels."""
    out, _ = run_of_weights
    index = json.loads((out / "data" / "index.json").read_text())
    splits = [item["split"] for item in index["items"]]
    assert splits.count("test") == 60 and splits.count("train") == 60 and index["classes"][3] == "dog"
    assert quantize(out) == [], "no int8 file to search for"
    rows = check(out).details["rows"]
    assert [row["artifact"] for row in rows] == ["onnx-fp16", "onnx-fp32"]
    assert all(row["n"] == 60 and row["agreement"] > 0.9 and "top1" in row for row in rows)
    benched = bench(out, devices=["local"], set=["bench.threads=1"])
    assert {result.details["sha256"] for result in benched} == {row["sha256"] for row in rows}
    report(out)
    assert "onnx-fp16" in (out / "report.json").read_text()


def test_a_file_below_the_gate_is_refused_with_exit_code_1(run_of_weights):
    out, _ = run_of_weights
    check(out)
    with pytest.raises(GateFailed, match="onnx-fp32: top-1 0.* is below the least accuracy 0.9"):
        gate(out)


def test_the_network_of_such_a_run_is_read_back_from_its_own_file(run_of_weights, weights):
    out, _ = run_of_weights
    deployed = given.load(out / "network" / "network.safetensors")
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(deployed.model(x), weights[1](x))
    assert deployed.labels == ("ant", "bee", "cat", "dog") and deployed.about["backbone"] == NAME


def test_folders_that_are_no_classes_of_the_network_give_no_labels(weights, run_of_weights, tmp_path, capsys):
    folder, _ = weights
    asked = {"size": 32, "targets": ("onnx",), "precisions": ("fp32",)}
    export_file(folder / "net.safetensors", tmp_path / "out", run_of_weights[1], NAME, labels=list("wxyz"), **asked)
    assert "2 of 2 folders are not classes of the network (ant, bee)" in capsys.readouterr().err
    row = check(tmp_path / "out").details["rows"][0]
    assert row["n"] == 60 and "agreement" in row and "top1" not in row


def test_a_folder_with_the_name_of_two_classes_gives_no_labels(weights, run_of_weights, tmp_path, capsys):
    """As the crane and the crane of ImageNet: its images would all count for the last of the two."""
    folder, _ = weights
    asked = {"size": 32, "targets": ("onnx",), "precisions": ("fp32",)}
    labels = ["ant", "bee", "cat", "ant"]
    export_file(folder / "net.safetensors", tmp_path / "out", run_of_weights[1], NAME, labels=labels, **asked)
    assert "1 of 2 folders have the name of several of its classes (ant): no labels" in capsys.readouterr().err
    (row,) = check(tmp_path / "out").details["rows"]
    assert "agreement" in row and "top1" not in row


def test_preprocessing_of_the_weights_is_in_the_file(weights, photos, tmp_path):
    folder, net = weights
    own = given.preprocessing(32, "0.5,0.5,0.5", "0.25,0.5,0.5", "bicubic", 1.0)
    deployed, _ = read(folder / "net.safetensors", NAME, preprocessing=own)
    assert deployed.spec == InputSpec(32, 32, (0.5, 0.5, 0.5), (0.25, 0.5, 0.5), "bicubic")
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    x = (image / 255.0 - 0.5) / np.array([0.25, 0.5, 0.5])
    with torch.no_grad():
        expected = net(torch.from_numpy(x.transpose(0, 3, 1, 2)).float()).softmax(1).numpy()
    assert np.abs(deployed.predict(image) - expected).max() < 1e-5
    with pytest.raises(UserError, match="--mean is of x / 255, between 0 and 1; found '123.7,116.3,103.5'"):
        given.preprocessing(None, "123.7,116.3,103.5", None, None, None)


ANY = (None, None)  # interpolation and crop


def turned(net):
    """The network for blue, green, red: the same answers where images come so."""
    net = copy.deepcopy(net)
    with torch.no_grad():
        net.conv_stem.weight.copy_(net.conv_stem.weight[:, [2, 1, 0]])
    return net


def test_weights_that_take_blue_first_become_files_that_take_red_first(weights, photos, tmp_path):
    """As trained with OpenCV: the reference reads a photo as OpenCV does."""
    net, out = turned(weights[1]), tmp_path / "out"
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    words = ["export-file", str(tmp_path / "net.safetensors"), "--backbone", NAME, "--images", str(photos)]
    words += ["--out", str(out), "--targets", "onnx", "--precisions", "fp32", "--size", "32", "--bgr"]
    done = CliRunner().invoke(app, [*words, "--mean", "0.4,0.5,0.6", "--std", "0.2,0.25,0.3"])
    assert done.exit_code == 0, done.output
    exported = out / "export/onnx-fp32"
    golden, artifact = contract.read_golden(exported), contract.read(exported)
    assert artifact.spec.mean == (0.6, 0.5, 0.4) and artifact.spec.std == (0.3, 0.25, 0.2)
    opened = np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2BGR) for image in golden.images])
    x = (opened / 255 - np.array([0.4, 0.5, 0.6])) / np.array([0.2, 0.25, 0.3])
    with torch.no_grad():
        expected = net(torch.from_numpy(x.transpose(0, 3, 1, 2)).float()).softmax(1).numpy()
    assert expected.std(axis=0).max() > 0.01
    (found,) = onnxruntime.InferenceSession(exported / "model.onnx").run(None, {"image": golden.images})
    assert np.abs(found - expected).max() < 1e-5 and np.abs(golden.expected - expected).max() < 1e-5
    assert contract.describe(exported)["checkpoint"]["channel_order"].startswith("the weights take blue first")
    with pytest.raises(UserError, match="made with other settings .*recipe.bgr"):
        own = given.preprocessing(None, "0.6,0.5,0.4", "0.3,0.25,0.2", *ANY)
        export_file(tmp_path / "net.safetensors", out, photos, NAME, size=32, preprocessing=own)


@pytest.mark.parametrize(
    ("name", "merged"),
    [("test_resnet", False), ("test_vit", False), ("efficientvit_b0", False), ("mobileone_s0", 0), ("mobileone_s0", 1)],
)
def test_the_first_convolution_is_turned_whatever_the_network(tmp_path, name, merged):
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=4).train()
    size = net.pretrained_cfg["input_size"][-1]
    for module in net.modules():  # statistics of real activations: with the first ones all signals die out
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        net(torch.randn(8, 3, size, size))
    torch.nn.init.normal_(net.eval().get_classifier().weight)
    save_file((timm.models.reparameterize_model(net) if merged else net).state_dict(), tmp_path / "net.safetensors")
    size = net.pretrained_cfg["input_size"][-1]
    deployed, _ = read(
        tmp_path / "net.safetensors", name, preprocessing=given.preprocessing(size, "0", "1", *ANY, True)
    )
    image = torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected, found, other = net(image), deployed.model(image.flip(1)), deployed.model(image)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * expected.std())
    assert not torch.allclose(other, expected, rtol=1e-2, atol=1e-2 * expected.std())


def test_blue_first_is_refused_where_it_is_unclear_or_nothing_can_be_turned(weights, tmp_path, capsys):
    good, bgr = weights[0] / "net.safetensors", given.preprocessing(32, None, None, *ANY, True)
    with pytest.raises(
        UserError, match="--bgr: the mean .assumed: .* not known whether blue is first there; give --mean"
    ):
        read(good, NAME, preprocessing=bgr)
    with pytest.raises(UserError, match="--bgr: the std .assumed"):
        read(good, NAME, preprocessing=given.preprocessing(32, "0.5", None, *ANY, True))
    own = given.preprocessing(32, "0.5", "0.25", *ANY, True)
    grey_network(tmp_path)
    with pytest.raises(UserError, match="grey.safetensors is for grey images; leave out --bgr"):
        read(tmp_path / "grey.safetensors", NAME, preprocessing=own)
    spec = InputSpec(32, 36, (0.5,) * 3, (0.25,) * 3)
    backbones.save(tmp_path / "b.safetensors", backbones.build(config.Backbone(name=NAME)), spec)
    with pytest.raises(UserError, match="is softedge's own, which takes red first; leave out --bgr"):
        read(tmp_path / "b.safetensors", preprocessing=own)
    save_file(timm.create_model("tresnet_m", num_classes=2).state_dict(), tmp_path / "odd.safetensors")
    with pytest.raises(UserError, match="--bgr: .*odd.safetensors is of a network whose first layer is no convolution"):
        read(tmp_path / "odd.safetensors", "tresnet_m", size=64, preprocessing=own)
    capsys.readouterr()
    read(good, NAME, preprocessing=given.preprocessing(32, "0.406,0.456,0.485", None, *ANY))
    assert "is ImageNet's with blue first, and images are fed red first; give --bgr if" in capsys.readouterr().err


def test_float_files_neither_read_nor_warn_about_calibration_images(weights, photos, tmp_path, capsys, monkeypatch):
    """Few photos make poor int8 ranges, and nothing else; those of a finished run may be gone."""
    few = tmp_path / "few"
    few.mkdir()
    for number in range(12):
        (few / f"{number}.png").write_bytes((photos / f"{number:02d}.png").read_bytes())
    asked = {"backbone": NAME, "images": few, "targets": ["onnx"], "size": 32}
    (result,) = export_file(weights[0] / "net.safetensors", out=tmp_path / "float", precisions=["fp32"], **asked)
    assert "calibration" not in capsys.readouterr().err and result.details["calibration"] is None
    results = export_file(weights[0] / "net.safetensors", out=tmp_path / "int8", precisions=["fp32", "int8"], **asked)
    assert capsys.readouterr().err.count("calibration images: int8 ranges may not hold") == 1
    assert [result.details["calibration"] is None for result in results] == [True, False]


@pytest.mark.parametrize(
    ("asked", "optional"),
    [
        ({}, ("fp16", "int8")),
        ({"precisions": ("fp32", "fp16", "int8")}, ()),
        ({"set": ["check.min_agreement=0.95"]}, ()),
        ({"set": ["export.precisions=['fp32', 'int8']"]}, ()),
        ({"set": ["check.optional=['fp16']"]}, ("fp16",)),
    ],
)
def test_int8_is_a_caution_only_where_nobody_asked_for_it(weights, photos, tmp_path, monkeypatch, asked, optional):
    """As in ``deploy``; the files themselves are not needed."""
    from softedge.stages import export_file as module

    monkeypatch.setattr(module.exporting, "stage", lambda *_: [])
    monkeypatch.setattr(module, "opened", lambda *_: None)
    export_file(weights[0] / "net.safetensors", tmp_path / "run", photos, NAME, size=32, targets=("onnx",), **asked)
    assert config.load(str(tmp_path / "run" / "recipe.toml")).check.optional == optional


def test_a_refused_int8_file_that_nobody_asked_for_does_not_fail_the_command(weights, run_of_weights, tmp_path, capsys):
    """Random weights: their int8 answers are noise, and the gate refuses the file."""
    from softedge.stages.export_file import judge

    asked = {"size": 32, "targets": ("onnx",), "set": ["quantize.search=false"]}
    for name, precisions in (("default", None), ("asked", ("fp32", "fp16", "int8"))):
        out = tmp_path / name
        export_file(weights[0] / "net.safetensors", out, run_of_weights[1], NAME, precisions=precisions, **asked)
        judge(out)
    capsys.readouterr()
    gate(tmp_path / "default")
    assert "caution: onnx-int8: " in capsys.readouterr().err
    with pytest.raises(GateFailed, match="onnx-int8: "):
        gate(tmp_path / "asked")
