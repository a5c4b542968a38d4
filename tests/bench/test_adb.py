"""The real adb program against a double of a phone, the real runner under qemu: answers count here, times never."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import colour_model
import numpy as np
import pytest
from adbd_double import CPUINFO, LOADER, AdbdDouble
from colour_model import LABELS, SPEC, colours, export

from softedge.bench import job, native, pinned
from softedge.bench.android import bundle as android_bundle
from softedge.bench.android import device as android_device
from softedge.bench.base import DeviceError, TimingPlan, open_device
from softedge.errors import UserError
from softedge.export import contract
from softedge.export.base import open_format
from softedge.records import Artifact

QEMU = shutil.which("qemu-aarch64-static")
pytestmark = [
    pytest.mark.hardware,
    pytest.mark.skipif(shutil.which("adb") is None, reason="adb is not installed: apt-get install adb"),
    pytest.mark.skipif(QEMU is None, reason="qemu-aarch64-static is not here: apt-get install qemu-user-static"),
]


@pytest.fixture(scope="module")
def bundle() -> Path:
    """The bundle from the cache, or made now (half a minute, once)."""
    try:
        return android_bundle.bundle()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An adb of our own: its server's port, its keys.  One server for all tests here."""
    cache, folder = pinned.cache_folder(), tmp_path_factory.mktemp("home")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTEDGE_CACHE", str(cache))
        patch.setenv("HOME", str(folder))
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
        subprocess.run(["adb", "start-server"], check=True, capture_output=True, timeout=30)
        yield folder
        subprocess.run(["adb", "kill-server"], check=False, capture_output=True, timeout=30)


@pytest.fixture
def phone(tmp_path: Path, home: Path) -> Iterator[AdbdDouble]:
    with AdbdDouble(tmp_path / "phone") as double:
        yield double


@pytest.fixture
def real_phone(tmp_path: Path, home: Path) -> Iterator[AdbdDouble]:
    """A double that does not say what it is, so that the runner takes its time."""
    with AdbdDouble(tmp_path / "phone", {"ro.boot.qemu": "0"}) as double:
        yield double


def reference(images: np.ndarray) -> np.ndarray:
    """The colour model in NumPy: softmax of the channel means / 25."""
    logits = images.astype(np.float32).mean(axis=(1, 2)) / 25
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def processes(text: str) -> list[str]:
    """Command lines that have ``text``, ours excepted; a process that was just killed may take a moment."""
    for _ in range(50):
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if text in line and entry.parent.name != str(os.getpid()):
                found.append(line)
        if not found:
            return []
        time.sleep(0.1)
    return found


def nothing_is_left(phone: AdbdDouble) -> bool:
    """No file and no process; the runner removes both by itself when the cable was pulled."""
    deadline = time.monotonic() + 10
    while phone.leftovers() and time.monotonic() < deadline:
        time.sleep(0.1)
    return not phone.leftovers() and not processes(str(phone.storage))


def test_an_emulated_phone_gives_the_outputs_that_numpy_computes_and_no_times(
    bundle: Path, phone: AdbdDouble, tmp_path: Path, plan: TimingPlan
) -> None:
    odd = tmp_path / "it's a $(touch pwned); `folder` & more"
    artifacts = [export(odd / "onnx-fp32", "onnx", "fp32"), export(odd / "openvino-fp32", "openvino", "fp32")]
    with open_device(f"adb://{phone.serial}") as device:
        about = device.describe()
        onnx, openvino = device.run(artifacts, plan)
    assert about["model"] == "softedge Double of a phone" and about["os"] == "Android 14" and about["emulated"]
    assert onnx.outputs is not None and onnx.outputs.dtype == np.float32
    np.testing.assert_allclose(onnx.outputs, reference(colours()[0]), atol=1e-5)
    assert "emulator" in onnx.not_timed
    assert not onnx.samples_ms and onnx.load_ms is None and onnx.first_ms is None
    assert onnx.sha256 == artifacts[0].sha256 and onnx.effective_precision == "f32"
    assert onnx.runtime == f"onnxruntime {android_bundle.ONNXRUNTIME}"
    assert "runs ONNX, ExecuTorch and LiteRT files" in openvino.skipped and openvino.outputs is None
    assert nothing_is_left(phone)


