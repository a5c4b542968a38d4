from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
from colour_model import colours
from test_local import reference

from softedge.bench import native
from softedge.bench.base import DeviceError, TimingPlan, open_device
from softedge.bench.emulated import sysroot
from softedge.errors import UserError
from softedge.export.base import open_format
from softedge.records import Artifact


@pytest.mark.hardware
@pytest.mark.parametrize("kind", ["arm64", "avx2"])
def test_another_processor_computes_the_same_and_is_never_timed(
    kind: str, artifacts: list[Artifact], plan: TimingPlan
) -> None:
    if kind == "arm64" and (shutil.which(sysroot.QEMU) is None or sysroot.existing() is None):
        pytest.skip("needs qemu-user-static, and once: python -m softedge.bench.emulated.sysroot")
    if kind == "avx2" and shutil.which("qemu-x86_64-static") is None:
        pytest.skip("needs qemu-user-static")
    with open_device(f"emulated:{kind}") as device:
        facts = device.describe()
        onnx, coreml = device.run([artifacts[0], artifacts[2]], plan)
    assert facts["emulated"] and "emulated" in facts["cpu"] and "temperature_c" not in facts
    assert onnx.outputs is not None
    np.testing.assert_allclose(onnx.outputs, reference(colours()[0]), atol=1e-5)
    assert "emulated" in onnx.not_timed
    assert not onnx.samples_ms and onnx.load_ms is None and onnx.first_ms is None and not onnx.end_to_end_ms
    assert "Apple" in coreml.skipped


@pytest.mark.hardware
def test_runtimes_of_arm_boards_answer_as_numpy_does_without_their_converters_or_pytorch(
    ready_files: list[Artifact], plan: TimingPlan
) -> None:
    """int8 too: on qemu's richest processor, which no board has, its 8-bit products are wrong."""
    library = native.place(open_format("executorch"), "aarch64")
    if shutil.which(sysroot.QEMU) is None or sysroot.existing() is None or not (library and library.exists()):
        pytest.skip("needs qemu-user-static, and once: python -m softedge.bench.emulated.sysroot")
    with open_device("emulated:arm64") as device:
        measured = device.run(ready_files, plan)
    for measurement, closeness in zip(measured, (1e-5, 1e-5, 0.01), strict=True):
        assert not measurement.skipped and measurement.outputs is not None
        np.testing.assert_allclose(measurement.outputs, reference(colours()[0]), atol=closeness)
        assert measurement.threads == 1 and measurement.accelerator == "XNNPACK" and not measurement.samples_ms
    assert [m.runtime.split()[0] for m in measured] == ["LiteRT", "executorch", "executorch"]
    assert measured[0].effective_precision == "f32"


def test_an_unknown_processor_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UserError, match="did you mean 'arm64'"):
        open_device("emulated:arm")


def test_without_qemu_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    for kind in ("arm64", "avx2"):
        with pytest.raises(DeviceError, match="sudo apt-get install qemu-user-static"), open_device(f"emulated:{kind}"):
            pass


@pytest.mark.hardware
def test_an_emulation_that_takes_too_long_is_stopped(artifacts: list[Artifact], plan: TimingPlan) -> None:
    if shutil.which("qemu-x86_64-static") is None:
        pytest.skip("needs qemu-user-static")
    short = dataclasses.replace(plan, time_limit_s=0.5)
    with open_device("emulated:avx2") as device, pytest.raises(DeviceError, match="hung, no result within"):
        device.run(artifacts[:1], short)
