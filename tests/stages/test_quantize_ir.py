"""A float OpenVINO classifier that is nothing but two files: quantized with its own input and outputs, or refused."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch
from openvino import opset13 as op
from PIL import Image
from tiny_network import SPEC, images, planes_to_logits
from typer.testing import CliRunner

from softedge.cli import app
from softedge.errors import UserError
from softedge.export.nearest import SURE_DB
from softedge.export.openvino import given
from softedge.export.openvino.core import core
from softedge.export.openvino.format import OpenVino
from softedge.export.openvino.network import F32
from softedge.quantize import selection
from softedge.stages.quantize_file import quantize_file

STEM = 2 * 8 * 3 * 3 * 3  # bytes of the first layer's weights, which come first in the file
ASKED = {"mean": SPEC.mean, "std": SPEC.std, "crop": 16 / 18}


def converted(deployed, *shape):
    """As OpenVINO's own converter makes it of an ONNX file: normalised planes in, logits out."""
    with tempfile.TemporaryDirectory() as folder:
        free = {0: "batch", 2: "height", 3: "width"}
        path = planes_to_logits(deployed.model, Path(folder) / "net.onnx", free)
        return ov.convert_model(path, input=[list(shape)])


def saved(network, path):
    ov.save_model(network, path)  # weights in 16 bits: its default
    return path


@pytest.fixture(scope="module")
def network(deployed):
    return converted(deployed, -1, 3, 16, 16)


@pytest.fixture(scope="module")
def float_file(network, tmp_path_factory):
    network = network.clone()
    network.inputs[0].get_tensor().set_names({"pixels"})
    network.outputs[0].get_tensor().set_names({"logits"})
    network.set_rt_info("kept", ["mine", "note"])
    return saved(network, tmp_path_factory.mktemp("float") / "net.xml")


