"""LiteRT files through an environment of their own: the same contract, or one line that says how to make it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from softedge.errors import UserError
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


def test_worker_imports_nothing_of_softedge():
    code = "import sys; import worker; print([m for m in sys.modules if m.startswith(('softedge', 'torch'))])"
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