def test_an_emulated_phone_runs_executorch_files_beside_onnx(
    bundle: Path, phone: AdbdDouble, artifacts: list[Artifact], ready_files: list[Artifact], plan: TimingPlan
) -> None:
    library = native.place(open_format("executorch"), "aarch64")
    if library is None or not library.with_suffix(".android").exists():
        pytest.skip("needs once: python -m softedge.bench.android.bundle")
    damaged = ready_files[1].path.with_name("damaged") / "model.pte"
    damaged.parent.mkdir(exist_ok=True)
    damaged.write_bytes(b"no program")
    broken = contract.artifact_of(damaged, "executorch", "fp32", SPEC, LABELS)
    with open_device(f"adb://{phone.serial}") as device:
        onnx, fp32, int8 = device.run([artifacts[0], *ready_files[1:]], plan)
        (failed,) = device.run([broken], plan)
    for measurement, closeness in ((onnx, 1e-5), (fp32, 1e-5), (int8, 0.01)):
        assert not measurement.skipped and measurement.outputs is not None
        np.testing.assert_allclose(measurement.outputs, reference(colours()[0]), atol=closeness)
        assert "emulator" in measurement.not_timed and not measurement.samples_ms
    assert fp32.runtime.startswith("executorch ") and onnx.runtime.startswith("onnxruntime ")
    assert "could not read the program" in failed.skipped and "\n" not in failed.skipped
    assert nothing_is_left(phone)


def in_integers(folder: Path, target: str) -> Artifact:
    """A file that answers in bytes, with what its contract says of them."""
    place = folder / f"{target}-int8-strict"
    place.mkdir()
    path = place / f"model{open_format(target).suffix}"
    if target == "onnx":
        answering_in_bytes(path)
    else:
        shutil.copyfile(Path(colour_model.__file__).with_name("colour-int8-strict.tflite"), path)
    edge = {"dtype": "uint8", "scale": 0.04, "zero_point": 0}
    (place / contract.FILE).write_text(json.dumps({"schema": contract.SCHEMA, "output": edge}))
    return contract.artifact_of(path, target, "int8-strict", SPEC, LABELS)


def answering_in_bytes(path: Path) -> None:
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(colour_model.colour_model(path))
    grid = {"scale": np.float32(0.04), "zero": np.uint8(0)}
    model.graph.initializer.extend(numpy_helper.from_array(np.array(v), name) for name, v in grid.items())
    model.graph.node.pop()  # the softmax
    model.graph.node.append(helper.make_node("QuantizeLinear", ["logits", "scale", "zero"], ["integers"]))
    model.graph.output.pop()
    model.graph.output.append(helper.make_tensor_value_info("integers", onnx.TensorProto.UINT8, ["n", 3]))
    onnx.save(model, path)


def test_answers_in_bytes_become_probabilities_as_the_contract_says(tmp_path: Path) -> None:
    artifact = in_integers(tmp_path, "litert")
    levels = np.array([[25.0, 50.0, 0.0]], np.float32)
    values = np.exp([1.0, 2.0, 0.0])
    np.testing.assert_allclose(android_device._finished(artifact, levels)[0], values / values.sum(), rtol=1e-5)
    others = contract.artifact_of(artifact.path, "litert", "int8", SPEC, LABELS)
    assert android_device._finished(others, levels) is levels


def test_an_emulated_phone_runs_litert_files_by_the_c_library_of_the_wheel(
    bundle: Path,
    phone: AdbdDouble,
    artifacts: list[Artifact],
    ready_files: list[Artifact],
    plan: TimingPlan,
    tmp_path: Path,
) -> None:
    library = native.place(open_format("litert"), "aarch64", phone=True)
    if library is None or not library.with_suffix(".android").exists():
        pytest.skip("needs once: python -m softedge.bench.android.bundle")
    damaged = ready_files[0].path.with_name("damaged") / "model.tflite"
    damaged.parent.mkdir(exist_ok=True)
    damaged.write_bytes(ready_files[0].path.read_bytes()[:-20])  # cut short
    broken = contract.artifact_of(damaged, "litert", "fp32", SPEC, LABELS)
    with open_device(f"adb://{phone.serial}?threads=2") as device:
        whole = export(tmp_path / "litert-int8", "litert", "int8")
        onnx, litert, int8 = device.run([artifacts[0], ready_files[0], whole], plan)
        alone = device.run([in_integers(tmp_path, target) for target in ("litert", "onnx")], plan)
        (failed,) = device.run([broken], plan)
    assert not onnx.skipped and not litert.skipped and litert.outputs is not None
    np.testing.assert_allclose(litert.outputs, reference(colours()[0]), atol=1e-5)
    np.testing.assert_allclose(int8.outputs, reference(colours()[0]), atol=1e-5)  # this file's int8 loses nothing
    for each in alone:  # logits in steps of 1/25
        np.testing.assert_allclose(each.outputs, reference(colours()[0]), atol=0.01, err_msg=each.skipped)
    assert "emulator" in litert.not_timed and not litert.samples_ms
    assert litert.runtime.startswith("ai-edge-litert ") and litert.accelerator == "XNNPACK"
    assert "could not read the file: LiteRT's error" in failed.skipped and "\n" not in failed.skipped
    assert nothing_is_left(phone)


