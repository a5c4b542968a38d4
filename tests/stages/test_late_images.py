"""A run whose pictures are damaged between its stages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pictures import stripes

from softedge import backbones, cli
from softedge.data import load
from softedge.eval.features import extract
from softedge.eval.knn import knn_predict
from softedge.export import calibration
from softedge.report.write import gather
from softedge.run import Run
from softedge.stages import scratch
from softedge.stages.export import export
from softedge.stages.opening import reopen

CHECK = ["--set", "check.max_drop=1.0", "--set", "check.min_agreement=0.0"]
SMALL = ["--set", "data.size=32", "--set", "ssl.epochs=0", "--set", "backbone.name=mobilenetv3_small_050"]
FEW = ["--set", "backbone.stem_stride=1", "--set", "export.calibration_images=10"]


def command(*words: object) -> int:
    """The exit code."""
    try:
        cli.main([str(word) for word in words])
    except SystemExit as done:
        return int(done.code or 0)
    return 0


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3])


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `images` and a `run` of them that has a backbone and no copies."""
    folder = tmp_path_factory.mktemp("late")
    rng = np.random.default_rng(0)
    for label in range(3):
        for number in range(40):
            path = folder / "images" / str(label) / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            stripes(rng, label).save(path)
    assert command("pretrain", "--data", folder / "images", "--out", folder / "run", *SMALL, *FEW) == 0
    for copy in (folder / "run/data/images").iterdir():
        copy.unlink()
    return folder


def test_each_stage_goes_on_without_the_pictures_damaged_before_it(
    begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(begun / "run")
    before = load(run)
    spec = before.spec
    train, test = before.train.prepared(spec), before.test.prepared(spec)
    names = list(before.test.names)
    calibrating = list(calibration.choose(before, 10, 0).names)

    lost_test, lost_train = names[4], next(n for n in before.train.names if n not in calibrating)
    cut(begun / "images" / lost_test)
    cut(begun / "images" / lost_train)
    assert command("probe", begun / "run") == 0
    said = capsys.readouterr().err
    assert "2 images can no longer be used and are set aside" in said and lost_test in said and lost_train in said
    probed = run.need("probe", "probe")
    assert probed.metrics["n_test"] == len(names) - 1
    assert probed.details["set_aside"]["test"]["names"] == [lost_test]
    assert probed.details["set_aside"]["train"]["names"] == [lost_train]

    some = np.arange(len(names)) != 4
    rest = np.array([name != lost_train for name in before.train.names])
    backbone = backbones.load(begun / "run/pretrain/backbone.safetensors")
    bank, asked = extract(backbone, train[rest], spec), extract(backbone, test[some], spec)
    _, recipe = reopen(run.root)
    votes = knn_predict(bank, before.train.labels[rest], asked, 3, recipe.knn.k, recipe.knn.temperature)
    truth = before.test.labels[some]
    assert probed.metrics["knn_top1"] == (votes.argmax(1) == truth).mean()
    classifier = backbones.load_classifier(begun / "run/probe/classifier.safetensors")
    answers = extract(classifier, test[some], spec).argmax(1)
    assert probed.metrics["linear_top1"] == (answers == truth).mean()

    lost_calibrating = calibrating[0]
    cut(begun / "images" / lost_calibrating)
    export(begun / "run", ["onnx"], ["fp32", "int8"])  # random weights: the command would refuse their int8 file
    assert lost_calibrating in capsys.readouterr().err
    left = calibrating[1:]
    assert list(calibration.choose(load(run), 10, 0).names) == left
    contract = json.loads((begun / "run/export/onnx-int8/contract.json").read_text())
    assert contract["calibration"]["images"] == len(left)

    lost_late = names[7]
    (begun / "images" / lost_late).unlink()
    assert command("check", begun / "run", *CHECK) == 0
    checked = run.need("check", "check")
    assert checked.details["set_aside"]["test"]["n"] == 2
    some[7] = False
    row = next(row for row in checked.details["rows"] if row["artifact"] == "onnx-fp32")
    expected = extract(classifier, test[some], spec).argmax(1) == before.test.labels[some]
    assert row["n"] == some.sum() and row["top1"] == pytest.approx(expected.mean())

    reported = gather([run])["runs"][0]
    cautions = reported["verdict"]["cautions"]
    assert any(f"could no longer be used ({lost_test}, {lost_late})" in line for line in cautions)
    for entry in reported["gallery"]:
        assert before.test.labels[entry["index"]] == reported["confusion"]["classes"].index(entry["truth"])
    capsys.readouterr()
    assert command("probe", begun / "run") == 0
    of = len(names)
    assert f"probe: was done with {of - 1} of {of} test images, {of - 2} can be used now" in capsys.readouterr().err
    assert run.need("probe", "probe").started == probed.started


def test_two_classifiers_are_compared_on_the_images_that_both_answered() -> None:
    a, b = scratch._both({0: True, 1: False, 3: True}, {1: True, 2: False, 3: False})
    assert a.tolist() == [False, True] and b.tolist() == [True, False]
