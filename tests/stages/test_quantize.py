"""The quantize stage, and the check after it, with a real int8 ONNX file."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import torch

from softedge import backbones, config
from softedge.data.images import ArrayImages, Data
from softedge.errors import UserError
from softedge.export.base import open_format
from softedge.export.contract import Golden, artifact_of, describe, read, write
from softedge.export.deployed import Deployed
from softedge.export.nearest import nearest
from softedge.export.onnx.candidates import OnnxCandidates
from softedge.export.onnx.format import Onnx
from softedge.export.onnx.quantizer import Scheme
from softedge.export.openvino import int8 as openvino_int8
from softedge.export.openvino import network as openvino
from softedge.export.openvino.format import OpenVino
from softedge.export.verify import verify
from softedge.quantize import search as searching
from softedge.quantize import selection
from softedge.quantize.gates import quality
from softedge.quantize.selection import select
from softedge.quantize.steps import Chosen, SearchResult, Step, score
from softedge.records import InputSpec
from softedge.run import Run
from softedge.stages import judging
from softedge.stages import quantize as stage
from softedge.stages.check import stage as check
from softedge.stages.quantize import stage as quantize

SPEC = InputSpec(32, 32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
IMAGES = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
OTHERS = np.random.default_rng(1).integers(0, 256, (90, 32, 32, 3), dtype=np.uint8)
LABELS = ("ant", "bee")
TRAIN = ArrayImages(OTHERS, np.arange(90) % 2, [str(i) for i in range(90)])
TEST = ArrayImages(IMAGES, np.arange(24) % 2, [f"t{i}" for i in range(24)])
DATA = Data("test", LABELS, SPEC, TRAIN, TRAIN, TEST)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run with one int8 ONNX file, two of its layers in float."""
    root = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    backbone = backbones.build(config.Backbone(name="mobilenetv3_small_050"))
    classifier = backbones.Classifier(backbone, LABELS, SPEC).eval()
    backbones.save(root / "probe" / "classifier.safetensors", classifier, SPEC)
    folder = root / "export" / "onnx-int8"
    folder.mkdir(parents=True)
    deployed = Deployed(classifier, SPEC)
    options = Onnx().candidates(deployed, "int8", IMAGES[:8])
    chosen = options.layers()[-3:-1]
    artifact = Onnx(scheme=Scheme(float_nodes=frozenset(chosen))).convert(deployed, "int8", IMAGES[:8], folder)
    assert artifact == artifact_of(folder / "model.onnx", "onnx", "int8", SPEC, LABELS)
    write(folder, artifact, Golden(IMAGES[:1], np.zeros((1, 2), np.float32), deployed.predict(IMAGES[:1])))
    return root, deployed


@pytest.fixture
def run(made, tmp_path, monkeypatch):
    """The network is traced once for all tests, and nothing is timed."""
    root, deployed = made
    monkeypatch.setattr(stage, "network", lambda run, artifact: deployed)
    monkeypatch.setattr(OnnxCandidates, "time_over_fp32", lambda self, option: None)
    return Run(shutil.copytree(root, tmp_path / "run"))


@pytest.fixture
def deployed(made):
    return made[1]


def recipe(search=True, **gates):
    values = {"images": 20, **gates}
    return config.Recipe(
        name="test",
        check=config.Check(**values),
        quantize=config.Quantize(search=search, tune_steps=2),
        export=config.Export(calibration_images=8),
    )


def refused(monkeypatch, name="onnx-int8"):
    """The gates refuse the file as exported, on the selection images and in the check; the steps of the search pass."""
    refusals = judging.refusals
    monkeypatch.setattr(
        judging,
        "refusals",
        lambda row, gates, artifact: ["refused"] if artifact.name == name else refusals(row, gates, artifact),
    )
    quality, asked = stage.quality, []

    def once(measures, gates, output):
        asked.append(measures)
        return ["refused"] if len(asked) == 1 else quality(measures, gates, output)

    monkeypatch.setattr(stage, "quality", once)


LENIENT = {"min_agreement": 0.0, "max_drop": 1.0}


