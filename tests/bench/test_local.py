from __future__ import annotations

import dataclasses
import json
import os
import platform
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from colour_model import SPEC, colour_model, colours, export

from softedge.bench import job
from softedge.bench.base import DeviceError, Measurement, TimingPlan, open_device
from softedge.export import contract
from softedge.export.base import open_format
from softedge.records import Artifact
from softedge.run import sha256


def reference(images: np.ndarray) -> np.ndarray:
    """The colour model in NumPy: softmax of the channel means / 25."""
    logits = images.astype(np.float32).mean(axis=(1, 2)) / 25
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's temporary folders go, so that another benchmark on this machine is not mistaken for ours."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_every_image_gets_the_output_that_numpy_computes(
    artifacts: list[Artifact], plan: TimingPlan, scratch: Path
) -> None:
    with open_device("local") as device:
        measured = device.run(artifacts, plan)
    assert [m.artifact for m in measured] == ["onnx-fp32", "openvino-fp32", "coreml-fp16"]
    for measurement in measured[:2]:
        assert measurement.outputs is not None and measurement.outputs.dtype == np.float32
        np.testing.assert_allclose(measurement.outputs, reference(colours()[0]), atol=1e-5)
    assert not any(scratch.iterdir())


def test_samples_meet_count_and_time_and_take_turns(artifacts: list[Artifact], plan: TimingPlan) -> None:
    with open_device("local") as device:
        onnx, openvino, coreml = device.run(artifacts, plan)
    for measurement in (onnx, openvino):
        assert len(measurement.samples_ms) == len(measurement.rounds) >= plan.min_count
        assert sum(measurement.samples_ms) / 1000 >= plan.min_seconds
        assert min(measurement.samples_ms) > 0
        assert list(measurement.rounds) == sorted(measurement.rounds)
        counts = np.bincount(measurement.rounds)
        assert counts.min() >= plan.slice_count
        assert measurement.load_ms and measurement.first_ms and measurement.peak_memory_bytes
        assert set(measurement.end_to_end_ms) == {"decode", "resize", "model", "total"}
        parts = [np.asarray(measurement.end_to_end_ms[key]) for key in ("decode", "resize", "model", "total")]
        assert all(len(part) == plan.end_to_end_count for part in parts)
        np.testing.assert_allclose(parts[0] + parts[1] + parts[2], parts[3], atol=1e-3)
    assert set(onnx.rounds) & set(openvino.rounds)
    assert "Apple" in coreml.skipped and not coreml.samples_ms


