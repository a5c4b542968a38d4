"""LiteRT and ExecuTorch files on this machine, where their packages are."""

from __future__ import annotations

import shutil
import stat
import sys
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
    monkeypatch.setenv("SOFTEDGE_LITERT", str(tmp_path / "none"))
    with open_device("local") as device:
        onnx, litert, executorch = device.run([artifacts[0], *ready_files[:2]], plan)
    assert onnx.samples_ms
    assert "ai-edge-litert is not installed here" in litert.skipped and "pip install ai-edge-litert" in litert.skipped
    assert "need executorch and PyTorch here" in executorch.skipped and "\n" not in executorch.skipped


INTERPRETER = """
import numpy as np
class Interpreter:
    def __init__(self, path, num_threads): pass
    def allocate_tensors(self): pass
    def get_input_details(self): return [{"index": 0, "dtype": np.uint8, "shape": [1, 8, 8, 3]}]
    def get_output_details(self): return [{"index": 1, "quantization": (0.0, 0)}]
    def set_tensor(self, index, image): self.image = image
    def invoke(self): pass
    def get_tensor(self, index): return self.image.mean(axis=(1, 2)).astype(np.float32)
    def get_tensor_details(self): return []
    def _get_ops_details(self): return []
"""


def test_a_runtime_that_only_its_own_environment_has_runs_there_beside_the_others(
    artifacts: list[Artifact], ready_files: list[Artifact], plan: TimingPlan, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment is one of this interpreter's with a LiteRT of a few lines; here the real one is hidden."""
    place = tmp_path / "litert"
    packages = place / "lib" / "python3" / "site-packages"
    for name in ("litert_torch", "ai_edge_litert", "ai_edge_litert-9.9.dist-info"):
        (packages / name).mkdir(parents=True)
    (packages / "ai_edge_litert" / "interpreter.py").write_text(INTERPRETER)
    (packages / "ai_edge_litert-9.9.dist-info" / "METADATA").write_text("Name: ai-edge-litert\nVersion: 9.9\n")
    python = place / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nPYTHONPATH={packages} exec {sys.executable} "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import sys; sys.modules['ai_edge_litert'] = None\nfrom importlib import metadata\nreal = metadata.version\n"
        "def version(name):\n    if name == 'ai-edge-litert': raise metadata.PackageNotFoundError(name)\n"
        "    return real(name)\nmetadata.version = version\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(hidden))
    monkeypatch.setenv("SOFTEDGE_LITERT", str(place))
    with open_device("local") as device:
        onnx, litert = device.run([artifacts[0], ready_files[0]], plan)
        assert device.describe()["runtimes"]["ai-edge-litert"] == "9.9"
    assert onnx.samples_ms and onnx.runtime.startswith("onnxruntime ")
    assert litert.runtime == "LiteRT 9.9" and len(litert.samples_ms) >= plan.min_count
    np.testing.assert_allclose(litert.outputs, colours()[0].mean(axis=(1, 2)), rtol=1e-6)
    with open_device(f"local:python={sys.executable}") as asked:
        (elsewhere,) = asked.run(ready_files[:1], plan)
    assert "ai-edge-litert is not installed here" in elsewhere.skipped