def test_a_refused_file_is_superseded_by_the_one_that_the_search_finds(run, monkeypatch):
    refused(monkeypatch)
    monkeypatch.setattr(stage, "broken", lambda measures: [])
    result = quantize(run, recipe(**LENIENT), DATA)[0]
    assert result.details["file"] == "onnx-int8-search" and result.details["step"] == "calibrated"
    assert [step["step"] for step in result.details["steps"]] == ["default", "calibrated"]
    folder = run.folder("export") / "onnx-int8-search"
    assert read(folder).precision == "int8-search"
    assert {path.name for path in folder.iterdir()} >= {"model.onnx", "contract.json", "golden", "result.json"}
    assert verify(folder)["passed"] and "model.onnx" in (folder / "snippets" / "run.py").read_text()
    checked = check(run, recipe(**LENIENT), DATA)
    rows = {row["artifact"]: row for row in checked.details["rows"]}
    assert rows["onnx-int8"]["passed"] is False and rows["onnx-int8"]["superseded_by"] == "onnx-int8-search"
    assert rows["onnx-int8-search"]["passed"] is True
    assert checked.details["failed"] == []
    assert set(checked.inputs) == {"onnx-int8", "onnx-int8-search", "probe/classifier.safetensors"}
    assert quantize(run, recipe(**LENIENT), DATA)[0].started == result.started, "done before"
    (folder / "model.onnx").unlink()
    with pytest.raises(UserError, match="does not exist, .*; make it again: softedge quantize "):
        check(run, recipe(**LENIENT), DATA)
    quality = stage.quality
    monkeypatch.setattr(stage, "quality", lambda m, g, o: ["refused"] if m["n"] != 82 else quality(m, g, o))
    assert quantize(run, recipe(**LENIENT), DATA)[0].details["file"] == "onnx-int8", "made anew: its file is lost"


def test_when_nothing_helps_the_run_fails(run, monkeypatch):
    monkeypatch.setattr(searching, "rank", lambda *rest: [])  # a minute, and tested with the search
    monkeypatch.setattr(OnnxCandidates, "bias_corrected", lambda *rest: None)
    monkeypatch.setattr(OnnxCandidates, "roundings", lambda *rest: ())
    monkeypatch.setattr(stage, "quality", lambda measures, gates, output: ["refused"])
    monkeypatch.setattr(judging, "refusals", lambda row, gates, artifact: ["agreement 0.5 is below 0.98"])
    result = quantize(run, recipe(), DATA)[0]
    assert result.details["file"] == "onnx-int8" and result.metrics["good"] is False
    said = result.details["recommendation"]
    assert said.startswith("No int8 step reached the aim on the ") and " selection images: the best, " in said
    assert "'softedge check' decides about the exported file, on the test images" in said
    checked = check(run, recipe(), DATA)
    assert checked.details["failed"] == ["onnx-int8: agreement 0.5 is below 0.98"]


def test_a_file_judged_by_the_images_that_calibrated_it_promises_little(run, monkeypatch, capsys):
    monkeypatch.setattr(stage, "quality", lambda measures, gates, output: [])
    of_all = recipe().model_copy(update={"export": config.Export(calibration_images=30)})
    said = quantize(run, of_all, DATA)[0].details
    line = "The selection images calibrated the file, too, since there are few, so this promises little."
    assert said["calibrated_too"] and said["recommendation"].endswith(f"selection images. {line}")
    assert line in capsys.readouterr().err
    apart = quantize(run, recipe(), DATA, force=True)[0].details
    assert "calibrated_too" not in apart and "promises little" not in apart["recommendation"]


class Watched(ArrayImages):
    """Counts how often its images are looked at."""

    asked = 0

    def prepared(self, spec):
        Watched.asked += 1
        return super().prepared(spec)

    def subset(self, indices):
        some = super().subset(indices)
        return Watched(some.array, some.labels, some.names)