@pytest.fixture(scope="module")
def quantized(float_file, picture_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "quantized"
    return quantize_file(float_file, picture_folder, out, ASKED, min_agreement=0.5), out / "openvino-int8"


def planes(pictures):
    return ((pictures / 255.0 - np.array(SPEC.mean)) / np.array(SPEC.std)).transpose(0, 3, 1, 2).astype(np.float32)


def run(path, values):
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    return next(iter(core().compile_model(path, "CPU", exact)({"pixels": values}).values()))


def test_the_int8_file_takes_the_place_of_the_float_file(quantized, float_file, pictures):
    """Same input, same output, same notes, a fraction of the noise; weights and activations are integers."""
    result, folder = quantized
    wanted, found = (run(path, planes(pictures)) for path in (float_file, folder / "model.xml"))
    assert np.linalg.norm(found - wanted) < 0.35 * np.linalg.norm(wanted)
    before, made = (core().read_model(path) for path in (float_file, folder / "model.xml"))
    for one, other in zip((*before.inputs, *before.outputs), (*made.inputs, *made.outputs), strict=True):
        assert one.get_names() == other.get_names() and one.get_element_type() == other.get_element_type()
        assert one.get_partial_shape() == other.get_partial_shape()
    assert made.get_rt_info(["mine", "note"]).astype(str) == "kept"
    counts = OpenVino().integer_operations(type("File", (), {"path": folder / "model.xml"})())
    assert counts["conv"] >= 2 and not counts.get("conv_float")
    assert result.metrics["passed"] and result.metrics["n"] == 80, "half of the images are kept to test on"
    assert result.details["precision"] == "fp16", "as its weights are stored"
    sizes = [file.stat().st_size for file in folder.iterdir() if file.name != "result.json"]
    assert len(sizes) == 2 and result.metrics["size_bytes"] == sum(sizes)


def test_every_candidate_of_nncf_is_a_row_with_its_measures(quantized):
    result, _ = quantized
    rows = {step["what"]: step for step in result.details["steps"] if "calibration by" in step["what"]}
    noise = {ranges: rows[f"calibration by {ranges}"]["sqnr_db"] for ranges in ("defaults", "minmax")}
    closer = max(noise, key=noise.__getitem__)
    begun = [what for what in rows if what.endswith(", first layer in float")]
    assert begun == [f"calibration by {closer}, first layer in float"]
    noisy = max(*noise.values(), rows[begun[0]]["sqnr_db"]) < SURE_DB
    assert ("calibration by defaults, all layers in integers" in rows) == noisy
    assert all(row["agreement"] <= 1 and row["size_bytes"] > 0 for row in rows.values())


def test_the_network_in_float_behind_softedges_preprocessing_is_pytorchs(network, deployed, pictures, tmp_path):
    ov.save_model(network, tmp_path / "net.xml", compress_to_fp16=False)
    found = given.read(tmp_path / "net.xml", ASKED).predict(pictures)
    assert np.abs(found - deployed.predict(pictures)).max() < 1e-5


def test_a_file_of_softedge_says_itself_how_images_are_prepared(deployed, pictures, picture_folder, tmp_path):
    artifact = OpenVino().convert(deployed, "fp32", pictures[:0], tmp_path)
    result = quantize_file(artifact.path, picture_folder, tmp_path / "out", min_agreement=0.5)
    assert result.metrics["passed"] and result.details["spec"]["resize"] == SPEC.resize
    made = core().read_model(tmp_path / "out" / "openvino-int8" / "model.xml")
    about = {key: made.get_rt_info(["softedge", key]).astype(str) for key in ("labels", "precision")}
    assert json.loads(about["labels"]) == list(deployed.labels) and about["precision"] == "int8"


def test_the_normalisation_that_the_model_api_notes_is_used_and_what_the_user_says_comes_first(network, tmp_path):
    noted = network.clone()
    noted.set_rt_info("102 127.5 153", ["model_info", "mean_values"])
    noted.set_rt_info("51 63.75 76.5", ["model_info", "scale_values"])
    noted.set_rt_info(["v", "a_b"], ["model_info", "labels"])
    path = saved(noted, tmp_path / "net.xml")
    spec = given.read(path, {}).spec
    assert np.allclose(spec.mean, SPEC.mean) and np.allclose(spec.std, SPEC.std)
    assert given.read(path, {"mean": (0.0,) * 3, "std": (1.0,) * 3}).spec.std == (1.0,) * 3
    assert given.read(path, ASKED).names == (("v", "a_b"), "labels")


def test_numbers_of_the_model_api_are_read_with_sign_and_exponent_or_not_at_all(network, tmp_path):
    noted = network.clone()
    noted.set_rt_info("1.02e+02, 1.275e2, 153.", ["model_info", "mean_values"])
    noted.set_rt_info("[51 63.75 76.5]", ["model_info", "scale_values"])
    assert np.allclose(given.read(saved(noted, tmp_path / "net.xml"), {}).spec.mean, SPEC.mean)
    noted.set_rt_info("-102 -127.5 -153", ["model_info", "mean_values"])
    with pytest.raises(UserError, match="does not say how they are normalised: give --mean and --std"):
        given.read(saved(noted, tmp_path / "negative.xml"), {})


LEVELS = {"mean_values": "102 127.5 153", "scale_values": "51 63.75 76.5"}  # SPEC's


def noting(network, path, **notes):
    """A file with notes of the Model API."""
    network = network.clone()
    for key, text in notes.items():
        network.set_rt_info(text, ["model_info", key])
    return saved(network, path)


def test_the_model_api_turns_opencvs_images_for_a_network_that_takes_red_first(network, deployed, pictures, tmp_path):
    """``reverse_input_channels``: its images come as OpenCV reads them, ``embed_preprocessing`` makes RGB of them."""
    path = noting(network, tmp_path / "net.xml", **LEVELS, reverse_input_channels="True")
    read = given.read(path, {})
    assert "channel_order" not in read.about
    assert np.abs(read.predict(pictures) - deployed.predict(pictures)).max() < 0.01  # weights in 16 bits
    for yes in ("True", "YES"):
        path = noting(network, tmp_path / "net.xml", **LEVELS, reverse_input_channels=yes)
        with pytest.raises(
            UserError, match="net.xml takes red first: its entry 'reverse_input_channels' .* leave out --b"
        ):
            given.read(path, {"bgr": True})


def test_a_file_that_turns_opencvs_images_itself_takes_blue_first(network, deployed, pictures, tmp_path, capsys):
    """As ``Model.save`` of the Model API writes it: OpenVINO's own preprocessing is in the graph and noted."""
    steps = ov.preprocess.PrePostProcessor(network.clone())
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    steps.input().tensor().set_color_format(ov.preprocess.ColorFormat.BGR)
    steps.input().model().set_layout(ov.Layout("NCHW"))
    change = steps.input().preprocess().convert_color(ov.preprocess.ColorFormat.RGB).convert_element_type(ov.Type.f32)
    change.mean([255 * value for value in SPEC.mean]).scale([255 * value for value in SPEC.std])
    notes = {**LEVELS, "reverse_input_channels": "YES", "embedded_processing": "YES"}
    path = noting(steps.build(), tmp_path / "net.xml", **notes)
    for asked in ({}, {"bgr": True}):
        read = given.read(path, asked)
        assert read.about["channel_order"] == "BGR"
        assert np.abs(read.predict(pictures) - deployed.predict(pictures)).max() < 0.01
    assert "net.xml takes blue first and turns it itself, by its entry" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("notes", "bgr", "warns"),
    [
        ({"reverse_input_channels": "False"}, None, True),
        ({"reverse_input_channels": "False"}, True, False),
        ({"reverse_input_channels": "True"}, None, False),
        ({}, None, False),
        ({"mean_values": "123.675 116.28 103.53", "reverse_input_channels": "False"}, None, False),  # red is first
    ],
)
def test_images_that_the_model_api_gives_as_they_come_may_be_blue_first(network, tmp_path, capsys, notes, bgr, warns):
    given.read(noting(network, tmp_path / "net.xml", **{**LEVELS, **notes}), {"bgr": bgr})
    said = capsys.readouterr().err
    assert (
        "as they come, blue first where OpenCV reads them, and here they are fed red first; give --bgr" in said
    ) == warns


