"""Emulated processors are a device of the bench; here a made-up one answers in its place."""

import contextlib
from pathlib import Path

import numpy as np

from softedge.bench import base as device
from softedge.bench.base import DeviceError, Measurement
from softedge.quantize.hardware import changed_answers
from softedge.records import Artifact, InputSpec

SPEC = InputSpec(4, 4, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
ARTIFACT = Artifact(Path("model.onnx"), "onnx", "int8", "s", 1, SPEC, ("a", "b"))
IMAGES = np.zeros((4, 4, 4, 3), np.uint8)
HERE = np.array([[0.9, 0.1]] * 4, np.float32)


class Processor:
    def __init__(self, outputs):
        self.outputs = outputs

    def run(self, artifacts, plan):
        assert len(np.load(plan.images)) == 4
        return [Measurement("onnx-int8", "s", outputs=self.outputs)]


def emulate(monkeypatch, outputs):
    monkeypatch.setattr(device, "open_device", lambda spec: contextlib.nullcontext(Processor(outputs)))


def test_changed_answers_are_counted_and_the_safe_setting_is_offered(monkeypatch):
    saturated = HERE.copy()
    saturated[1] = (0.2, 0.8)
    emulate(monkeypatch, saturated)
    found = changed_answers(ARTIFACT, IMAGES, HERE, ("avx2",))["avx2"]
    assert found["changed"] == 0.25
    assert found["max_abs_diff"] == np.float32(0.7)
    assert "export.safe=true" in found["advice"] and "x64quantprecision" in found["advice"]


def test_equal_answers_need_no_advice(monkeypatch):
    emulate(monkeypatch, HERE)
    assert changed_answers(ARTIFACT, IMAGES, HERE, ("avx2",))["avx2"] == {
        "n": 4,
        "changed": 0.0,
        "max_abs_diff": 0.0,
        "advice": "",
    }


def test_without_qemu_it_is_not_run_and_says_why(monkeypatch):
    def absent(spec):
        raise DeviceError(f"{spec} needs qemu-x86_64-static")

    monkeypatch.setattr(device, "open_device", absent)
    assert changed_answers(ARTIFACT, IMAGES, HERE, ("avx2",)) == {
        "avx2": {"not_run": "emulated:avx2 needs qemu-x86_64-static"}
    }