def run_under_qemu(bundle: Path, folder: Path, models: list[bytes], **settings: float) -> list[dict[str, Any]]:
    """The runner as the phone starts it, without adb; what results.json says."""
    (folder / "root" / "proc").mkdir(parents=True)
    (folder / "root" / "proc" / "cpuinfo").write_text(CPUINFO)
    for path in android_bundle.files(bundle):
        shutil.copy(path, folder)
    images, _ = colours()
    (folder / "images.bin").write_bytes(images.tobytes())
    for index, model in enumerate(models):
        (folder / f"model-{index}.onnx").write_bytes(model)
    job_ = {"models": len(models), "images": 12, "height": 8, "width": 8, "threads": 1, "warmup": 2, "min_count": 20}
    job_ |= {"min_seconds": 0.05, "slice_ms": 2, "slice_count": 4, "seed": 3, "timed": 1, "limit_s": 60}
    (folder / "job.txt").write_text("".join(f"{key} {value}\n" for key, value in {**job_, **settings}.items()))
    assert QEMU
    command = [QEMU, "-L", "root", LOADER, "--library-path", ".", "./runner"]
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE) as process:  # it ends itself when stdin closes
        assert process.wait(timeout=60) == 0
    return json.loads((folder / "results.json").read_text())


def test_models_take_turns_until_count_and_time_are_reached(
    bundle: Path, tmp_path: Path, artifacts: list[Artifact]
) -> None:
    model = artifacts[0].path.read_bytes()
    rows = run_under_qemu(bundle, tmp_path, [model, b"this is no model", model])
    assert "onnxruntime: " in rows[1]["failed"]
    for index in (0, 2):
        row = rows[index]
        assert len(row["samples_ms"]) == len(row["rounds"]) >= 20
        assert sum(row["samples_ms"]) >= 50 and min(row["samples_ms"]) > 0
        assert np.bincount(row["rounds"]).min() >= 4 and row["rounds"] == sorted(row["rounds"])
        assert row["sha256"] == artifacts[0].sha256 and row["load_ms"] > 0 and row["first_ms"] > 0
        assert row["peak_memory_bytes"] > 10e6 and sum(row["cores"]) == len(row["samples_ms"])
        outputs = np.fromfile(tmp_path / f"outputs-{index}.bin", np.float32).reshape(12, row["columns"])
        np.testing.assert_allclose(outputs, reference(colours()[0]), atol=1e-5)
    assert set(rows[0]["rounds"]) & set(rows[2]["rounds"])


def test_a_pulled_cable_gives_one_line_and_leaves_nothing(
    bundle: Path, real_phone: AdbdDouble, artifacts: list[Artifact], plan: TimingPlan
) -> None:
    real_phone.drop_at = r"exec \./ld-linux"
    endless = dataclasses.replace(plan, min_seconds=1e9)
    device = open_device(f"adb://{real_phone.serial}")
    with pytest.raises(DeviceError, match="the phone was disconnected half way") as caught, device:
        device.run(artifacts[:1], endless)
    assert "\n" not in str(caught.value)
    assert nothing_is_left(real_phone)


def test_a_full_phone_gives_one_line_and_leaves_nothing(
    bundle: Path, phone: AdbdDouble, artifacts: list[Artifact], plan: TimingPlan
) -> None:
    phone.capacity = 3_000_000
    with open_device(f"adb://{phone.serial}") as device, pytest.raises(DeviceError, match="storage is full"):
        device.run(artifacts[:1], plan)
    assert nothing_is_left(phone)


def test_a_hung_runner_is_stopped_and_leaves_nothing(
    bundle: Path, phone: AdbdDouble, artifacts: list[Artifact], plan: TimingPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "_GRACE_S", 0.0)
    phone.replace = [(r"exec \./ld-linux.*", f"exec sleep {7 * 86400} < {phone.storage}")]  # deaf to its stdin
    short = dataclasses.replace(plan, time_limit_s=2.0)
    with open_device(f"adb://{phone.serial}") as device, pytest.raises(DeviceError, match="hung, no result within 2 s"):
        device.run(artifacts[:1], short)
    assert nothing_is_left(phone) and not processes(f"sleep {7 * 86400}")