def test_means_of_images_scaled_to_one_are_not_divided_again(network, tmp_path):
    shares = {"mean_values": "0.4 0.5 0.6", "scale_values": "0.2 0.25 0.3"}
    for notes in (
        {"intensity_mode": "scale_to_unit", "input_dtype": "u8"},
        {"intensity_mode": "scale_to_unit", "input_dtype": "u16", "intensity_max_value": "65535"},
        {"input_dtype": "f32"},
    ):
        spec = given.read(noting(network, tmp_path / "net.xml", **shares, **notes), {}).spec
        assert np.allclose(spec.mean, SPEC.mean) and np.allclose(spec.std, SPEC.std)
    with pytest.raises(UserError, match="does not say how they are normalised"):
        given.read(noting(network, tmp_path / "net.xml", **shares), {})  # of x: 0.2 of 255 levels is no deviation


def test_notes_on_resizing_are_followed_or_named_and_others_are_passed_over(network, tmp_path, capsys):
    quiet = {"orig_height": "16", "orig_width": "16", "pad_value": "114", "confidence_threshold": "0.35", "topk": "5"}
    path = noting(network, tmp_path / "net.xml", **LEVELS, **quiet, resize_type="crop", interpolation_mode="CUBIC")
    spec = given.read(path, {}).spec
    assert (spec.resize, spec.interpolation) == (16, "bicubic")
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 2, "how images are prepared, and what the answers are"
    path = noting(network, tmp_path / "net.xml", **LEVELS, **quiet, resize_type="standard")
    assert given.read(path, {"crop": 0.5}).spec.resize == 32
    assert "'resize_type' images are squashed to a square; here their centre is cropped" in capsys.readouterr().err