def test_the_test_images_are_asked_once_and_not_to_choose(run, monkeypatch):
    monkeypatch.setattr(Watched, "asked", 0)
    watched = dataclasses.replace(DATA, test=Watched(TEST.array, TEST.labels, TEST.names))
    refused(monkeypatch)
    monkeypatch.setattr(stage, "broken", lambda measures: [])
    seen, predict = [], Deployed.predict

    def spy(self, images, *rest):
        seen.extend(image.tobytes() for image in images)
        return predict(self, images, *rest)

    monkeypatch.setattr(Deployed, "predict", spy)
    quantize(run, recipe(**LENIENT), watched)
    assert Watched.asked == 0
    assert not set(seen) & {image.tobytes() for image in IMAGES[1:]}, "the first is a golden image of the file"
    seen.clear()
    check(run, recipe(**LENIENT), watched)
    assert Watched.asked == 1
    tested = [key for key in seen if key in {image.tobytes() for image in IMAGES}]
    assert len(tested) == len(set(tested)) == 20


def test_a_searched_file_of_an_earlier_export_is_left_out_and_said(run, deployed, monkeypatch):
    refused(monkeypatch)
    monkeypatch.setattr(stage, "broken", lambda measures: [])
    quantize(run, recipe(**LENIENT), DATA)
    folder = run.folder("export") / "onnx-int8"
    artifact = Onnx(scheme=Scheme()).convert(deployed, "int8", IMAGES[:9], folder)
    write(folder, artifact, Golden(IMAGES[:1], np.zeros((1, 2), np.float32), np.zeros((1, 2), np.float32)))
    checked = check(run, recipe(**LENIENT), DATA)
    assert [row["artifact"] for row in checked.details["rows"]] == ["onnx-int8"]
    assert "softedge quantize" in checked.skipped["onnx-int8-search"]


def test_checking_again_is_done_before_and_the_search_can_be_switched_off(run, monkeypatch):
    monkeypatch.setattr(stage, "quality", lambda measures, gates, output: ["refused"])
    result = quantize(run, recipe(search=False), DATA)[0]
    assert result.skipped == {"search": "quantize.search is off"} and len(result.details["steps"]) == 1
    first = check(run, recipe(search=False), DATA)
    assert check(run, recipe(search=False), DATA).started == first.started
    assert set(first.inputs) == {"onnx-int8", "probe/classifier.safetensors"}


def test_layers_in_float_still_have_their_weights_in_eight_bits(run):
    counted = open_format("onnx").integer_operations(read(run.folder("export") / "onnx-int8"))
    assert counted["linear"] == 1
    assert counted["conv"] > 40
    assert counted.get("conv_float", 0) + counted.get("conv_weights", 0) == 2


def test_a_searched_file_with_8_bit_weights_alone_does_not_say_that_it_computes_in_integers(run, monkeypatch):
    def weights_alone(problem, default):
        candidates = problem.make(problem.network)
        step = Step("weights", "8-bit weights, float arithmetic", {})
        return SearchResult((default, step), Chosen(step, candidates, candidates.weights_only(), True), (), "smaller")

    monkeypatch.setattr(stage, "search", weights_alone)
    quantize(run, recipe(), DATA, force=True)
    folder = run.folder("export") / "onnx-int8-search"
    told = describe(folder)
    assert told["bits"] == {"weights": 8, "activations": 32} and "calibration" not in told
    counted = open_format("onnx").integer_operations(read(folder))
    assert counted["conv_weights"] > 40 and not {"conv", "linear"} & counted.keys()
    shutil.rmtree(folder)


