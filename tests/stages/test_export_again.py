"""An export that is made again: the same bits, nothing finished lost, nothing damaged taken for done."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil

import pytest
from exporting import export

from softedge.errors import UserError
from softedge.export import contract
from softedge.export.onnx import candidates, speed
from softedge.export.onnx.format import Onnx
from softedge.export.openvino.format import OpenVino
from softedge.run import Run, sha256
from softedge.stages import export as stage


def test_an_int8_file_that_is_made_again_has_the_same_bits_however_the_timing_turns_out(tmp_path, source, monkeypatch):
    turns = []

    def another_winner(fp32, graph, *measured):
        places = list(speed.prefixes(graph))
        turns.append(places[len(turns) % len(places)])
        about = {"float_until": turns[-1], "time_over_fp32": 0.9 + len(turns) / 100, "interval": [0.8, 1.2]}
        return [dataclasses.replace(speed.fixed(graph, turns[-1]), about=about)]

    monkeypatch.setattr(candidates, "beginnings", another_winner)

    def made(run, inputs, force=False):
        asked = [(Onnx(), "int8")]
        (result,) = stage.export_formats(run, asked, lambda: source, recipe={"x": 1}, inputs={"w": inputs}, force=force)
        return result.details["sha256"], result.details["notes"]["speed"]["float_until"]

    run = Run(tmp_path)
    first = made(run, "0")
    assert made(run, "0", force=True) == first and len(turns) == 1
    shutil.rmtree(tmp_path / ".previous")
    shutil.copytree(tmp_path, tmp_path / ".previous")
    shutil.rmtree(tmp_path / "export")  # as a --force leaves it that is killed
    assert made(run, "0") == first and len(turns) == 1
    assert made(Run(tmp_path / "other"), "0")[0] != first[0]  # the other choice is another file
    assert made(run, "1", force=True)[1] == turns[2] and len(turns) == 3  # another network: chosen anew


def test_two_runs_that_choose_alike_have_the_same_bits_whatever_was_measured(tmp_path, source, monkeypatch):
    ratios = iter([1.162, 1.149])

    def measured(fp32, graph, *rest):
        place = list(speed.prefixes(graph))[1]
        about = {"float_until": place, "time_over_fp32": next(ratios), "interval": [1.1, 1.2]}
        return [dataclasses.replace(speed.fixed(graph, place), about=about)]

    monkeypatch.setattr(candidates, "beginnings", measured)
    one, other = (
        stage.export_formats(Run(tmp_path / name), [(Onnx(), "int8")], lambda: source, recipe={}, inputs={})[0]
        for name in ("one", "other")
    )
    assert one.details["sha256"] == other.details["sha256"]
    assert [result.details["notes"]["speed"]["time_over_fp32"] for result in (one, other)] == [1.162, 1.149]


def test_a_finished_file_stays_where_it_could_not_be_made_again(tmp_path, source):
    """However often it is tried: neither the file nor the version kept before it goes."""
    run = Run(tmp_path)
    export(run, [Onnx()], source)
    whole = sha256(tmp_path / "export/onnx-fp32")

    def gone():
        raise UserError("photo.jpg cannot be read any more")

    for _ in range(3):
        with pytest.raises(UserError, match="not made again: photo.jpg .* what was finished before stays"):
            stage.export_formats(run, [(Onnx(), "fp32")], gone, recipe={"x": 1}, inputs={"w": "0"}, force=True)
        assert sha256(tmp_path / "export/onnx-fp32") == whole
    assert not (tmp_path / ".previous/export/onnx-fp32").exists()


def test_other_formats_are_made_beside_one_that_could_not_be_made_again(tmp_path, source, monkeypatch):
    run = Run(tmp_path)
    export(run, [Onnx()], source)
    monkeypatch.setattr(Onnx, "missing", lambda self: "onnx is gone")
    with pytest.raises(UserError, match="export/onnx-fp32 was not made again: onnx is gone"):
        export(run, [Onnx(), OpenVino()], source, force=True)
    assert (tmp_path / "export/onnx-fp32/model.onnx").is_file()
    assert (tmp_path / "export/openvino-fp32/model.xml").is_file()


@pytest.mark.parametrize("damage", ["cut", "gone", "another", "no contract", "labels"])
def test_a_finished_file_that_is_not_whole_any_more_is_made_anew(tmp_path, source, capsys, damage):
    run, folder = Run(tmp_path), tmp_path / "export/onnx-fp32"
    export(run, [Onnx()], source)
    whole = contract.read(folder).sha256
    if damage == "cut":
        (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:-100])
    elif damage == "gone":
        (folder / "model.onnx").unlink()
    elif damage == "another":  # of another run, with its contract
        (folder / "model.onnx").write_bytes(b"x")
        values = json.loads((folder / contract.FILE).read_text()) | {"sha256": sha256(folder / "model.onnx")}
        (folder / contract.FILE).write_text(json.dumps(values))
    elif damage == "labels":
        values = json.loads((folder / contract.FILE).read_text())
        (folder / contract.FILE).write_text(json.dumps(values | {"labels": values["labels"][::-1]}))
    else:
        (folder / contract.FILE).unlink()
    capsys.readouterr()
    export(run, [Onnx()], source)
    assert "onnx-fp32 is made anew: " in capsys.readouterr().err
    assert contract.read(folder).sha256 == whole
    export(run, [Onnx()], source)
    assert "already done" in capsys.readouterr().err


class Killed(Onnx):
    """Writes half a model, and then the process is gone."""

    def convert(self, deployed, precision, images, out):
        (out / "model.onnx").write_bytes(b"half")
        os._exit(9)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_what_a_killed_export_was_writing_is_gone_at_the_next_start(tmp_path, source):
    run = Run(tmp_path)
    if (child := os.fork()) == 0:
        with contextlib.suppress(BaseException):
            export(run, [Killed()], source)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert any(path.name == "model.onnx" for path in tmp_path.rglob("*"))
    with run.locked():  # whatever command is the next
        assert not any(path.name == "model.onnx" for path in tmp_path.rglob("*"))


def test_the_file_of_an_earlier_network_is_not_brought_back(tmp_path, source):
    """It is kept aside, also where the new network's file fails again and again."""
    run = Run(tmp_path)
    export(run, [Onnx()], source)

    def gone():
        raise UserError("photo.jpg cannot be read any more")

    for _ in range(3):
        with pytest.raises(UserError, match="none of the formats"):
            stage.export_formats(run, [(Onnx(), "fp32")], gone, recipe={"x": 1}, inputs={"w": "1"}, force=True)
        assert not (tmp_path / "export/onnx-fp32/model.onnx").exists()
        assert (tmp_path / ".previous/export/onnx-fp32/model.onnx").is_file()
