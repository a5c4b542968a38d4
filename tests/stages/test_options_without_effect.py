"""Options that would do nothing, and places where nothing can be written: one line, before any work."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import class_folders
from typer.testing import CliRunner

import softedge
from softedge import config
from softedge.cli import app, main
from softedge.errors import UserError, positive, whole
from softedge.run import Run, write_text
from softedge.stages import bench, plan

NO_DEVICES = "error: bench.devices is empty, so nothing would be timed; name at least one device: --devices local"


def line(capsys, *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert ended.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("text", ["", " ", ","])
@pytest.mark.parametrize("command", ["bench", "deploy", "export-file"])
def test_no_device_at_all_is_refused(tmp_path, capsys, command, text):
    """It passed for a benchmark of nothing, with exit code 0."""
    given = {"bench": [tmp_path], "deploy": [], "export-file": [tmp_path / "a.pth", "--images", tmp_path]}[command]
    found = line(capsys, command, *given, "--devices", text)
    assert found == f"error: --devices '{text}' names none; give at least one, such as local, or leave it out"


def test_a_recipe_without_devices_is_refused_before_any_work(tmp_path, capsys):
    """``--set bench.devices=[]`` passed for a benchmark of nothing, too."""
    photos = class_folders(tmp_path / "photos", {"a": 2, "b": 2})
    found = line(capsys, "deploy", "--data", photos, "--out", tmp_path / "run", "--set", "bench.devices=[]")
    assert found == NO_DEVICES and not (tmp_path / "run").exists()
    recipe = tmp_path / "own.toml"
    recipe.write_text('base = "digits"\n[bench]\ndevices = []\n')
    assert line(capsys, "deploy", "--recipe", recipe, "--out", tmp_path / "run") == NO_DEVICES
    write_text(tmp_path / "earlier" / "recipe.toml", config.to_toml(config.load(str(recipe))))
    with pytest.raises(UserError, match="bench.devices is empty"):
        bench.stage(Run(tmp_path / "earlier"), config.load(str(recipe)), None)


def test_limits_are_measured_on_the_device_that_set_names(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(plan, "recipe_for", lambda *values: asked.append(values[5].device) or exit())
    for given in ({"set": ["bench.devices=['adb:', 'local']"]}, {"devices": ["browser:"]}, {}):
        with pytest.raises(SystemExit):
            softedge.deploy(data=tmp_path, max_ms=5, **given)
    assert asked == ["adb:", "browser:", "local"]


def test_a_mistyped_device_is_refused_before_anything_is_exported(tmp_path, capsys):
    found = line(capsys, "export-file", tmp_path / "a.pth", "--images", tmp_path, "--devices", "locl")
    assert found == "error: unknown device 'locl'; did you mean 'local'?"


def test_options_of_files_are_refused_for_a_run_and_those_of_runs_for_a_file(tmp_path, capsys):
    for option, value in (("--images", tmp_path), ("--out", tmp_path), ("--size", "3"), ("--min-agreement", "0.9")):
        found = line(capsys, "quantize", tmp_path, option, value)
        assert found == f"error: {option}: {tmp_path} is a folder: this is for model files alone; leave out the option"
    (tmp_path / "a.onnx").touch()
    found = line(capsys, "quantize", tmp_path / "a.onnx", "--set", "check.max_drop=1")
    assert found == f"error: --set: {tmp_path / 'a.onnx'} is a model file: this is for runs alone; leave out the option"


@pytest.mark.parametrize("value", ["2", "-1", "nan"])
def test_an_impossible_agreement_is_refused_for_a_file_as_for_a_run(tmp_path, capsys, value):
    (tmp_path / "a.onnx").touch()
    words = ("quantize", tmp_path / "a.onnx", "--images", tmp_path, "--min-agreement", value)
    assert line(capsys, *words).startswith("error: check.min_agreement in the command line: input should be ")


def test_the_help_still_names_the_folder_of_a_quantized_file():
    assert "[default: (runs/quantized)]" in CliRunner().invoke(app, ["quantize", "--help"]).output


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "2", None])
def test_what_is_no_number_of_processes_or_images_is_refused_before_any_work(tmp_path, value):
    """``gpus=0`` trained on one process; the others were tracebacks, or read as 1."""
    folder = class_folders(tmp_path / "photos", {"a": 2})
    for name, call in {
        "gpus": lambda: softedge.pretrain(data=folder, out=tmp_path / "run", gpus=value),
        "nodes": lambda: softedge.pretrain(data=folder, out=tmp_path / "run", nodes=value),
        "--number": lambda: softedge.label_next(folder, number=value, out=tmp_path / "run"),
    }.items():
        with pytest.raises(UserError, match=rf"^{name} is .*; give a whole number, 1 or more"):
            call()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", [0, -1, True, "2", float("nan"), float("inf")])
def test_what_is_no_number_of_minutes_is_refused_before_any_work(tmp_path, value):
    folder = class_folders(tmp_path / "photos", {"a": 2})
    for name in ("minutes", "max_ms", "max_mb"):
        for call in (softedge.plan, softedge.deploy):
            with pytest.raises(UserError, match=rf"^{name} is .*; give a number above 0$"):
                call(data=folder, **{name: value})


def test_numbers_of_numpy_are_numbers(tmp_path):
    assert [whole("n", value) for value in (np.int64(3), np.uint8(3), 3.0)] == [3, 3, 3]
    assert type(whole("n", np.int64(3))) is int
    kinds = [positive("n", value) for value in (np.int32(3), np.float32(0.5), 3, 0.5)]
    assert kinds == [3, 0.5, 3, 0.5] and [type(one) for one in kinds] == [int, float, int, float]
    with pytest.raises(UserError, match="had no photos"):  # past the options, whose texts go into the run
        softedge.deploy(data=class_folders(tmp_path / "had no photos", {}), out=tmp_path / "run", max_size=np.int64(5))