def test_the_size_that_the_model_api_embeds_is_that_of_a_file_of_any_size(deployed, tmp_path):
    network = converted(deployed, -1, 3, -1, -1)
    path = noting(network, tmp_path / "net.xml", **LEVELS, orig_height="24", orig_width="24")
    assert given.read(path, {}).spec.size == 24 and given.read(path, {"size": 32}).spec.size == 32


def test_answers_are_what_the_model_api_notes(network, tmp_path):
    assert given.read(noting(network, tmp_path / "net.xml", **LEVELS, multilabel="True"), {}).output == "scores"
    path = noting(network, tmp_path / "net.xml", **LEVELS, multilabel="True")
    assert given.read(path, {"activation": "softmax"}).output == "probabilities"
    for notes, says in (
        ({"hierarchical": "True"}, "net.xml is a hierarchical classifier, with groups of classes; give one of"),
        (
            {"intensity_mode": "window"},
            "asks for intensities by 'window' .its entry 'intensity_mode'., which is not done",
        ),
    ):
        with pytest.raises(UserError, match=says):
            given.read(noting(network, tmp_path / "net.xml", **LEVELS, **notes), {})


def test_images_of_any_size_are_quantized_at_the_size_asked_for_and_stay_of_any_size(
    deployed, picture_folder, tmp_path
):
    path = saved(converted(deployed, -1, 3, -1, -1), tmp_path / "any.xml")
    with pytest.raises(UserError, match="takes images of any size; say which with --size"):
        quantize_file(path, picture_folder, tmp_path / "out", ASKED)
    result = quantize_file(path, picture_folder, tmp_path / "out", {**ASKED, "size": 16}, min_agreement=0.5)
    made = core().read_model(tmp_path / "out" / "openvino-int8" / "model.xml")
    assert result.metrics["passed"] and made.inputs[0].get_partial_shape() == ov.PartialShape([-1, 3, -1, -1])


def test_a_file_of_one_image_that_ends_in_a_sigmoid_is_judged_label_by_label(deployed, picture_folder, tmp_path):
    network = converted(deployed, 1, 3, 16, 16)
    network = ov.Model([op.sigmoid(network.outputs[0].get_node().input_value(0))], network.get_parameters())
    path = saved(network, tmp_path / "net.xml")
    result = quantize_file(path, picture_folder, tmp_path / "out", ASKED, min_agreement=0.1)
    assert result.metrics["passed"] and "top1" not in result.metrics
    pixels = images(4, seed=5)
    logits = deployed.model(torch.from_numpy(planes(pixels))).detach().numpy()
    assert np.abs(given.read(path, ASKED).predict(pixels) - 1 / (1 + np.exp(-logits))).max() < 0.01


@pytest.mark.parametrize("end", [op.softmax, op.sigmoid])
def test_scores_that_are_clipped_and_converted_afterwards_are_scores_still(network, end, tmp_path):
    network = network.clone()
    logits = network.outputs[0].get_node().input_value(0)
    last = op.clamp(op.unsqueeze(end(logits, axis=1) if end is op.softmax else end(logits), np.int64(2)), 1e-7, 1.0)
    last = op.convert(op.squeeze(last, np.int64(2)), "f16")
    path = saved(ov.Model([last], network.get_parameters()), tmp_path / "net.xml")
    read, pixels = given.read(path, ASKED), images(4, seed=5)
    wanted = core().compile_model(core().read_model(path), "CPU", F32)(planes(pixels))[0]
    assert read.output == ("scores" if end is op.sigmoid else "probabilities")
    assert np.abs(read.predict(pixels) - wanted).max() < 1e-2