def test_a_search_that_is_stopped_leaves_the_file_of_the_last_one(run, monkeypatch):
    made = run.folder("export") / "onnx-int8-search"
    made.mkdir(parents=True, exist_ok=True)
    (made / "kept").write_text("of the search before")

    def stopped(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(stage._Session, "_work", stopped)
    with pytest.raises(KeyboardInterrupt):
        quantize(run, recipe(), DATA, force=True)
    assert (made / "kept").is_file()
    shutil.rmtree(made)


def test_the_search_follows_other_limits_of_the_check_and_no_other_settings(run, monkeypatch, capsys):
    before = stage.stage(run, recipe(search=False), DATA)
    capsys.readouterr()
    limited = recipe(search=False)
    limited = limited.model_copy(update={"check": limited.check.model_copy(update={"max_size": 1000})})
    (result,) = stage.stage(run, limited, DATA)
    assert "onnx-int8 is judged anew: check.max_size: 0 -> 1000" in capsys.readouterr().err
    assert result.recipe["check"]["max_size"] == 1000 and before[0].recipe["check"]["max_size"] == 0
    with pytest.raises(UserError, match="quantize.search: false -> true"):
        stage.stage(run, recipe(search=True), DATA)


def test_size_limit_refuses_says_the_bytes_and_starts_no_search(run, monkeypatch):
    result = check(run, recipe(max_size=1000), DATA, force=True)
    assert "above the limit of 1000" in result.details["failed"][0]
    monkeypatch.setattr(stage, "quality", lambda measures, gates, output: ["refused"])
    assert "make no smaller file" in quantize(run, recipe(max_size=1000), DATA)[0].skipped["search"]


def test_without_exports_the_command_to_run_is_named(tmp_path):
    with pytest.raises(UserError, match="softedge export"):
        quantize(Run(tmp_path), recipe(), DATA)


class Halving:
    """fp32 is as sure of an image as it is bright, and right on those of an even first value."""

    output = "probabilities"
    spec = InputSpec(8, 8, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))

    def predict(self, images):
        sure = 0.5 + images[:, 0, 0, 0].astype(np.float32) / 600
        return np.stack([sure, 1 - sure], axis=1)