def test_ctrl_c_leaves_nothing(
    bundle: Path,
    real_phone: AdbdDouble,
    artifacts: list[Artifact],
    plan: TimingPlan,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(process: subprocess.Popen[bytes], *_: object) -> None:
        assert process.stdout is not None and process.stdout.readline()  # it runs
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "_percents", interrupted)
    endless = dataclasses.replace(plan, min_seconds=1e9)
    with pytest.raises(KeyboardInterrupt), open_device(f"adb://{real_phone.serial}") as device:
        device.run(artifacts[:1], endless)
    assert nothing_is_left(real_phone)


def test_a_runner_that_cannot_start_says_why(
    bundle: Path, phone: AdbdDouble, artifacts: list[Artifact], plan: TimingPlan
) -> None:
    phone.replace = [(r"exec \./ld-linux.*", "echo 'CANNOT LINK EXECUTABLE' >&2; exit 6")]
    words = "exit code 6: it says: CANNOT LINK EXECUTABLE"
    with open_device(f"adb://{phone.serial}") as device, pytest.raises(DeviceError, match=words):
        device.run(artifacts[:1], plan)
    assert nothing_is_left(phone)


def test_a_runner_that_android_kills_gives_one_line_and_leaves_nothing(
    bundle: Path, real_phone: AdbdDouble, artifacts: list[Artifact], plan: TimingPlan
) -> None:
    """As the low-memory killer does, half way."""
    endless = dataclasses.replace(plan, min_seconds=1e9)

    def kill() -> None:
        pid = next(real_phone.storage.glob("softedge-*/pid")).read_text()
        os.kill(int(pid), 9)

    with open_device(f"adb://{real_phone.serial}") as device:
        threading.Timer(4.0, kill).start()
        with pytest.raises(DeviceError, match="the phone killed the runner, .*out of memory") as caught:
            device.run(artifacts[:1], endless)
    assert "\n" not in str(caught.value)
    assert nothing_is_left(real_phone)


def test_a_phone_whose_screen_is_off_is_measured_and_says_so(
    bundle: Path, phone: AdbdDouble, artifacts: list[Artifact], plan: TimingPlan, capsys: pytest.CaptureFixture[str]
) -> None:
    phone._program("dumpsys", "[ $1 = power ] && echo '  mWakefulness=Dozing'; true")
    with open_device(f"adb://{phone.serial}") as device:
        measurement = device.run(artifacts[:1], plan)[0]
    words = "the phone's screen is off (dozing): it measures slower than in use; unlock it"
    assert measurement.details["caveat"].startswith(words)
    assert words in capsys.readouterr().err


def test_a_file_that_changed_on_the_way_is_refused(
    bundle: Path, phone: AdbdDouble, artifacts: list[Artifact], plan: TimingPlan
) -> None:
    other = dataclasses.replace(artifacts[0], sha256="0" * 64)
    with open_device(f"adb://{phone.serial}") as device, pytest.raises(DeviceError, match="corrupted in transfer"):
        device.run([other], plan)


def test_a_phone_that_does_not_trust_this_computer_says_what_to_do(phone: AdbdDouble) -> None:
    phone.authorized = False
    words = "unlock it and accept 'Allow USB debugging'"
    with pytest.raises(DeviceError, match=words), open_device(f"adb://{phone.serial}"):
        pass


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"ro.product.cpu.abilist": "armeabi-v7a,armeabi"}, "64-bit ARM, this device supports armeabi-v7a"),
        ({"ro.build.version.sdk": "23"}, "Android 7 or newer"),
    ],
)
def test_a_phone_that_cannot_run_the_bundle_is_told(
    tmp_path: Path, home: Path, properties: dict[str, str], words: str
) -> None:
    with AdbdDouble(tmp_path / "phone", properties) as double:
        device = open_device(f"adb://{double.serial}")
        with pytest.raises(DeviceError, match=words), device:
            pass


def test_the_adb_server_that_was_not_there_is_gone_afterwards(
    tmp_path: Path, home: Path, phone: AdbdDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", port)
    with open_device(f"adb://{phone.serial}") as device:
        assert device.describe()["battery_percent"] == 73
    assert not processes(f"tcp:localhost:{port}") and not processes(f"tcp:{port}")
