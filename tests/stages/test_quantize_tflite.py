"""A float LiteRT classifier that is nothing but a file: quantized in LiteRT's own environment, or refused."""

from __future__ import annotations

import importlib.util
import json
import zipfile

import numpy as np
import pytest
import torch
from tiny_network import SPEC

from softedge.errors import UserError
from softedge.export import contract, given_notes
from softedge.export.given_file import Interface
from softedge.export.litert import candidates, given
from softedge.export.litert.environment import WORKER, work
from softedge.export.litert.format import LiteRt
from softedge.export.parity import compare
from softedge.files import write_json
from softedge.stages.quantize_file import quantize_file

ASKED = {"mean": SPEC.mean, "std": SPEC.std, "crop": 16 / 18}


@pytest.fixture(scope="module")
def worker():
    spec = importlib.util.spec_from_file_location("litert_worker", WORKER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", ["float", "uint8"])
@pytest.mark.parametrize("planes", [True, False])
@pytest.mark.parametrize(("channels", "bgr"), [(3, False), (3, True), (1, False)])
def test_the_worker_feeds_a_file_what_its_interface_says(worker, pictures, tmp_path, kind, planes, channels, bgr):
    known = Interface(16, planes, kind, "probabilities", logits=True, channels=channels, bgr=bgr)
    file = candidates.File(tmp_path / "net.tflite", known, SPEC, (), ())
    (tmp_path / "feed.json").write_text(json.dumps(file.feed()))
    fed = worker._feeder(tmp_path / "feed.json")(pictures[:1])
    assert fed.shape == ((1, channels, 16, 16) if planes else (1, 16, 16, channels))
    assert np.allclose(fed, known.fed(pictures[:1], SPEC), atol=1e-6) and fed.dtype == known.fed(pictures, SPEC).dtype


def test_padding_with_minus_infinity_is_in_no_range(worker):
    assert worker._finite(np.array([[-np.inf, 0.5], [3.0, -np.inf]])).tolist() == [0.5, 3.0]
    assert worker._finite(np.full((2, 2), -np.inf)).tolist() == [0.0]


class Interpreter:
    """Two float tensors, the input and twice it, and one of integers."""

    def get_tensor_details(self):
        kinds = {"image": np.float32, "twice": np.float32, "whole": np.int8}
        return [{"index": index, "name": name, "dtype": kind} for index, (name, kind) in enumerate(kinds.items())]

    def get_input_details(self):
        return [{"index": 0}]

    def _get_ops_details(self):
        return [{"outputs": [1]}, {"outputs": [2]}]

    def set_tensor(self, index, value):
        self.value = value

    def invoke(self):
        pass

    def get_tensor(self, index):
        return self.value * (index + 1)


def test_the_worker_sees_the_extremes_of_each_image_and_counts_the_values_of_all(worker, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "_interpreter", lambda path, **_: Interpreter())
    images = np.random.default_rng(0).normal(0, 50, (5, 4, 4, 3)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    (tmp_path / "feed.json").write_text("{}")
    worker.observe("net.tflite", tmp_path / "images.npy", tmp_path / "feed.json", tmp_path / "found.npz")
    with np.load(tmp_path / "found.npz") as found:
        assert found["names"].tolist() == ["image", "twice"]
        for row, factor in enumerate((1, 2)):
            values = factor * images.reshape(5, -1)
            assert found["lows"][:, row] == pytest.approx(values.min(1))
            assert found["highs"][:, row] == pytest.approx(values.max(1))
            counted, _ = np.histogram(values, worker.BINS, (values.min(), values.max()))
            assert np.abs(found["counts"][row] - counted).sum() <= 2, "but for a value on an edge"
            assert found["counts"][row].sum() == images.size


def operator(kind, output, weights=None):
    return {"kind": kind, "outputs": [output], "weights": weights}


def tensor(*dims, kind="float32"):
    return {"name": "x", "dims": list(dims), "kind": kind}


IMAGE, LAYER = tensor(1, 16, 16, 3), operator("CONV_2D", "a", "float32")


@pytest.mark.parametrize(
    ("inputs", "operators", "says"),
    [
        ([IMAGE, IMAGE], [LAYER], "has 2 inputs .*; an image classifier has one"),
        ([tensor(1, 0, 0, 3)], [LAYER], "takes images of any size, which cannot be calibrated"),
        ([tensor(4, 16, 16, 3)], [LAYER], "takes 4 images at once"),
        ([tensor(1, 16, 16, 3, kind="int8")], [LAYER], "is 1 x 16 x 16 x 3, int8; an image is"),
        ([IMAGE], [operator("ADD", "a")], "has no convolution or linear layer with weights"),
        ([IMAGE], [operator("CONV_2D", "a", "int8")], r"quantized already, .* \(weights in int8\)"),
        ([IMAGE], [operator("DEQUANTIZE", "b"), LAYER], r"computes in 16 bits \(DEQUANTIZE\); give the float file"),
    ],
)
def test_files_that_are_no_float_classifiers_are_refused_in_one_line(monkeypatch, inputs, operators, says, tmp_path):
    about = {"inputs": inputs, "outputs": [{**tensor(1, 5), "name": "a"}], "operators": operators}
    monkeypatch.setattr(candidates, "work", lambda verb, path, out: out.write_text(json.dumps(about)))
    with pytest.raises(UserError, match=says) as error:
        given.read(tmp_path / "net.tflite", ASKED)
    assert "\n" not in str(error.value)


RESCALING = [("MUL", [1 / 127.5]), ("ADD", [-1.0])]  # as Keras puts it into MobileNetV2
SHARES = [("SUB", list(SPEC.mean)), ("DIV", list(SPEC.std))]


@pytest.mark.parametrize(("steps", "white"), [(RESCALING, 255), (SHARES, 1), ([("ADD", [0.1])], None)])
def test_a_network_that_normalises_its_image_itself_says_what_it_takes(monkeypatch, tmp_path, capsys, steps, white):
    """It was normalised twice without a word."""
    operators = [
        {**operator(kind, f"step{index}"), "source": f"step{index - 1}" if index else "x"}
        for index, (kind, _) in enumerate(steps)
    ]
    operators.append({**LAYER, "source": f"step{len(steps) - 1}"})
    about = {"inputs": [IMAGE], "outputs": [{**tensor(1, 5), "name": "a"}], "operators": operators}
    monkeypatch.setattr(candidates, "work", lambda verb, path, out: out.write_text(json.dumps(about)))
    constants = {f"step{index}": values for index, (_, values) in enumerate(steps)}
    monkeypatch.setattr(given, "work", lambda verb, path, out, script: out.write_text(json.dumps(constants)))
    monkeypatch.setattr(given, "run", lambda path, images, feed: np.array([[-1.0, 0.0, 1.0, 2.0, 3.0]], np.float32))
    if white is None:
        with pytest.raises(UserError, match="does not say how they are normalised"):
            given.read(tmp_path / "net.tflite", {})
        return
    spec = given.read(tmp_path / "net.tflite", {}).spec
    assert spec.mean == (0.0,) * 3 and spec.std == (1 / white,) * 3
    assert f"since it normalises values up to {white} itself" in capsys.readouterr().err
    given.read(tmp_path / "net.tflite", ASKED)
    assert f"warning: net.tflite normalises values up to {white} itself, and gets normalised" in capsys.readouterr().err


def test_class_names_are_read_from_the_labels_that_metadata_puts_behind_the_file(tmp_path):
    path = tmp_path / "net.tflite"
    path.write_bytes(b"flatbuffer")
    assert given._labels(path) == {}
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.txt", "red, ripe\ngreen\n")
    assert given_notes.names(path, given._labels(path)) == (("red, ripe", "green"), "labels")


@pytest.mark.parametrize(("kind", "output"), [("LOGISTIC", "scores"), ("SOFTMAX", "probabilities")])
def test_scores_that_are_reshaped_or_clipped_afterwards_are_scores_still(monkeypatch, tmp_path, kind, output):
    behind = [("a", kind, "s"), ("s", "EXPAND_DIMS", "e"), ("e", "RESHAPE", "r"), ("r", "MINIMUM", "m")]
    operators = [LAYER, *({**operator(each, after), "source": before} for before, each, after in behind)]
    about = {"inputs": [IMAGE], "outputs": [{**tensor(1, 5), "name": "m"}], "operators": operators}
    monkeypatch.setattr(candidates, "work", lambda verb, path, out: out.write_text(json.dumps(about)))
    assert given.read(tmp_path / "net.tflite", ASKED).output == output
    assert candidates.floats_of(about) == ("s",), "what makes the scores stays in float"


def test_without_the_environment_one_line_says_how_to_make_it(monkeypatch, tmp_path, picture_folder):
    monkeypatch.setenv("SOFTEDGE_LITERT", str(tmp_path / "none"))
    (tmp_path / "net.tflite").write_text("")
    with pytest.raises(UserError, match="LiteRT needs an environment of its own .* softedge setup litert"):
        quantize_file(tmp_path / "net.tflite", picture_folder, tmp_path / "out", ASKED)


@pytest.fixture(scope="module")
def float_file(deployed, tmp_path_factory):
    """Normalised planes in, logits out."""
    if (why := LiteRt().missing()) is not None:
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("float")
    with torch.no_grad():
        torch.export.save(torch.export.export(deployed.model, (torch.zeros(1, 3, 16, 16),)), folder / "net.pt2")
    work("convert", folder / "net.pt2", folder / "net.tflite")
    return folder / "net.tflite"


@pytest.mark.slow
@pytest.mark.hardware
def test_the_int8_file_takes_the_place_of_the_float_file(float_file, picture_folder, pictures, deployed, tmp_path):
    """Same input, same output, a fraction of the noise; weights and activations are integers."""
    read = given.read(float_file, ASKED)
    assert np.abs(read.predict(pictures[:8]) - deployed.predict(pictures[:8])).max() < 1e-5
    result = quantize_file(float_file, picture_folder, tmp_path / "out", ASKED, min_agreement=0.5)
    made = tmp_path / "out" / "litert-int8" / "model.tflite"
    assert result.metrics["passed"] and result.metrics["n"] == 80
    assert compare(read.read_back(made)(pictures), deployed.predict(pictures)).sqnr_db > 15
    about = {}
    for path in (float_file, made):
        work("read", path, tmp_path / "about.json")
        about[path] = json.loads((tmp_path / "about.json").read_text())
    assert about[made]["inputs"] == about[float_file]["inputs"]
    assert about[made]["outputs"] == about[float_file]["outputs"]
    kinds = [op["weights"] for op in about[made]["operators"] if op["kind"] in candidates.WEIGHTED]
    assert kinds[2:] == ["int8"] * 5, "the first two may be in float"
    rows = [step["what"] for step in result.details["steps"]]
    assert {"calibration by mean", "calibration by minmax", "calibration by minmax, first layer in float"} <= set(rows)
    assert any(row.endswith("; weights rounded for the least error of each layer's output") for row in rows)
    with pytest.raises(UserError, match=r"is quantized already, .* weights in int8\); give the float file"):
        given.read(made, ASKED)


@pytest.mark.slow
@pytest.mark.hardware
def test_layers_in_float_and_weights_alone_are_candidates_and_a_softmax_stays_in_float(
    float_file, pictures, deployed, tmp_path
):
    """Softedge's own file: uint8 in, softmax behind, its preprocessing in contract.json."""
    artifact = LiteRt().convert(deployed, "fp32", pictures[:0], tmp_path)
    golden = contract.Golden(pictures[:2], deployed.predict(pictures[:2]), deployed.predict(pictures[:2]))
    contract.write(tmp_path, artifact, golden)
    read = given.read(artifact.path, {})
    assert read.spec.resize == SPEC.resize
    made = read.candidates(pictures[:40])
    options = [next(option for option in made.calibrations() if option.what == "calibration by minmax")]
    options += [made.with_float(options[0], made.layers()[1:]), made.weights_only()]
    layers = []
    for option in options:
        (tmp_path / "made").mkdir(exist_ok=True)
        work("read", made.write(option, tmp_path / "made"), tmp_path / "about.json")
        operators = json.loads((tmp_path / "about.json").read_text())["operators"]
        layers.append([op["weights"] for op in operators if op["kind"] in candidates.WEIGHTED])
        assert compare(made.predict(option, pictures), deployed.predict(pictures)).sqnr_db > 15
        assert next(op for op in reversed(operators))["kind"] == "SOFTMAX"
    assert layers[0] == ["int8"] * 7 and layers[1] == ["int8"] + ["float32"] * 6
    assert made.float_layers(options[1]) == set(made.layers()[1:])


@pytest.mark.slow
@pytest.mark.hardware
def test_the_quantizer_keeps_rounded_weights_and_the_file_is_nearer_to_fp32(float_file, pictures):
    read = given.read(float_file, ASKED)
    made = read.candidates(pictures[:40])
    option = made.weights_only()
    kept = made.rounded(option, pictures[:40])
    fp32, in_float = read.predict(pictures), made.file.answering(kept.model.source)(pictures)
    assert 1e-4 < np.abs(in_float - fp32).max() < 0.1, "something was rounded"
    assert np.abs(made.predict(kept, pictures) - in_float).max() < 1e-5
    assert compare(in_float, fp32).sqnr_db > compare(made.predict(option, pictures), fp32).sqnr_db + 1


@pytest.mark.slow
@pytest.mark.hardware
def test_a_file_with_weights_in_16_bits_is_widened_and_quantized(float_file, picture_folder, pictures, tmp_path):
    write_json(tmp_path / "plan.json", {"scheme": "fp16", "ranges": {}, "float": []})
    work("quantize", float_file, tmp_path / "plan.json", tmp_path / "half.tflite")
    assert "DEQUANTIZE" in {op["kind"] for op in candidates.described(tmp_path / "half.tflite")["operators"]}
    read, fp32 = given.read(tmp_path / "half.tflite", ASKED), given.read(float_file, ASKED)
    assert read.precision == "fp16" and fp32.precision == "fp32"
    own = candidates.run(tmp_path / "half.tflite", pictures, fp32.candidates(pictures).file.feed())
    shares = torch.from_numpy(own).softmax(1).numpy()
    assert np.abs(read.predict(pictures) - shares).max() < 1e-5
    result = quantize_file(tmp_path / "half.tflite", picture_folder, tmp_path / "out", ASKED, min_agreement=0.5)
    made = candidates.described(tmp_path / "out/litert-int8/model.tflite")["operators"]
    assert result.metrics["passed"]
    assert [op["weights"] for op in made if op["kind"] in candidates.WEIGHTED][2:] == ["int8"] * 5


class Rescaled(torch.nn.Module):
    """Behind Keras' Rescaling(1 / 127.5, offset=-1)."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x * (1 / 127.5) - 1)


@pytest.mark.slow
@pytest.mark.hardware
def test_a_file_behind_rescaling_takes_grey_levels(float_file, deployed, pictures, tmp_path):
    with torch.no_grad():
        program = torch.export.export(Rescaled(deployed.model), (torch.zeros(1, 3, 16, 16),))
        torch.export.save(program, tmp_path / "net.pt2")
        wanted = deployed.model(torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1).softmax(1).numpy()
    work("convert", tmp_path / "net.pt2", tmp_path / "net.tflite")
    assert np.abs(given.read(tmp_path / "net.tflite", {}).predict(pictures) - wanted).max() < 1e-4