def test_where_nothing_is_good_enough_biases_are_corrected_and_at_last_no_file_is_written(
    float_file, picture_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(selection, "FLOOR_DB", 300.0)
    channels = {key: ",".join(map(str, ASKED[key])) for key in ("mean", "std")}
    words = ["quantize", str(float_file), "--images", str(picture_folder), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*words, "--mean", channels["mean"], "--std", channels["std"]])
    assert done.exit_code == 1
    assert not [*(tmp_path / "out").rglob("*.xml"), *(tmp_path / "out").rglob("*.bin")]
    stored = json.loads((tmp_path / "out" / "openvino-int8" / "result.json").read_text())
    tried = [step["what"] for step in stored["details"]["steps"]]
    assert any("biases corrected layer by layer" in what for what in tried)
    assert any("put in float" in what for what in tried)
    assert any(what.startswith("8-bit weights, float arithmetic") for what in tried)


def with_bytes(change):
    def damaged(float_file, path):
        shutil.copy(float_file, path)
        path.with_suffix(".bin").write_bytes(change(float_file.with_suffix(".bin").read_bytes()))

    return damaged


def with_text(change):
    def damaged(float_file, path):
        path.write_text(change(float_file.read_text()))
        shutil.copy(float_file.with_suffix(".bin"), path.with_suffix(".bin"))

    return damaged


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (with_bytes(lambda data: data[:500]), "cannot be read by OpenVINO .Incorrect weights in bin file"),
        (with_bytes(lambda data: b""), "cannot be read by OpenVINO"),
        (
            with_bytes(lambda data: b"\xff" * STEM + data[STEM:]),
            "answers of .* are no numbers .NaN.: its weights are damaged",
        ),
        (
            with_bytes(lambda data: bytes(STEM) + data[STEM:]),
            "answers of .* are the same for every image: its weights are",
        ),
        (lambda file, path: shutil.copy(file, path), "has its weights in net.bin, which is not beside it"),
        (with_text(lambda text: text[:3000]), "cannot be read as an OpenVINO file"),
        (with_text(lambda text: ""), "cannot be read as an OpenVINO file"),
        (with_text(lambda text: text.replace('type="HSwish"', 'type="Swash"')), "cannot be read by OpenVINO"),
        (with_text(lambda text: "<annotation><object/></annotation>"), "no OpenVINO network: it begins with <annotat"),
    ],
)
def test_damaged_files_are_one_clear_line(float_file, picture_folder, tmp_path, make, says):
    make(float_file, tmp_path / "net.xml")
    with pytest.raises(UserError, match=says) as error:
        quantize_file(tmp_path / "net.xml", picture_folder, tmp_path / "out", ASKED)
    assert "\n" not in str(error.value) and not list(tmp_path.rglob("model.*"))


def image(*shape, kind=np.float32):
    return op.parameter(list(shape), kind, name="image")


def linear(source, classes=5, kind=np.float32):
    """A linear layer on the means of planes, or on anything flat."""
    features = op.reduce_mean(source, np.array([2, 3]), keep_dims=False) if len(source.shape) == 4 else source
    return op.matmul(features, np.ones((features.shape[1], classes), kind), False, False)


def two_inputs():
    one, other = image(1, 3, 16, 16), image(1, 3, 16, 16)
    return ov.Model([linear(op.add(one, other))], [one, other])


def two_outputs():
    one = image(1, 3, 16, 16)
    return ov.Model([linear(one), linear(one)], [one])


def of(*shape, kind=np.float32, head=linear):
    one = image(*shape, kind=kind)
    return ov.Model([head(one)], [one])


def planes_of_scores(one):
    return op.convolution(one, np.ones((5, 3, 1, 1), np.float32), [1, 1], [0, 0], [0, 0], [1, 1])


def test_scores_that_are_a_map_of_one_pixel_are_read_as_a_row(pictures, tmp_path):
    weights = np.random.default_rng(0).normal(size=(5, 3, 1, 1)).astype(np.float32)

    def head(one):
        pooled = op.reduce_mean(one, np.array([2, 3]), keep_dims=True)
        return op.convolution(pooled, weights, [1, 1], [0, 0], [0, 0], [1, 1])

    ov.save_model(of(-1, 3, 16, 16, head=head), tmp_path / "net.xml", compress_to_fp16=False)
    logits = planes(pictures).mean(axis=(2, 3)) @ weights[:, :, 0, 0].T
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(given.read(tmp_path / "net.xml", ASKED).predict(pictures), shares, atol=1e-5)


