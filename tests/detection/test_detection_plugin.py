"""``softedge export``, ``check``, ``bench`` and ``verify`` on a trained detector."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from voc_squares import squares, transfer_recipe

import softedge
from softedge import config
from softedge.bench import base as device
from softedge.cli import main
from softedge.detection import transfer as detection
from softedge.detection import voc
from softedge.detection.bench import Photos
from softedge.errors import GateFailed, UserError
from softedge.run import Run


@pytest.fixture
def trained(request, toy, tmp_path):
    """(transfer folder, VOC folder) of a detector that was trained for a moment, or the iterations asked for."""
    folder = squares(tmp_path / "voc", {"train": 8, "val": 4})
    run, recipe, _ = toy("run")
    recipe = transfer_recipe(recipe, iterations=getattr(request, "param", 3))
    (run.root / "recipe.toml").write_text(config.to_toml(recipe))
    detection.train(run, recipe, "voc", folder)
    return run.folder("transfer/voc"), folder


@pytest.mark.parametrize("trained", [3, pytest.param(150, marks=pytest.mark.slow)], indirect=True)
def test_a_detector_goes_through_the_commands_of_a_classifier(trained, request, monkeypatch, capsys):
    folder, pictures = trained
    learnt = request.node.callspec.params["trained"] > 100
    monkeypatch.setitem(device.PRESETS, "quick", device.Preset(4, 0.0, 10))

    def command(*words):
        with pytest.raises(SystemExit) as ended:
            main([*words])
        return ended.value.code

    assert command("export", str(folder), "--targets", "onnx,openvino", "--precisions", "fp32") == 0
    assert command("check", str(folder)) == (0 if learnt else 1)
    rows = {row["artifact"]: row for row in json.loads((folder / "check/result.json").read_text())["details"]["rows"]}
    assert set(rows) == {"onnx-fp32", "openvino-fp32"}
    for row in rows.values():
        assert row["passed"] is learnt, "files of a detector that finds nothing do not pass"
        assert row["agreement"] > 0.98 and row["drop"] == pytest.approx(0, abs=1e-6)
    assert rows["onnx-fp32"]["AP"] > 0.01 or not learnt
    assert "AP" in capsys.readouterr().out
    assert command("bench", str(folder), "--devices", "local") == 0
    timed = json.loads((folder / "bench/onnx-fp32@local/result.json").read_text())["metrics"]
    assert timed["n"] >= 4 and timed["p90_ms"] > 0
    # The worker's rows are scored like the files of the check: the same pictures, the same boxes.
    assert timed["AP"] == pytest.approx(rows["onnx-fp32"]["AP"], abs=1e-4)
    photos = sorted(map(str, pictures.glob("JPEGImages/*.png")))
    for target in ("onnx", "openvino"):  # finds the golden detections, and answers photos
        program = [sys.executable, str(folder / f"export/{target}-fp32/snippets/run.py")]
        assert subprocess.run(program, capture_output=True).returncode == 0
        done = subprocess.run([*program, *photos], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert all(" at " in line for line in done.stdout.splitlines())
    assert command("verify", str(folder / "export/openvino-fp32")) == 0


@pytest.mark.parametrize(
    ("targets", "precisions", "said"),
    [
        (["onnx", "onx"], ["fp32"], "unknown target 'onx'; did you mean 'onnx'"),
        (["onnx"], ["fp32", "fp99"], "no precision 'fp99'; known: fp32, fp16, int8"),
        ([], ["fp32"], "nothing to export"),
        (["onnx"], [], "nothing to export"),
    ],
)
def test_a_misspelt_format_or_precision_is_refused_before_anything_is_exported(trained, targets, precisions, said):
    folder, _ = trained
    before = sorted((folder / "export").rglob("*"))
    with pytest.raises(UserError, match=said):
        softedge.export(folder, targets, precisions)
    assert sorted((folder / "export").rglob("*")) == before


def test_what_a_detector_cannot_be_exported_to_is_told_and_the_rest_goes_on(trained):
    folder, _ = trained
    results = softedge.export(folder, ["coreml", "onnx"], ["fp32"])
    assert "known: onnx, openvino" in results[0].skipped["model"] and not results[1].skipped
    with pytest.raises(UserError, match="none of the formats"):
        softedge.export(folder, ["coreml"], ["fp32"])
    checked = softedge.check(folder)
    assert "coreml-fp32" in checked.skipped and checked.metrics["files"] == 1


def test_a_file_that_loses_average_precision_is_refused_by_the_gate(trained, monkeypatch):
    from softedge.detection import check as detector_check

    folder, _ = trained
    softedge.export(folder, ["onnx"], ["fp32"])
    scores = iter([{"AP": 0.5}, {"AP": 0.4}])
    monkeypatch.setattr(detector_check, "score", lambda *_: next(scores))
    checked = softedge.check(folder, max_drop=0.05)
    assert checked.metrics["passed"] is False
    monkeypatch.setattr(detector_check, "_check", lambda *_: pytest.fail("the files were run again"))
    assert softedge.check(folder, max_drop=1.0).metrics["passed"] is True
    again = softedge.check(folder, max_drop=0.05)
    assert (again.metrics, again.details) == (checked.metrics, checked.details)
    with pytest.raises(GateFailed, match="AP drop 0.100 is above 0.05"):
        softedge.gate(folder)


def test_a_detector_is_exported_checked_and_timed_without_its_photos(trained, monkeypatch):
    folder, pictures = trained
    monkeypatch.setitem(device.PRESETS, "quick", device.Preset(4, 0.0, 10))
    softedge.export(folder, ["onnx"], ["int8"])
    before = softedge.check(folder).details["rows"]
    shutil.rmtree(pictures)
    (int8, fp32) = softedge.export(folder, ["onnx"], ["int8", "fp32"], force=True)
    assert not int8.skipped and not fp32.skipped
    after = {row["artifact"]: row for row in softedge.check(folder, force=True).details["rows"]}
    assert after["onnx-int8"] == before[0], "the same pictures calibrate, and the same are checked"
    (row,) = softedge.bench(folder, ["local"], preset="quick")[:1]
    assert row.metrics["n_images"] == 4


def test_a_kept_picture_that_was_edited_is_read_from_its_source_or_refused(trained):
    folder, pictures = trained
    for path in (folder / "pictures").iterdir():
        content = path.read_bytes()
        path.unlink()  # a link to the source, else
        path.write_bytes(content[:-1])
    assert not softedge.export(folder, ["onnx"], ["fp32"])[0].skipped
    source = pictures / "JPEGImages/val0.png"
    source.write_bytes(source.read_bytes() + b" ")
    with pytest.raises(UserError, match=r"val0.png: it was changed since the training"):
        softedge.check(folder)
    source.unlink()
    shutil.rmtree(folder / "pictures")
    with pytest.raises(UserError, match=r"val0.png: it is gone, and the run has no copy of it"):
        softedge.check(folder)


def test_the_list_of_kept_pictures_is_that_of_the_training_or_refused(trained):
    folder, _ = trained
    path = folder / "scenes.json"
    path.write_text(path.read_text().replace('"labels": [1, 0]', '"labels": [0, 1]'))
    with pytest.raises(UserError, match=r"scenes.json was changed or damaged .* --force"):
        softedge.export(folder, ["onnx"], ["fp32"])
    path.unlink()
    with pytest.raises(UserError, match=r"scenes.json is missing .* --force"):
        softedge.export(folder, ["onnx"], ["fp32"])


def test_pictures_exchanged_under_the_same_names_are_another_training(trained):
    folder, pictures = trained
    run, first, second = Run(folder.parents[1]), *(pictures / f"JPEGImages/train{i}.png" for i in (0, 1))
    recipe = config.load(run.root / "recipe.toml")
    assert detection.train(run, recipe, "voc", pictures).metrics == Run(run.root).result("transfer/voc").metrics
    content = first.read_bytes()
    first.unlink(), first.write_bytes(second.read_bytes())
    second.unlink(), second.write_bytes(content)
    with pytest.raises(UserError, match=r"made with other settings \(inputs.pictures: .*--force"):
        detection.train(run, recipe, "voc", pictures)


def test_a_detector_of_an_earlier_softedge_needs_its_photos_unchanged(trained):
    folder, pictures = trained
    result = json.loads((folder / "result.json").read_text())
    del result["details"]["pictures"], result["inputs"]["pictures"]
    (folder / "result.json").write_text(json.dumps(result))
    recipe = config.load(folder.parents[1] / "recipe.toml")
    detection.train(Run(folder.parents[1]), recipe, "voc", pictures)  # done before
    softedge.export(folder, ["onnx"], ["int8"])
    box = pictures / "Annotations/val0.xml"
    text = box.read_text()
    box.write_text(text.replace("<xmin>", "<xmin>1"))
    with pytest.raises(UserError, match="was changed since"):
        softedge.export(folder, ["onnx"], ["fp32"])
    shutil.rmtree(pictures)
    with pytest.raises(UserError, match="which does not exist; restore them"):
        softedge.export(folder, ["onnx"], ["fp32"])


def test_a_detector_that_was_damaged_since_is_neither_exported_nor_checked(trained):
    folder, _ = trained
    softedge.export(folder, ["onnx"], ["fp32"])
    path = folder / "detector.safetensors"
    content = bytearray(path.read_bytes())
    content[-1000] ^= 64  # a bit of a weight: it loads as before
    path.write_bytes(content)
    for command in (lambda: softedge.export(folder, ["onnx"], ["fp16"]), lambda: softedge.check(folder)):
        with pytest.raises(UserError, match=r"was changed or damaged .* transfer --task voc .*--force"):
            command()


def test_a_device_without_a_worker_and_a_run_without_files_are_one_clear_line(trained):
    folder, _ = trained
    with pytest.raises(UserError, match="no exported files yet"):
        softedge.check(folder)
    with pytest.raises(UserError, match="timed on local, ssh, emulated, browser, not on adb"):
        softedge.bench(folder, ["adb:"])


def test_rows_of_the_worker_become_boxes_in_the_picture_they_came_from(tmp_path):
    _, test = voc.read(squares(tmp_path / "voc", {"train": 1, "val": 2}))
    photos = Photos(test, None)
    photos.height, photos.width = 48, 192  # the pictures are 96 x 96: they fill 48 x 48 at the left
    none = [0, 0, 0, 0, 0, -1]
    rows = np.array([[[10, 20, 30, 40, 0.5, 1], none], [none, none]], np.float32).reshape(2, 12)
    first, second = photos.detections(rows)
    assert first.boxes.tolist() == [[20, 40, 60, 80]] and first.labels.tolist() == [1] and len(second.boxes) == 0


def test_pictures_of_another_size_are_fitted_not_stretched(tmp_path):
    _, test = voc.read(squares(tmp_path / "voc", {"train": 1, "val": 3}))
    tall = test.scenes[1].path
    Image.new("RGB", (30, 60), (200, 10, 10)).save(tall)
    test = dataclasses.replace(
        test, scenes=(dataclasses.replace(test.scenes[1], width=30, height=60), *test.scenes[::2])
    )
    photos = Photos(test, None)
    assert (photos.height, photos.width, photos.letterboxed) == (96, 96, 1)
    assert photos.names[-1] == tall.name  # those that go in as they are come first
    path, _ = photos.write(tmp_path)
    array = np.load(path)
    assert (array[0] == np.asarray(Image.open(test.scenes[1].path))).all()
    assert (array[2, :, :48] == (200, 10, 10)).all() and (array[2, :, 48:] == 114).all()
    rows = np.array([[[0, 0, 48, 96, 0.9, 0]]] * 3, np.float32).reshape(3, 6)
    assert photos.detections(rows)[2].boxes.tolist() == [[0, 0, 30, 60]]
