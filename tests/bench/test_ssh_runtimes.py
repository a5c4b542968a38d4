"""What the ssh device does about runtimes that a board lacks, and about a board that is none."""

from __future__ import annotations

import shlex
import sys
import zipfile
from pathlib import Path

import pytest
from sshd import Server

from softedge.bench.base import DeviceError, TimingPlan, open_device
from softedge.bench.ssh import wheels
from softedge.records import Artifact

pytestmark = pytest.mark.hardware


def test_a_runtime_that_is_absent_is_the_reason_of_its_rows_alone(
    server: Server, artifacts: list[Artifact], plan: TimingPlan, tmp_path: Path, tidy: None
) -> None:
    python = tmp_path / "python"
    code = "import sys; sys.modules['openvino'] = None"
    (tmp_path / "sitecustomize.py").write_text(code)
    python.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(tmp_path))} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    with open_device(server.address(python=str(python))) as device:
        onnx, openvino = device.run(artifacts[:2], plan)
    assert onnx.samples_ms
    assert "openvino is missing" in openvino.skipped and "pip install openvino" in openvino.skipped


def test_wheels_travel_to_a_board_that_has_none(
    server: Server, artifacts: list[Artifact], plan: TimingPlan, tmp_path: Path, tidy: None
) -> None:
    """Numpy and onnxruntime zipped from this environment stand in for wheels; the remote Python has neither."""
    import numpy
    import onnxruntime

    for module in (numpy, onnxruntime):
        site, name = Path(module.__file__).parent.parent, module.__name__
        with zipfile.ZipFile(tmp_path / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
            for top in (name, f"{name}.libs", f"{name}-{module.__version__}.dist-info"):
                for path in (site / top).rglob("*"):
                    if "tests" not in path.parts and path.suffix != ".pyc":
                        wheel.write(path, path.relative_to(site))
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    with open_device(server.address(python=str(bare), wheels=str(tmp_path))) as device:
        onnx, openvino = device.run(artifacts[:2], plan)
        assert "numpy-1.0-py3-none-any.whl" in device.describe()["sent_wheels"]
    assert onnx.samples_ms and "openvino is missing" in openvino.skipped


def test_a_runtime_of_which_no_wheel_can_be_had_is_the_reason_of_its_rows_alone(
    server: Server,
    artifacts: list[Artifact],
    ready_files: list[Artifact],
    plan: TimingPlan,
    tmp_path: Path,
    tidy: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def fetch(packages: list[str], *there: str) -> list[Path]:
        asked.extend(packages)
        raise DeviceError("no wheel of it for this Python is known")

    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['ai_edge_litert'] = None")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(tmp_path))} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(wheels, "fetch", fetch)
    with open_device(server.address(python=str(python), wheels="send")) as device:
        onnx, litert = device.run([artifacts[0], ready_files[0]], plan)
    assert onnx.samples_ms and asked == ["ai-edge-litert"]  # nothing for files that are not measured
    assert litert.skipped.startswith("not run: ai-edge-litert is missing for ") and "no wheel of it" in litert.skipped


def test_a_board_that_qemu_makes_up_gives_answers_and_no_times(
    server: Server, artifacts: list[Artifact], plan: TimingPlan, tidy: None
) -> None:
    with open_device(server.address()) as device:
        device.about["board"] = "linux,dummy-virt"  # type: ignore[attr-defined]  (what its device tree says)
        facts, (onnx,) = device.describe(), device.run(artifacts[:1], plan)
    assert facts["emulated"] and "qemu" in onnx.not_timed and onnx.outputs is not None
    assert not onnx.samples_ms and onnx.load_ms is None and onnx.first_ms is None