def many(labels):
    images = np.random.default_rng(1).integers(0, 256, (1200, 8, 8, 3), dtype=np.uint8)
    spec = InputSpec(8, 8, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    every = ArrayImages(images, labels, [str(i) for i in range(1200)])
    return Data("test", LABELS, spec, every, every, every.subset([]))


def test_calibration_and_selection_images_are_apart_and_as_hard_as_the_validation_images():
    labels = (np.arange(1200) % 10 == 0).astype(np.int64)  # fp32 always says 0 and is right on nine in ten
    data = many(labels)
    selection = select(data, config.Recipe(name="test"), Halving(), validation_top1=0.75)
    keys = [[image.tobytes() for image in part] for part in (selection.calibration, selection.judge.images)]
    assert (len(set(keys[0])), len(set(keys[1])), len(selection.training)) == (300, 450, 1200)
    assert not set(keys[0]) & set(keys[1])
    known = dict(zip((image.tobytes() for image in data.pretrain.array), labels))
    assert {key for key, label in known.items() if label and key not in keys[0]} <= set(keys[1]), "all that are wrong"
    wrong = np.array([known[key] for key in keys[1]], bool)
    assert Halving().predict(selection.judge.images[~wrong])[:, 0].min() < 0.52, "and those of which fp32 is least sure"
    np.testing.assert_array_equal(selection.judge.fp32, Halving().predict(selection.judge.images))
    assert "75.0 %" in selection.how
    plain = select(data, config.Recipe(name="test"), Halving())
    assert len(plain.judge.images) == 768 and "a sample" in plain.how and plain.apart
    few = dataclasses.replace(data, pretrain=data.pretrain.subset(range(363)))
    found = select(few, config.Recipe(name="test"), Halving())
    assert not found.apart and "calibration images among them" in found.how


def test_images_without_a_label_are_selected_where_there_are_enough():
    labels = np.where(np.arange(1200) < 800, 0, -1)
    data = many(labels)
    selection = select(data, config.Recipe(name="test"), Halving(), validation_top1=0.5)
    known = dict(zip((image.tobytes() for image in data.pretrain.array), labels))
    assert {known[image.tobytes()] for image in selection.judge.images} == {-1}
    assert "unlabelled" in selection.how


def test_images_that_were_held_back_from_training_are_selected_and_neither_calibrate_nor_train():
    data = many(np.arange(1200) % 2)
    unseen = data.train.subset(range(0, 1200, 6))
    found = select(data, config.Recipe(name="test"), Halving(), validation_top1=0.5, unseen=unseen)
    kinds = (found.calibration, found.judge.images, found.training, unseen.prepared(Halving.spec))
    calibration, judged, training, held = ({image.tobytes() for image in part} for part in kinds)
    assert judged == held - calibration and len(judged) > 100 and "validation images" in found.how
    assert len(calibration) == 300 and not training & held and len(training) == 1000
    assert found.judge.unseen and found.judge.first(80).unseen
    assert {"expected_agreement", "expected_error"} <= set(found.judge.compared(found.judge.fp32))
    few = select(data, config.Recipe(name="test"), Halving(), unseen=unseen.subset(range(60)))
    assert not few.judge.unseen and "expected_agreement" not in few.judge.compared(few.judge.fp32)


def test_a_file_is_judged_by_what_to_expect_of_new_images_where_that_is_known():
    gates = config.Check(min_agreement=0.98)
    seen = {"agreement": 1.0, "sqnr_db": 25.0, "n": 768}
    assert selection.doubts(seen, gates, 500) == []
    sure = {**seen, "expected_agreement": 0.992, "expected_error": 0.003}
    assert selection.doubts(sure, gates, 500) == []
    unsure = {**seen, "expected_agreement": 0.985, "expected_error": 0.003}
    assert selection.doubts(unsure, gates, 500) == [
        "agreement 0.985 expected on new images, less 0.009 for chance, is below 0.98"
    ]
    counted = {**seen, "agreement": 0.97, "expected_agreement": 0.985}
    assert quality(selection.promised(counted), gates, "probabilities") == []
    assert quality(selection.promised(seen | {"agreement": 0.97}), gates, "probabilities")
    assert score(counted) == 0.985 and score(seen) == 1.0


def test_a_refused_openvino_file_ends_with_other_layers_in_float_or_8_bit_weights(run, deployed):
    pytest.importorskip("nncf")
    shutil.rmtree(run.folder("export") / "onnx-int8")
    folder = run.folder("export") / "openvino-int8"
    folder.mkdir(parents=True)
    exported = OpenVino().convert(deployed, "int8", IMAGES[:8], folder)
    write(folder, exported, Golden(IMAGES[:1], np.zeros((1, 2), np.float32), deployed.predict(IMAGES[:1])))
    strict = recipe(min_agreement=1.0, max_drop=0.0)
    result = quantize(run, strict, DATA)[0]
    if result.details["file"] == "openvino-int8":  # all answers agree already
        assert result.metrics["agreement"] == 1.0
        return
    found = read(run.folder("export") / "openvino-int8-search")
    assert found.labels == LABELS and result.details["steps"][0]["step"] == "default"
    selection = select(DATA, strict, deployed)
    answers = OpenVino().load(found)(selection.judge.images)
    np.testing.assert_array_equal(answers.argmax(1), selection.judge.fp32.argmax(1))
    assert found.size_bytes < 0.4 * sum(t.numel() * 4 for t in deployed.state_dict().values())


def test_openvino_layers_put_in_float_read_unrounded_values_and_keep_8_bit_weights(deployed):
    pytest.importorskip("nncf")
    options = OpenVino().candidates(deployed, "int8", IMAGES[:8])
    choice = nearest(options, stage_judge(deployed))
    network = choice.option.model.network
    names = [n for n, op in openvino_int8.layers(network).items() if openvino_int8.reads_rounded(op)]
    changed = options.with_float(choice.option, names[:3]).model.network
    rounded = {name for name, op in openvino_int8.layers(changed).items() if openvino_int8.reads_rounded(op)}
    assert rounded == set(names[3:])
    assert options.float_layers(choice.option) == set(options.layers()) - set(names)  # a copy was changed
    closer = [np.abs(openvino.predictor(m)(IMAGES) - deployed.predict(IMAGES)).mean() for m in (changed, network)]
    every = openvino.predictor(openvino_int8.with_float(network, names))(IMAGES)
    assert np.abs(every - deployed.predict(IMAGES)).mean() < closer[1]


def stage_judge(deployed):
    from softedge.export.nearest import Judge

    return Judge.of(deployed, IMAGES[:8])