def sized(one):
    """Of images of one size alone, whatever its input says."""
    flat = op.reshape(one, np.array([0, 768]), special_zero=True)
    return op.matmul(flat, np.ones((768, 5), np.float32), False, False)


@pytest.mark.parametrize(
    ("make", "says", "size"),
    [
        (two_inputs, "has 2 inputs .*; an image classifier has one", None),
        (two_outputs, r"has 2 outputs \(.* x 5, .*\); a classifier has one", None),
        (lambda: of(4, 3, 16, 16), "takes 4 images at once; .* one or any number", None),
        (lambda: of(1, 8, 16, 16), "is 1 x 8 x 16 x 16; an image is", None),
        (lambda: of(1, 3, 16, 16, kind=np.float64, head=lambda x: linear(x, kind=np.float64)), "computes in f64", None),
        (lambda: of(1, 3, 16, 16, head=lambda x: linear(x, classes=1)), "is 1 x 1; a classifier gives", None),
        (lambda: of(1, 3, 16, 16, head=lambda x: op.relu(op.multiply(x, np.float32(2)))), "nothing to quantize", None),
        (lambda: of(1, 3, 16, 16, head=planes_of_scores), "is 1 x 5 x 16 x 16; a classifier", None),
        (lambda: of(1, 3, -1, -1, head=sized), "cannot take images of 24 pixels", 24),
        (lambda: of(1, 3, 24, 16), "takes images of 24 x 16 pixels", 24),
    ],
)
def test_networks_that_are_no_float_classifiers_are_refused_in_one_line(picture_folder, tmp_path, make, says, size):
    ov.save_model(make(), tmp_path / "net.xml", compress_to_fp16=False)
    with pytest.raises(UserError, match=says) as error:
        quantize_file(tmp_path / "net.xml", picture_folder, tmp_path / "out", {**ASKED, "size": size})
    assert "\n" not in str(error.value)


def test_a_network_that_computes_in_16_bits_is_quantized_and_keeps_its_ends_in_them(pictures, picture_folder, tmp_path):
    kernels, head = (0.3 * np.random.default_rng(seed).normal(size=s) for seed, s in ((0, (8, 3, 3, 3)), (1, (8, 5))))
    image = op.parameter([-1, 3, 16, 16], np.float16, name="image")
    made = op.relu(op.convolution(image, kernels.astype(np.float16), [1, 1], [0, 0], [0, 0], [1, 1]))
    rows = op.convert(op.convert(op.reduce_mean(made, np.array([2, 3]), keep_dims=False), "f32"), "f16")
    network = ov.Model([op.matmul(rows, (9 * head).astype(np.float16), False, False)], [image])
    network.outputs[0].get_tensor().set_names({"logits"})
    ov.save_model(network, tmp_path / "half.xml", compress_to_fp16=False)
    x = torch.from_numpy(planes(pictures))
    features = torch.relu(torch.conv2d(x, torch.from_numpy(kernels.astype(np.float32)))).mean((2, 3)).numpy()
    wanted = torch.from_numpy(features @ (9 * head).astype(np.float32)).softmax(1).numpy()
    assert np.abs(given.read(tmp_path / "half.xml", ASKED).predict(pictures) - wanted).max() < 0.01
    result = quantize_file(tmp_path / "half.xml", picture_folder, tmp_path / "out", ASKED, min_agreement=0.5)
    assert result.details["precision"] == "fp16" and result.metrics["sqnr_db"] > 20
    ends = core().read_model(tmp_path / "out/openvino-int8/model.xml")
    assert [port.get_element_type() for port in (*ends.inputs, *ends.outputs)] == [ov.Type.f16] * 2
    assert ends.outputs[0].get_names() == {"logits"}


