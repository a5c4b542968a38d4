"""A float ONNX classifier that is nothing but a file: quantized with its own input and outputs, or refused."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from PIL import Image
from tiny_network import SPEC, images, planes_to_logits
from typer.testing import CliRunner

import softedge
from softedge.cli import app
from softedge.commands import tables
from softedge.errors import UserError
from softedge.export.onnx import given
from softedge.quantize import selection
from softedge.stages import quantize_images
from softedge.stages.quantize_file import quantize_file

ASKED = {"mean": SPEC.mean, "std": SPEC.std, "crop": 16 / 18}


@pytest.fixture(scope="module")
def float_file(deployed, tmp_path_factory):
    """Normalised planes in, logits out, as other exporters write it."""
    path, names = tmp_path_factory.mktemp("float") / "net.onnx", {"input_names": ["pixels"], "output_names": ["logits"]}
    return planes_to_logits(deployed.model, path, {0: "batch"}, **names)


@pytest.fixture(scope="module")
def quantized(float_file, picture_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "quantized"
    return quantize_file(float_file, picture_folder, out, ASKED, min_agreement=0.5), out / "onnx-int8"


def logits(path, pixels):
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(["logits"], {"pixels": pixels})[0]


def test_the_int8_file_takes_the_place_of_the_float_file(quantized, float_file, pictures):
    """Same input, same output, a fraction of the noise; weights and activations are integers."""
    result, folder = quantized
    x = (pictures / 255.0 - np.array(SPEC.mean)) / np.array(SPEC.std)
    planes = x.transpose(0, 3, 1, 2).astype(np.float32)
    wanted, found = logits(float_file, planes), logits(folder / "model.onnx", planes)
    assert found.shape == wanted.shape
    assert np.linalg.norm(found - wanted) < 0.35 * np.linalg.norm(wanted)
    made = onnx.load(folder / "model.onnx")
    assert {node.op_type for node in made.graph.node} >= {"QuantizeLinear", "DequantizeLinear", "Conv"}
    assert not [node.name for node in made.graph.node if node.name.startswith(given.OURS)]
    assert result.metrics["passed"] and result.metrics["n"] == 80, "half of the images are kept to test on"


def test_the_weights_of_the_file_are_rounded_for_each_layers_output_and_that_is_nearer(quantized):
    result, _ = quantized
    steps = result.details["steps"]
    rounded = next(step for step in steps if "least error" in step["what"])
    plain = next(step for step in steps if step["what"] == rounded["what"].split("; weights rounded")[0])
    assert rounded["sqnr_db"] > plain["sqnr_db"] and rounded["size_bytes"] == plain["size_bytes"]
    assert rounded["step"] == "rounded" and "least error" in result.details["what"]


def test_every_calibration_that_was_tried_is_a_row_with_its_measures(quantized):
    result, _ = quantized
    rows = [step for step in result.details["steps"] if "calibration by" in step["what"]]
    for method in ("mean", "minmax", "percentile", "mse", "entropy"):
        assert any(f"calibration by {method}" in row["what"] for row in rows)
    assert all(row["agreement"] <= 1 and row["size_bytes"] > 0 and row["time_over_fp32"] > 0 for row in rows)
    assert sum(result.details["images"].values()) == 160


def test_the_whole_graph_in_float_behind_softedges_preprocessing_is_the_network(float_file, deployed, pictures):
    found = given.read(float_file, ASKED).predict(pictures)
    assert np.abs(found - deployed.predict(pictures)).max() < 1e-5


def test_where_nothing_is_good_enough_no_file_is_written_and_the_exit_code_is_1(
    float_file, picture_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(selection, "FLOOR_DB", 300.0)
    channels = {key: ",".join(map(str, ASKED[key])) for key in ("mean", "std")}
    words = ["quantize", str(float_file), "--images", str(picture_folder), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*words, "--mean", channels["mean"], "--std", channels["std"]])
    assert done.exit_code == 1
    assert not list((tmp_path / "out").rglob("*.onnx"))
    stored = json.loads((tmp_path / "out" / "onnx-int8" / "result.json").read_text())
    assert stored["metrics"]["passed"] is False and len(stored["details"]["steps"]) > 5


def test_the_integers_of_another_model_are_not_replaced(quantized, float_file, picture_folder, tmp_path):
    out = shutil.copytree(quantized[1].parent, tmp_path / "out")
    before = (out / "onnx-int8/model.onnx").read_bytes()
    changed = onnx.load(float_file)
    changed.doc_string = "another"
    other = tmp_path / "other.onnx"
    onnx.save(changed, other)
    with pytest.raises(UserError, match=f"is what was made of {float_file}; give another --out, or --force"):
        quantize_file(other, picture_folder, out, ASKED, min_agreement=0.5)
    assert (out / "onnx-int8/model.onnx").read_bytes() == before
    moved = shutil.copy(float_file, tmp_path / "moved.onnx")
    with pytest.raises(UserError, match="made with other settings"):  # the same model, another gate
        quantize_file(moved, picture_folder, out, ASKED, min_agreement=0.9)


def test_verify_says_why_it_cannot_replay_what_was_made_of_a_file(quantized):
    with pytest.raises(UserError, match="softedge quantize wrote it from a model file.*; it has no golden images"):
        softedge.verify(quantized[1])


def test_files_that_cannot_be_quantized_are_one_clear_line(float_file, quantized, picture_folder, tmp_path):
    with pytest.raises(UserError, match="does not say how they are normalised: give --mean and --std"):
        quantize_file(float_file, picture_folder, tmp_path / "a")
    with pytest.raises(UserError, match=r"model.onnx is quantized already \(DequantizeLinear"):
        quantize_file(quantized[1] / "model.onnx", picture_folder, tmp_path / "b", ASKED)
    with pytest.raises(UserError, match="need real images; give a folder of them with --images"):
        quantize_file(float_file, None, tmp_path / "c", ASKED)
    with pytest.raises(UserError, match="takes images of 16 x 16 pixels; --size must be that"):
        quantize_file(float_file, picture_folder, tmp_path / "d", {**ASKED, "size": 32})
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(UserError, match="cannot be read as an ONNX file"):
        quantize_file(tmp_path / "text.onnx", picture_folder, tmp_path / "e", ASKED)
    model = onnx.load(float_file)
    model.graph.output.append(onnx.ValueInfoProto(name=model.graph.node[5].output[0]))
    onnx.save(model, tmp_path / "two.onnx")
    with pytest.raises(UserError, match=r"has 2 outputs \(.* x 5, .*\); a classifier has one"):
        quantize_file(tmp_path / "two.onnx", picture_folder, tmp_path / "f", ASKED)


def _with_head(float_file, out, kind, inputs, width, **attributes):
    model = onnx.load(float_file)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "axes"))
    model.graph.node.append(onnx.helper.make_node(kind, inputs, ["scores"], **attributes))
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["batch", width]))
    onnx.save(model, out)
    return out


def raw(file, pixels):
    """What the file gives for planes that were normalised here."""
    x = (pixels / 255.0 - np.array(ASKED["mean"])) / np.array(ASKED["std"])
    session = ort.InferenceSession(file)
    return session.run(None, {session.get_inputs()[0].name: x.transpose(0, 3, 1, 2).astype(np.float32)})[0]


def test_a_head_of_one_score_without_a_sigmoid_is_refused(float_file, picture_folder, tmp_path):
    """A softmax over one score would agree with anything."""
    file = _with_head(float_file, tmp_path / "head.onnx", "ReduceMax", ["logits", "axes"], 1, keepdims=1)
    with pytest.raises(
        UserError, match=r"is \? x 1; a classifier gives .* or ends in a sigmoid \(--activation sigmoid"
    ):
        quantize_file(file, picture_folder, tmp_path / "out", ASKED)
    asked = {**ASKED, "activation": "sigmoid"}
    result = quantize_file(file, picture_folder, tmp_path / "out", asked, min_agreement=0.1)
    assert result.metrics["passed"] and result.details["output"] == "scores"
    pixels = images(4, seed=5)
    assert np.abs(given.read(file, asked).predict(pixels) - 1 / (1 + np.exp(-raw(file, pixels)))).max() < 1e-5


def test_a_file_that_ends_in_a_sigmoid_is_judged_label_by_label(float_file, picture_folder, tmp_path):
    file = _with_head(float_file, tmp_path / "head.onnx", "Sigmoid", ["logits"], 5)
    result = quantize_file(file, picture_folder, tmp_path / "out", ASKED, min_agreement=0.1)
    assert result.metrics["passed"] and "top1" not in result.metrics
    read = given.read(file, ASKED)
    pixels = images(4, seed=5)
    wanted = 1 / (1 + np.exp(-raw(float_file, pixels)))
    assert read.output == "scores" and np.abs(read.predict(pixels) - wanted).max() < 1e-5


def test_files_of_old_exporters_that_list_weights_as_inputs_are_read(float_file, deployed, pictures, tmp_path):
    model = onnx.load(float_file)
    for tensor in model.graph.initializer:
        model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    onnx.save(model, tmp_path / "old.onnx")
    found = given.read(tmp_path / "old.onnx", ASKED).predict(pictures)
    assert np.abs(found - deployed.predict(pictures)).max() < 1e-5


@pytest.mark.parametrize("batch", [1, 4])
def test_files_of_a_fixed_batch_are_quantized_or_refused_in_one_line(float_file, picture_folder, tmp_path, batch):
    model = onnx.load(float_file)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    onnx.save(model, tmp_path / "fixed.onnx")
    if batch > 1:
        with pytest.raises(UserError, match="takes 4 images at once; .* one or any number"):
            quantize_file(tmp_path / "fixed.onnx", picture_folder, tmp_path / "out", ASKED, min_agreement=0.5)
        return
    result = quantize_file(tmp_path / "fixed.onnx", picture_folder, tmp_path / "out", ASKED, min_agreement=0.5)
    assert result.metrics["passed"] and "least error" in result.details["what"]


def folder_of(images, path):
    path.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image).save(path / f"{index}.png")
    return path


def test_what_few_images_show_is_said_and_near_duplicates_count_once(float_file, tmp_path):
    """4 of 4 answers were told as 100 %, and the same picture calibrated and tested."""
    few = images(10, seed=3)
    photos = folder_of(np.concatenate([few, few[:3]]), tmp_path / "few")
    result = quantize_file(float_file, photos, tmp_path / "out", ASKED, min_agreement=0.1)
    assert result.details["images"] == {"calibration": 2, "selection": 3, "test": 5}
    told = tables.candidates(result, tmp_path / "out")
    share = result.metrics["agreement"]
    centre = (share + 1.96**2 / 10) / (1 + 1.96**2 / 5)  # Wilson, of 5 images
    half = 1.96 * (share * (1 - share) / 5 + 1.96**2 / 100) ** 0.5 / (1 + 1.96**2 / 5)
    assert f"caution: 5 test images show little: of others as few as {100 * (centre - half):.0f} % may keep" in told
    with pytest.raises(UserError, match="has 5 readable images; give at least 8"):
        quantize_file(float_file, folder_of(few[:5], tmp_path / "five"), tmp_path / "fewer", ASKED)
    many = folder_of(np.concatenate([few[:4]] * 5), tmp_path / "copies")
    with pytest.raises(UserError, match="16 images are near-duplicates of the other 4; give at least 8 different ones"):
        quantize_file(float_file, many, tmp_path / "other", ASKED)


def test_photos_saved_again_are_near_duplicates():
    rng = np.random.default_rng(0)
    photos = np.stack([np.kron(rng.integers(0, 256, (16, 16, 3)), np.ones((6, 6, 1))) for _ in range(4)])
    photos = photos.astype(np.uint8)
    again = np.clip(photos.astype(np.int32) + 3, 0, 255).astype(np.uint8)
    assert len(quantize_images.distinct(np.concatenate([photos, again[:2]]))) == 4


def test_one_answer_for_all_test_images_is_a_caution():
    answers = np.tile(np.float32([0.7, 0.2, 0.1]), (300, 1))
    (line,) = quantize_images.cautions(answers, {"agreement": 1.0}, "probabilities")
    assert line.startswith("300 of 300 test images have the same answer, so other classes are hardly tested")
    answers[:30] = answers[:30, ::-1]
    assert not quantize_images.cautions(answers, {"agreement": 1.0}, "probabilities")


def test_one_changed_answer_of_few_is_allowed_as_by_check_and_said(quantized, tmp_path):
    result, _ = quantized
    result = dataclasses.replace(result, details={**result.details, "allowed": "1 of 80 answers changed, which"})
    assert "\nallowed: 1 of 80 answers changed, which\n" in tables.candidates(result, tmp_path)
