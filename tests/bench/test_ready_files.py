"""LiteRT and ExecuTorch files on this machine, where their packages are."""

from __future__ import annotations

import shutil
from pathlib import Path

import colour_model
import numpy as np
import pytest
from colour_model import LABELS, SPEC, colours
from test_local import reference

from softedge.bench.base import TimingPlan, open_device
from softedge.export import contract
from softedge.records import Artifact


@pytest.mark.parametrize(("index", "package"), [(0, "ai_edge_litert"), (1, "executorch"), (2, "executorch")])
def test_a_file_whose_runtime_is_here_is_timed_and_answers_as_numpy_does(
    index: int, package: str, ready_files: list[Artifact], plan: TimingPlan
) -> None:
    pytest.importorskip(package)
    with open_device("local:threads=2") as device:
        (measurement,) = device.run(ready_files[index : index + 1], plan)
    assert not measurement.skipped and len(measurement.samples_ms) >= plan.min_count
    assert measurement.outputs is not None and measurement.threads == 2 and measurement.accelerator == "XNNPACK"
    np.testing.assert_allclose(measurement.outputs, reference(colours()[0]), atol=0.01 if index == 2 else 1e-5)


def test_litert_answers_in_integers_become_probabilities_on_the_device(plan: TimingPlan, tmp_path) -> None:
    """The file loses nothing but the fraction of a step of 1/25 in its logits."""
    pytest.importorskip("ai_edge_litert")
    shutil.copyfile(Path(colour_model.__file__).with_name("colour-int8-strict.tflite"), tmp_path / "model.tflite")
    artifact = contract.artifact_of(tmp_path / "model.tflite", "litert", "int8-strict", SPEC, LABELS)
    with open_device("local") as device:
        (measurement,) = device.run([artifact], plan)
    assert measurement.outputs is not None and not measurement.skipped
    np.testing.assert_allclose(measurement.outputs, reference(colours()[0]), atol=0.01)
    assert measurement.effective_precision == "int8"


def test_a_file_whose_runtime_is_absent_says_what_to_install_and_the_others_run(
    artifacts: list[Artifact], ready_files: list[Artifact], plan: TimingPlan, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import sys; sys.modules.update(dict.fromkeys(['ai_edge_litert', 'executorch']))"
    (tmp_path / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with open_device("local") as device:
        onnx, litert, executorch = device.run([artifacts[0], *ready_files[:2]], plan)
    assert onnx.samples_ms
    assert "ai-edge-litert is not installed here" in litert.skipped and "pip install ai-edge-litert" in litert.skipped
    assert "need executorch and PyTorch here" in executorch.skipped and "\n" not in executorch.skipped
