from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest
from colour_model import LABELS, colours
from test_local import reference

from softedge.bench.base import TimingPlan, open_device
from softedge.errors import UserError
from softedge.records import Artifact

# What coremltools offers on a Mac, with the colour model behind it: a classifier answers label -> probability.
DOUBLE = f"""
import enum
import types
import numpy as np

__version__ = "double"


class ComputeUnit(enum.Enum):
    ALL = 1
    CPU_AND_GPU = 2
    CPU_ONLY = 3
    CPU_AND_NE = 4


class MLModel:
    def __init__(self, path, compute_units):
        assert compute_units is ComputeUnit.CPU_AND_NE, compute_units

    def predict(self, inputs):
        logits = np.asarray(inputs["image"], np.float32).mean(axis=(0, 1)) / 25
        values = np.exp(logits - logits.max())
        named = dict(zip({LABELS!r}, values / values.sum()))
        return {{"label": max(named, key=named.get), "probabilities": dict(sorted(named.items()))}}


models = types.SimpleNamespace(MLModel=MLModel)
"""


def test_core_ml_is_run_per_compute_unit_through_coremltools(
    artifacts: list[Artifact], plan: TimingPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "coremltools.py").write_text(DOUBLE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    with open_device("macos:CPU_AND_NE") as device:
        onnx, coreml = device.run([artifacts[0], artifacts[2]], plan)
    assert "run on local" in onnx.skipped
    assert coreml.outputs is not None
    np.testing.assert_allclose(coreml.outputs, reference(colours()[0]), atol=1e-5)
    assert coreml.accelerator == "allowed: CPU_AND_NE"
    assert len(coreml.samples_ms) >= plan.min_count and coreml.end_to_end_ms["total"]


@pytest.mark.skipif(platform.system() == "Darwin", reason="this is a Mac")
def test_elsewhere_than_on_a_mac_core_ml_is_not_run(artifacts: list[Artifact], plan: TimingPlan) -> None:
    with open_device("macos:") as device:
        (coreml,) = device.run([artifacts[2]], plan)
    assert coreml.skipped == f"not run: Core ML runs on macOS, this is {platform.system()}"
    assert not coreml.samples_ms


def test_an_unknown_compute_unit_is_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'CPU_AND_NE'"):
        open_device("macos:CPU_NE")