def threads_of(measurement: Measurement, asked: int) -> int:
    """OpenVINO never takes more threads than the process may use cores, and says so."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else asked
    return min(asked, usable) if measurement.runtime.startswith("openvino") else asked


def test_threads_and_precision_are_read_back_from_the_runtime(artifacts: list[Artifact], plan: TimingPlan) -> None:
    with open_device("local:threads=2") as device:
        for measurement in device.run(artifacts[:2], plan):
            assert measurement.threads == threads_of(measurement, 2)
            assert measurement.effective_precision == "f32"
            assert measurement.details["kernels"]
    assert measurement.runtime.startswith("openvino 20")


def test_a_file_is_timed_in_f32_as_it_was_checked_unless_another_precision_is_asked_for(
    tmp_path: Path, plan: TimingPlan
) -> None:
    half = export(tmp_path / "openvino-fp16", "openvino", "fp16")
    (measured,) = open_device("local").run([half], plan)
    assert measured.effective_precision == "f32" and measured.outputs is not None
    np.testing.assert_allclose(measured.outputs, open_format("openvino").load(half)(colours()[0]), atol=1e-6)
    (other,) = open_device("local:precision=bf16").run([half], plan)
    bf16 = "avx512_bf16" in open_device("local").describe()["isa"]
    assert other.effective_precision == ("bf16" if bf16 else "f32")


def hint_of(settings: dict[str, Any], machine: str, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """The precision that a board of this kind asks OpenVINO for; None: it leaves it to OpenVINO."""
    asked: list[dict[str, Any]] = []

    class Core:
        available_devices = ("CPU", "GPU")

        def read_model(self, path: str) -> Any:
            shape = SimpleNamespace(get_partial_shape=lambda: [1, 8, 8, 3])
            return SimpleNamespace(inputs=[shape], reshape=lambda shapes: None)

        def compile_model(self, model: Any, device: str, options: dict[str, Any]) -> Any:
            asked.append(options)
            return SimpleNamespace(create_infer_request=lambda: None, outputs=[])

    for name in ("detections", "kernels"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "openvino", SimpleNamespace(Core=Core))  # type: ignore[arg-type]
    monkeypatch.setattr(platform, "machine", lambda: machine)
    runpy.run_path(str(open_format("openvino").board_runtime()))["Runtime"]("model.xml", settings)
    return asked[0].get("INFERENCE_PRECISION_HINT")


@pytest.mark.parametrize(
    ("machine", "device", "hint"),
    [("x86_64", None, "f32"), ("aarch64", None, None), ("x86_64", "GPU", None), ("aarch64", "CPU", None)],
)
def test_a_board_computes_fp16_files_in_half_precision_where_that_is_what_they_are_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, device: str | None, hint: str | None
) -> None:
    asked = {"device": device} if device else {}
    half = export(tmp_path / "openvino-fp16", "openvino", "fp16")
    settings = {"threads": 1, **open_format("openvino").board_settings(half, asked)}
    assert hint_of(settings, machine, monkeypatch) == hint
    here = open_device("local").settings  # type: ignore[attr-defined]
    assert hint_of({"threads": 1, **open_format("openvino").board_settings(half, here)}, machine, monkeypatch) == "f32"


def test_the_machine_describes_itself() -> None:
    facts = open_device("local").describe()
    assert facts["cores"] == os.cpu_count()
    assert facts["runtimes"]["numpy"] == np.__version__
    assert facts["machine"] and facts["os"] and facts["cpu"]


def test_an_execution_provider_that_is_absent_is_a_reason_not_a_crash(
    artifacts: list[Artifact], plan: TimingPlan
) -> None:
    with open_device("local:provider=TensorrtExecutionProvider") as device:
        onnx, openvino = device.run(artifacts[:2], plan)
    assert "no TensorrtExecutionProvider; it has: " in onnx.skipped and "CPUExecutionProvider" in onnx.skipped
    assert openvino.samples_ms


def test_a_damaged_model_fails_alone_and_the_others_run(
    tmp_path: Path, artifacts: list[Artifact], plan: TimingPlan
) -> None:
    (tmp_path / "broken").mkdir()
    path = tmp_path / "broken" / "model.onnx"
    path.write_bytes(artifacts[0].path.read_bytes()[:100])
    broken = contract.artifact_of(path, "onnx", "int8", SPEC)
    with open_device("local") as device:
        first, second = device.run([broken, artifacts[0]], plan)
    assert first.skipped.startswith("failed: ") and "\n" not in first.skipped
    assert second.samples_ms


def write_job(folder: Path, artifact: Artifact, plan: TimingPlan, **more: object) -> None:
    job.pack(folder, [artifact], plan, {}, **more)


def test_a_killed_artifact_process_gives_a_reason(tmp_path: Path, artifacts: list[Artifact], plan: TimingPlan) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    write_job(folder, artifacts[0], plan)
    # A runtime that kills its process, as the kernel does when memory runs out.
    text = (folder / "subject.py").read_text()
    (folder / "subject.py").write_text(
        text.replace("def round(self)", "def round(self):\n        os.kill(os.getpid(), 9)\n\n    def old(self)")
    )
    subprocess.run([sys.executable, folder / "worker.py", "run", folder], check=True, timeout=60)
    results = json.loads((folder / "results.json").read_text())["results"]
    assert "signal 9 (out of memory?)" in results["onnx-fp32"]["skipped"]


def test_a_hung_worker_is_stopped_and_leaves_nothing(
    artifacts: list[Artifact], plan: TimingPlan, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "_GRACE_S", 0.0)
    endless = dataclasses.replace(plan, min_seconds=1e9, time_limit_s=3.0)
    with open_device("local") as device, pytest.raises(DeviceError, match="hung, no result within 3 s"):
        device.run(artifacts[:1], endless)
    assert not any(scratch.iterdir())
    assert not processes_with(str(scratch))


def test_the_worker_ends_when_whoever_started_it_is_gone(
    tmp_path: Path, artifacts: list[Artifact], plan: TimingPlan
) -> None:
    folder = tmp_path / "orphan job"
    folder.mkdir()
    write_job(folder, artifacts[0], dataclasses.replace(plan, min_seconds=1e9), temporary=True)
    command = [sys.executable, str(folder / "worker.py"), "run", str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdin is not None
    process.stdout.readline()  # a round is done
    process.stdin.close()
    process.wait(timeout=10)
    process.stdout.close()
    deadline = time.monotonic() + 5
    while processes_with(str(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not processes_with(str(folder))
    assert not folder.exists()


def test_the_worker_needs_nothing_of_softedge(tmp_path: Path, artifacts: list[Artifact], plan: TimingPlan) -> None:
    """A board has Python, NumPy and a runtime; torch, softedge and everything else may be absent."""
    folder = tmp_path / "job"
    folder.mkdir()
    write_job(folder, artifacts[0], plan)
    blocker = (
        "import sys\nfor name in ('softedge', 'torch', 'cv2', 'PIL', 'onnx', 'sklearn'): sys.modules[name] = None\n"
    )
    (folder / "sitecustomize.py").write_text(blocker)
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, str(folder / "worker.py"), "run", str(folder)]
    subprocess.run(command, check=True, env=environment, cwd="/", timeout=60)
    result = json.loads((folder / "results.json").read_text())["results"]["onnx-fp32"]
    assert result["samples_ms"]
    assert "pip install pillow" in result["end_to_end_skipped"]
    assert result["sha256"] == [sha256(artifacts[0].path)]


def test_another_file_than_the_exported_one_is_refused(
    tmp_path: Path, artifacts: list[Artifact], plan: TimingPlan
) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    hashes = job.pack(folder, artifacts[:1], plan, {})
    colour_model(folder / "onnx-fp32" / "model.onnx", flawed=True)
    subprocess.run([sys.executable, folder / "worker.py", "run", folder], check=True, timeout=60)
    with pytest.raises(DeviceError, match="corrupted in transfer"):
        job.unpack(folder, artifacts[:1], hashes, plan)


def processes_with(word: str) -> list[str]:
    """Command lines of running processes that contain ``word`` (Linux; elsewhere nothing is checked)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if word in line:
            found.append(line)
    return found
