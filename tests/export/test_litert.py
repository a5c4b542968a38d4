"""LiteRT files through an environment of their own: the same contract, or one line that says how to make it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from softedge.errors import UserError
from softedge.export.contract import artifact_of
from softedge.export.litert import candidates as litert_candidates
from softedge.export.litert import environment as litert
from softedge.export.litert.format import LiteRt
from softedge.export.parity import compare


def test_without_the_environment_one_line_says_how_to_make_it(monkeypatch, tmp_path, deployed, pictures):
    monkeypatch.setenv("SOFTEDGE_LITERT", str(tmp_path / "none"))
    assert "make it with: softedge setup litert" in (LiteRt().missing() or "")
    with pytest.raises(UserError, match="needs an environment of its own"):
        LiteRt().convert(deployed, "fp32", pictures[:0], tmp_path)
    assert not list(tmp_path.iterdir())


def test_failing_installation_is_one_line_and_is_not_taken_for_a_finished_one(monkeypatch, tmp_path):
    monkeypatch.setenv("SOFTEDGE_LITERT", str(tmp_path / "env"))
    monkeypatch.setattr(litert, "PACKAGES", ("--no-index", "litert-torch"))
    with pytest.raises(UserError, match="LiteRT's environment could not be made in"):
        litert.make()
    assert LiteRt().missing() is not None


def test_worker_that_fails_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(litert, "interpreter", lambda: sys.executable)
    with pytest.raises(UserError, match="LiteRT cannot run none.tflite: "):
        litert.work("run", tmp_path / "none.tflite", tmp_path / "none.npy", tmp_path / "out.npy")


@pytest.mark.parametrize("worker", ["worker", "rounding_worker"])
def test_workers_import_nothing_of_softedge(worker):
    code = f"import sys; import {worker}; print([m for m in sys.modules if m.startswith(('softedge', 'torch'))])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=litert.WORKER.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
@pytest.mark.hardware
@pytest.mark.parametrize(("precision", "largest"), [("fp32", 1e-5), ("int8", 0.4)])
def test_reloaded_file_agrees_with_pytorch(deployed, pictures, tmp_path, precision, largest):
    target = LiteRt()
    if (why := target.missing()) is not None:
        pytest.skip(why)
    artifact = target.convert(deployed, precision, pictures[:20], tmp_path)
    found = compare(target.load(artifact)(pictures), deployed.predict(pictures))
    assert found.max_abs_diff <= largest and found.agreement >= 0.9


@pytest.mark.slow
@pytest.mark.hardware
def test_rounded_weights_and_the_file_itself_say_what_computes_in_integers(deployed, pictures, tmp_path):
    target = LiteRt()
    if (why := target.missing()) is not None:
        pytest.skip(why)
    artifact = target.convert(deployed, "int8", pictures[:40], tmp_path)
    counts = target.integer_operations(artifact)
    assert sum(counts.values()) == 7 and counts.get("conv", 0) >= 4 and set(counts) <= {"conv", "conv_float", "linear"}
    assert compare(target.load(artifact)(pictures), deployed.predict(pictures)).sqnr_db > 20


def test_a_network_that_converts_to_other_layers_gives_no_weights_and_one_is_converted_once(monkeypatch, deployed):
    made = []
    monkeypatch.setattr(litert_candidates, "converted", lambda network, path: made.append(network))

    def described(path):
        layers = ["a", "b"] if path.name == "float.tflite" or made[-1] == "alike" else ["a"]
        operators = [{"kind": "CONV_2D", "outputs": [name], "weights": "float32"} for name in layers]
        end = {"kind": "SOFTMAX", "outputs": ["end"], "weights": None}
        return {"operators": [*operators, end], "outputs": [{"name": "end"}]}

    monkeypatch.setattr(litert_candidates, "described", described)
    candidates = litert_candidates.NetworkCandidates(deployed, None)
    options = [litert_candidates.Option("", litert_candidates.Quantization({"a": (0.0, 1.0)})) for _ in range(2)]
    assert candidates.file.layers == ("a", "b") and candidates.file.last == ("end",)
    first, second = (candidates.reweighted(option, "alike", {"b": (0.0, 2.0)}) for option in options)
    assert first.model.source == second.model.source and first.model.ranges == {"a": (0.0, 1.0), "b": (0.0, 2.0)}
    assert made == [deployed, "alike"]
    assert candidates.reweighted(options[0], "of other layers", {}) is None


@pytest.mark.parametrize(("types", "in_float"), [(["int8"] * 3, 0), (["float32", "int8", "int8"], 1)])
def test_the_search_keeps_what_the_exported_file_leaves_in_float(monkeypatch, deployed, types, in_float):
    operators = [{"kind": "CONV_2D", "outputs": [str(i)], "weights": kind} for i, kind in enumerate(types)]
    monkeypatch.setattr(
        litert_candidates, "described", lambda path: {"operators": operators, "outputs": [{"name": "2"}]}
    )
    monkeypatch.setattr(litert_candidates, "converted", lambda network, path: None)
    like = artifact_of(Path(__file__), "litert", "int8", deployed.spec)
    candidates = litert_candidates.NetworkCandidates(deployed, None, like)
    candidates.extremes = ["0"], np.zeros((4, 1)), np.ones((4, 1))
    floats = {option.model.in_float for option in candidates.calibrations()}
    assert floats == {("0", "1", "2")[:in_float]}