def test_files_in_8_bits_already_and_floats_of_unknown_normalisation_are_refused(
    quantized, float_file, deployed, pictures, picture_folder, tmp_path
):
    with pytest.raises(UserError, match=r"model.xml is quantized already \(FakeQuantize, weights in i8\); give the fl"):
        quantize_file(quantized[1] / "model.xml", picture_folder, tmp_path / "out", ASKED)
    weights = OpenVino().convert(deployed, "w8a32", pictures[:0], tmp_path)
    with pytest.raises(UserError, match=r"is quantized already \(weights in i8\)"):
        quantize_file(weights.path, picture_folder, tmp_path / "out")
    with pytest.raises(UserError, match="does not say how they are normalised: give --mean and --std"):
        quantize_file(float_file, picture_folder, tmp_path / "out")
    with pytest.raises(UserError, match="takes images of 16 x 16 pixels; --size must be that"):
        quantize_file(float_file, picture_folder, tmp_path / "out", {**ASKED, "size": 32})


def test_a_network_that_ends_in_a_hard_sigmoid_is_judged_label_by_label(deployed, pictures, tmp_path):
    network = converted(deployed, -1, 3, 16, 16)
    logits = network.outputs[0].get_node().input_value(0)
    ends = op.hard_sigmoid(logits, op.constant(np.float32(0.2)), op.constant(np.float32(0.5)))
    read = given.read(saved(ov.Model([ends], network.get_parameters()), tmp_path / "hard.xml"), ASKED)
    with torch.no_grad():
        z = deployed.model(deployed.normalised(torch.from_numpy(pictures).permute(0, 3, 1, 2)))
    wanted = torch.sigmoid(6 * (torch.clamp(0.2 * z + 0.5, 0, 1) - 0.5)).numpy()
    assert read.output == "scores" and np.abs(read.predict(pictures) - wanted).max() < 0.01


def test_a_network_for_grey_images_gets_them_as_pillow_makes_them(pictures, tmp_path):
    image = op.parameter([-1, 1, 16, 16], np.float32, name="levels")
    weights = np.random.default_rng(0).normal(size=(8, 1, 16, 16)).astype(np.float32)
    made = op.convolution(image, op.constant(weights), [1, 1], [0, 0], [0, 0], [1, 1])
    rows = op.reshape(made, op.constant(np.array([0, 8])), special_zero=True)
    read = given.read(saved(ov.Model([rows], [image]), tmp_path / "grey.xml"), {"mean": (0.5,) * 3, "std": (2.0,) * 3})
    levels = np.stack([np.asarray(Image.fromarray(one).convert("L")) for one in pictures]) / 255
    logits = ((levels - 0.5) / 2).reshape(len(levels), -1) @ weights.reshape(8, -1).T
    assert np.abs(read.predict(pictures) - torch.from_numpy(logits).softmax(1).numpy()).max() < 0.02
    assert read.about["channels"] == 1


@pytest.mark.parametrize(("factor", "white"), [(255.0, 255), (1.0, 1)])
def test_a_network_with_its_preprocessing_inside_says_what_it_takes(
    deployed, pictures, tmp_path, capsys, factor, white
):
    """As openvino.preprocess puts it there."""
    prepared = ov.preprocess.PrePostProcessor(converted(deployed, -1, 3, 16, 16))
    prepared.input().tensor().set_layout(ov.Layout("NCHW"))
    steps = prepared.input().preprocess()
    steps.mean([factor * value for value in SPEC.mean]).scale([factor * value for value in SPEC.std])
    path = saved(prepared.build(), tmp_path / "inside.xml")
    read = given.read(path, {})
    assert np.abs(read.predict(pictures) - deployed.predict(pictures)).max() < 0.02
    assert f"since it normalises values up to {white} itself" in capsys.readouterr().err
    given.read(path, ASKED)
    assert f"warning: inside.xml normalises values up to {white} itself" in capsys.readouterr().err
