"""The check stage with a real int8 ONNX file that the gates refuse."""

import numpy as np
import onnx
import pytest
import torch

from softedge import backbones, config
from softedge.data.images import ArrayImages, Data
from softedge.export.contract import Golden, artifact_of, read, write
from softedge.export.deployed import Deployed
from softedge.export.onnx.format import Onnx
from softedge.export.onnx.quantizer import Scheme
from softedge.export.openvino import int8 as openvino_int8
from softedge.export.openvino import network as openvino
from softedge.export.verify import verify
from softedge.quantize import doctor as int8_doctor
from softedge.quantize.candidate import graph_of
from softedge.quantize.ladder import Climb, Rung
from softedge.records import InputSpec
from softedge.run import Run
from softedge.stages import check as quantization

SPEC = InputSpec(32, 32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
IMAGES = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
LABELS = ("ant", "bee")
DATA = Data("test", LABELS, SPEC, *[ArrayImages(IMAGES, np.arange(24) % 2, [str(i) for i in range(24)])] * 3)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run with one int8 ONNX file, two of its layers in float."""
    root = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    classifier = backbones.Classifier(
        backbones.build(config.Backbone(name="mobilenetv3_small_050")), LABELS, SPEC
    ).eval()
    backbones.save(root / "probe" / "classifier.safetensors", classifier, SPEC)
    folder = root / "export" / "onnx-int8"
    folder.mkdir(parents=True)
    graph = graph_of(Deployed(classifier, SPEC))
    chosen = [node.name for node in graph.graph.node if node.op_type == "Conv"][-2:]
    scheme = Scheme(float_nodes=frozenset(chosen))
    artifact = Onnx(scheme=scheme).convert(Deployed(classifier, SPEC), "int8", IMAGES[:8], folder)
    assert artifact == artifact_of(folder / "model.onnx", "onnx", "int8", SPEC, LABELS)
    write(folder, artifact, Golden(IMAGES[:1], np.zeros((1, 2), np.float32), np.zeros((1, 2), np.float32)))
    return Run(root)


def recipe(**check):
    return config.Recipe(name="test", check=config.Check(**check))


def climb_to(model, deployed):
    rungs = (
        Rung("default", "as exported", {"agreement": 0.5}, 1, None, ("agreement",)),
        Rung("bias", "x", {}, 1, None, ()),
    )
    return Climb(rungs, model, "bias", deployed, (), "Use 'bias'.")


def test_a_refused_file_is_replaced_by_what_the_doctor_finds_and_the_gate_opens(exported, monkeypatch):
    def treat(deployed, artifact, recipe, data, test):
        return climb_to(onnx.load(str(artifact.path)), deployed)

    verdicts = iter([["agreement 0.5 is below 0.98"], []])
    monkeypatch.setattr(int8_doctor, "treat", treat)
    monkeypatch.setattr(quantization, "refusals", lambda row, gates, artifact: next(verdicts))
    result = quantization.stage(exported, recipe(images=20), DATA, force=True)
    rows = {row["artifact"]: row for row in result.details["rows"]}
    assert rows["onnx-int8"]["passed"] is False
    assert rows["onnx-int8"]["superseded_by"] == "onnx-int8-doctor"
    assert rows["onnx-int8-doctor"]["passed"] is True
    assert result.details["failed"] == []
    assert result.details["doctor"]["recommendation"] == "Use 'bias'."
    folder = exported.folder("export") / "onnx-int8-doctor"
    assert read(folder).precision == "int8-doctor"
    assert {path.name for path in folder.iterdir()} >= {"model.onnx", "contract.json", "golden", "result.json"}
    assert verify(folder)["passed"] and "model.onnx" in (folder / "snippets" / "run.py").read_text()


def test_when_nothing_helps_the_run_fails(exported, monkeypatch):
    monkeypatch.setattr(int8_doctor, "treat", lambda deployed, *rest: climb_to(None, deployed))
    monkeypatch.setattr(quantization, "refusals", lambda row, gates, artifact: ["agreement 0.5 is below 0.98"])
    result = quantization.stage(exported, recipe(images=20), DATA, force=True)
    assert result.details["failed"] == ["onnx-int8: agreement 0.5 is below 0.98"]
    assert result.details["doctor"]["passed"] is False


def test_checking_again_does_not_count_the_doctors_file_as_a_new_input(exported, monkeypatch):
    monkeypatch.setattr(int8_doctor, "treat", lambda deployed, *rest: climb_to(None, deployed))
    first = quantization.stage(exported, recipe(images=20, doctor=False), DATA, force=True)
    again = quantization.stage(exported, recipe(images=20, doctor=False), DATA)
    assert set(first.inputs) == {"onnx-int8", "probe/classifier.safetensors"}
    assert again.started == first.started


def test_layers_in_float_still_have_their_weights_in_eight_bits(exported):
    counted = Onnx().integer_operations(read(exported.folder("export") / "onnx-int8"))
    assert counted["linear"] == 1
    assert counted["conv"] > 40
    assert counted.get("conv_float", 0) + counted.get("conv_weights", 0) == 2


def test_size_limit_refuses_and_says_the_bytes(exported):
    result = quantization.stage(exported, recipe(images=20, doctor=False, max_size=1000), DATA, force=True)
    assert "above the limit of 1000" in result.details["failed"][0]


class Halving:
    """fp32 is as sure of an image as it is bright."""

    output = "probabilities"

    def predict(self, images):
        sure = 0.5 + images[:, 0, 0, 0].astype(np.float32) / 600
        return np.stack([sure, 1 - sure], axis=1)


def test_calibration_and_selection_images_are_apart_and_as_hard_as_the_test_images():
    many = np.random.default_rng(1).integers(0, 256, (1200, 8, 8, 3), dtype=np.uint8)
    spec = InputSpec(8, 8, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    images = ArrayImages(many, np.full(1200, -1), [str(i) for i in range(1200)])
    dark = many[many[:, 0, 0, 0] < 100]  # of these fp32 is less sure than of most
    calibration, selection, training = int8_doctor.unlabelled(
        Data("test", (), spec, images, images.subset([]), images.subset([])),
        recipe(),
        Halving(),
        Halving().predict(dark),
    )
    assert (len(calibration), len(selection.images), len(training)) == (300, 450, 1200)
    keys = [{image.tobytes() for image in part} for part in (calibration, selection.images)]
    assert not keys[0] & keys[1]
    brightness = [part[:, 0, 0, 0].mean() for part in (dark, selection.images, many)]
    assert brightness[1] < (brightness[0] + brightness[2]) / 2
    np.testing.assert_array_equal(selection.fp32, Halving().predict(selection.images))


def test_a_refused_openvino_file_ends_with_other_layers_in_float_or_8_bit_weights(exported):
    pytest.importorskip("nncf")
    from softedge.export.openvino.format import OpenVino

    folder = exported.folder("export") / "openvino-int8"
    folder.mkdir(parents=True, exist_ok=True)
    deployed = Deployed(backbones.load_classifier(exported.folder("probe") / "classifier.safetensors"), SPEC)
    patient = OpenVino().convert(deployed, "int8", IMAGES[:8], folder)
    fp32 = deployed.predict(IMAGES)
    sample = quantization.Sample(IMAGES, np.arange(24) % 2, tuple(str(i) for i in range(24)), True)
    row = {"agreement": 0.5, "sqnr_db": 1.0, "passed": False, "why": "agreement 0.500 is below 1"}
    strict = recipe(min_agreement=1.0, max_drop=0.0)
    told = {"layers": [{"name": name} for name in openvino_int8.layers(openvino.from_onnx(deployed))]}
    made, told = int8_doctor.cure_elsewhere(
        exported, strict, DATA, (deployed, patient), row, sample, fp32, (None, told)
    )
    assert made is not None and made.name == "openvino-int8-doctor" and made.labels == LABELS
    assert told["rungs"][0]["rung"] == "default" and told["rungs"][-1]["passed"]
    np.testing.assert_array_equal(OpenVino().load(made)(IMAGES).argmax(1), fp32.argmax(1))
    assert made.size_bytes < 0.4 * sum(t.numel() * 4 for t in deployed.state_dict().values())


def test_openvino_layers_put_in_float_read_unrounded_values_and_keep_8_bit_weights(exported):
    pytest.importorskip("nncf")
    deployed = Deployed(backbones.load_classifier(exported.folder("probe") / "classifier.safetensors"), SPEC)
    network = openvino_int8.quantize(openvino.from_onnx(deployed), IMAGES[:8])
    names = [n for n, op in openvino_int8.layers(network).items() if reads_rounded(op)]
    changed = openvino_int8.with_float(network, names[:3])
    rounded = {name for name, op in openvino_int8.layers(changed).items() if reads_rounded(op)}
    assert rounded == set(names[3:])
    assert [n for n, op in openvino_int8.layers(network).items() if reads_rounded(op)] == names  # a copy was changed
    closer = [np.abs(openvino.predictor(m)(IMAGES) - deployed.predict(IMAGES)).mean() for m in (changed, network)]
    every = openvino.predictor(openvino_int8.with_float(network, names))(IMAGES)
    assert np.abs(every - deployed.predict(IMAGES)).mean() < closer[1]


def reads_rounded(op):
    return op.input_value(0).get_node().get_type_name() == "FakeQuantize"
