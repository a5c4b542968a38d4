"""A real headless Chromium opens the page and runs the models; without one these tests are skipped."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adbd_double import AdbdDouble
from colour_model import LABELS, SPEC, colours

from softedge.bench import pinned
from softedge.bench.base import DeviceError, Measurement, TimingPlan, open_device
from softedge.bench.browser import device as browser
from softedge.bench.browser import ort_web
from softedge.bench.browser import visit as browser_visit
from softedge.bench.browser.device import Browser
from softedge.errors import UserError
from softedge.export import contract
from softedge.records import Artifact

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]
LOCAL = "browser:host=127.0.0.1"
pytestmark = [
    pytest.mark.hardware,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]
Browse = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture(scope="module", autouse=True)
def runtime() -> None:
    """onnxruntime-web from the cache, or fetched now."""
    try:
        ort_web.files("wasm")
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture
def browse(tmp_path: Path) -> Iterator[Browse]:
    """Open an address in a Chromium of its own, with a fresh profile."""
    opened: list[subprocess.Popen[bytes]] = []

    def start(url: str, *more: str) -> subprocess.Popen[bytes]:
        assert CHROMIUM
        profile = f"--user-data-dir={tmp_path / f'profile-{len(opened)}'}"
        command = [CHROMIUM, *FLAGS, profile, *more, url]
        opened.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return opened[-1]

    yield start
    for process in opened:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5)
    process.kill()
    process.wait()


def quantized(artifact: Artifact, folder: Path) -> Artifact:
    """The colour model in int8: u8 activations, s8 weights, as softedge exports it."""
    from onnxruntime import quantization

    class Calibration(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(colours()[0])

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.left, None)
            return None if image is None else {"image": image[None]}

    folder.mkdir()
    path = folder / "model.onnx"
    quantization.quantize_static(artifact.path, path, Calibration(), per_channel=True)
    return contract.artifact_of(path, "onnx", "int8", SPEC, LABELS)


def native(artifact: Artifact) -> np.ndarray:
    """What onnxruntime answers on this machine."""
    import onnxruntime

    session = onnxruntime.InferenceSession(artifact.path, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"image": image[None]})[0] for image in colours()[0]])


def measure(
    spec: str, browse: Browse, artifacts: list[Artifact], plan: TimingPlan, *flags: str
) -> tuple[dict, list[Measurement]]:
    with open_device(spec) as device:
        assert isinstance(device, Browser)
        browse(device.url, *flags)
        return device.describe(), device.run(artifacts, plan)


def test_a_browser_answers_as_native_onnxruntime_does(
    tmp_path: Path, browse: Browse, artifacts: list[Artifact], plan: TimingPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browser, "_PIECE_BYTES", 1000)  # five images a piece: they arrive in three
    int8 = quantized(artifacts[0], tmp_path / "int8")
    about, measured = measure(LOCAL, browse, [artifacts[0], int8, *artifacts[1:]], plan)
    fp32, integer, openvino, coreml = measured
    for measurement, artifact, tolerance in ((fp32, artifacts[0], 2e-5), (integer, int8, 1e-6)):
        assert not measurement.skipped and not measurement.not_timed
        assert measurement.outputs is not None and measurement.outputs.dtype == np.float32
        np.testing.assert_allclose(measurement.outputs, native(artifact), atol=tolerance)
        assert measurement.sha256 == artifact.sha256
        assert measurement.runtime == f"onnxruntime-web {ort_web.VERSION}" and measurement.accelerator == "wasm"
        assert len(measurement.samples_ms) == len(measurement.rounds) >= plan.min_count
        # Where a run is short against the steps of the clock, a sample is the mean of several.
        assert measurement.runs_per_sample * sum(measurement.samples_ms) / 1000 >= plan.min_seconds
        assert measurement.load_ms and measurement.first_ms and measurement.threads == 1
        assert {key: len(values) for key, values in measurement.end_to_end_ms.items()} == dict.fromkeys(
            ("decode", "resize", "model", "total"), plan.end_to_end_count
        )
    assert set(fp32.rounds) & set(integer.rounds)
    assert "ONNX files" in openvino.skipped and "ONNX files" in coreml.skipped
    assert about["name"].startswith("a browser on ") and "cpu" not in about  # it has no public name for either
    assert "Chrome" in about["user_agent"] and about["cross_origin_isolated"]  # 127.0.0.1 is a secure place


def test_threads_are_read_back_and_a_broken_model_does_not_stop_the_others(
    tmp_path: Path, browse: Browse, artifacts: list[Artifact], plan: TimingPlan
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"this is no model")
    broken = contract.artifact_of(tmp_path / "model.onnx", "onnx", "fp16", SPEC, LABELS)
    _, (failed, worked) = measure(f"{LOCAL},threads=2", browse, [broken, artifacts[0]], plan)
    assert failed.skipped.startswith("failed: ") and failed.outputs is None and not failed.samples_ms
    assert worked.threads == 2 and worked.samples_ms


def test_https_makes_a_page_of_the_network_isolated(
    browse: Browse, artifacts: list[Artifact], plan: TimingPlan
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: apt-get install openssl")
    name = socket.gethostname()
    flags = ["--ignore-certificate-errors", f"--host-resolver-rules=MAP {name} 127.0.0.1"]
    with open_device(f"{LOCAL},https=1,threads=2") as device:
        assert isinstance(device, Browser) and device.url.startswith("https://")
        browse(device.url.replace("127.0.0.1", name), *flags)
        about, measured = device.describe(), device.run(artifacts[:1], plan)
    assert about["secure_context"] and about["cross_origin_isolated"] and measured[0].threads == 2


def test_webgpu_is_its_own_accelerator_and_answers_as_native_onnxruntime_does(
    browse: Browse, artifacts: list[Artifact], plan: TimingPlan
) -> None:
    """On SwiftShader, a graphics processor in software: answers, not speed."""
    try:
        ort_web.files("webgpu")
    except UserError as error:
        pytest.skip(str(error))
    flags = ["--use-webgpu-adapter=swiftshader", "--enable-unsafe-webgpu", "--enable-features=Vulkan"]
    about, (measurement, *_) = measure(f"{LOCAL},backend=webgpu", browse, artifacts[:1], plan, *flags)
    if not about.get("webgpu"):
        pytest.skip("this Chromium has no WebGPU adapter, not even SwiftShader")
    assert measurement.accelerator.startswith("webgpu (") and not measurement.skipped
    assert measurement.outputs is not None and len(measurement.samples_ms) >= plan.min_count
    np.testing.assert_allclose(measurement.outputs, native(artifacts[0]), atol=1e-3)


def test_plain_http_in_the_network_falls_back_to_one_thread_and_says_so(
    browse: Browse, artifacts: list[Artifact], plan: TimingPlan
) -> None:
    with open_device(f"{LOCAL},threads=2") as device:
        assert isinstance(device, Browser)
        browse(device.url.replace("127.0.0.1", "phone.test"), "--host-resolver-rules=MAP phone.test 127.0.0.1")
        about, (measurement, *_) = device.describe(), device.run(artifacts[:1], plan)
    assert not about["secure_context"] and not about["cross_origin_isolated"]
    assert measurement.threads == 1 and measurement.details["threads_asked"] == 2
    assert measurement.outputs is not None and not measurement.not_timed


def test_a_closed_browser_gives_one_line(
    browse: Browse, artifacts: list[Artifact], plan: TimingPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browser_visit, "SILENT_S", 4.0)
    monkeypatch.setattr(browser_visit, "RETURN_S", 1.0)
    endless = dataclasses.replace(plan, min_seconds=1e9)
    words = "the page (was closed|stopped answering) at .*; keep it in front"
    with open_device(LOCAL) as device, pytest.raises(DeviceError, match=words) as caught:
        assert isinstance(device, Browser)
        process = browse(device.url)
        device.describe()
        signal_later(process, 2.0, signal.SIGTERM)
        device.run(artifacts[:1], endless)
    assert "\n" not in str(caught.value)


def renderers(process: subprocess.Popen[bytes]) -> list[int]:
    """Process numbers of the page's own processes below a Chromium."""
    found = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    split = (line.split(None, 2) for line in found.splitlines())
    rows = [(int(pid), int(parent), words) for pid, parent, words in split]
    family = {process.pid}
    for _ in range(4):
        family |= {pid for pid, parent, _ in rows if parent in family}
    return [pid for pid, _, words in rows if pid in family and "--type=renderer" in words]


def test_a_page_that_runs_out_of_memory_gives_one_line(
    browse: Browse, artifacts: list[Artifact], plan: TimingPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system kills the page's process: no farewell, only silence."""
    monkeypatch.setattr(browser_visit, "SILENT_S", 6.0)
    endless = dataclasses.replace(plan, min_seconds=1e9)

    def kill() -> None:
        for pid in renderers(process):
            os.kill(pid, signal.SIGKILL)

    words = "stopped answering at .*out of memory"
    with open_device(LOCAL) as device, pytest.raises(DeviceError, match=words) as caught:
        assert isinstance(device, Browser)
        process = browse(device.url)
        device.describe()
        threading.Timer(2.0, kill).start()
        device.run(artifacts[:1], endless)
    assert "\n" not in str(caught.value)


def test_a_second_phone_that_opens_the_page_is_turned_away_and_the_first_goes_on(
    tmp_path: Path, browse: Browse, artifacts: list[Artifact], plan: TimingPlan
) -> None:
    longer = dataclasses.replace(plan, min_seconds=4.0)
    with open_device(LOCAL) as device:
        assert isinstance(device, Browser)
        browse(device.url)
        device.describe()
        browse(device.url, "--remote-debugging-port=0")  # a profile of its own: another browser
        measurement = device.run(artifacts[:1], longer)[0]
        status = shown_by_the_second(tmp_path)
    assert measurement.outputs is not None
    assert sum(measurement.samples_ms) * measurement.runs_per_sample >= 4000
    assert "already used by another browser" in status


def shown_by_the_second(folder: Path) -> str:
    """The title of the page in the second browser."""
    port = int((folder / "profile-1" / "DevToolsActivePort").read_text().split()[0])
    return next(tab["title"] for tab in json.loads(devtools(port, "GET", "/json/list")) if tab["type"] == "page")


def signal_later(process: subprocess.Popen[bytes], seconds: float, number: int) -> None:
    threading.Timer(seconds, process.send_signal, [number]).start()


def test_a_page_that_takes_too_long_is_given_up(browse: Browse, artifacts: list[Artifact], plan: TimingPlan) -> None:
    endless = dataclasses.replace(plan, min_seconds=1e9, time_limit_s=4.0)
    begun = time.monotonic()
    with open_device(LOCAL) as device, pytest.raises(DeviceError, match="no result within 4 s"):
        assert isinstance(device, Browser)
        browse(device.url)
        device.run(artifacts[:1], endless)
    assert time.monotonic() - begun < 25


def devtools(port: int, method: str, path: str) -> Any:
    """Chromium's own control port."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read()


def test_a_page_in_the_background_keeps_its_answers_and_loses_its_times(
    tmp_path: Path, browse: Browse, artifacts: list[Artifact], plan: TimingPlan, capsys: pytest.CaptureFixture[str]
) -> None:
    longer = dataclasses.replace(plan, min_seconds=3.0)

    def look_elsewhere() -> None:
        port = int((tmp_path / "profile-0" / "DevToolsActivePort").read_text().split()[0])
        page = next(tab for tab in json.loads(devtools(port, "GET", "/json/list")) if tab["type"] == "page")
        devtools(port, "PUT", "/json/new?about:blank")  # another tab comes to the front
        time.sleep(3.0)
        devtools(port, "GET", f"/json/activate/{page['id']}")

    with open_device(LOCAL) as device:
        assert isinstance(device, Browser)
        browse(device.url, "--remote-debugging-port=0")
        device.describe()
        threading.Timer(1.5, look_elsewhere).start()
        measurement = device.run(artifacts[:1], longer)[0]
    assert measurement.not_timed.startswith("not valid: the page was in the background for ")
    assert measurement.details["hidden_ms"] > 1000
    assert measurement.outputs is not None
    np.testing.assert_allclose(measurement.outputs, native(artifacts[0]), atol=2e-5)
    assert "bring it back to the front" in capsys.readouterr().err


def test_a_model_of_microseconds_stops_at_the_most_samples_that_are_accepted(
    browse: Browse, artifacts: list[Artifact], plan: TimingPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("softedge.bench.browser.device.MOST_SAMPLES", 600)
    with open_device(LOCAL) as device:
        assert isinstance(device, Browser)
        browse(device.url)
        device.describe()
        measurement = device.run(artifacts[:1], dataclasses.replace(plan, min_seconds=60.0))[0]
    assert 300 <= len(measurement.samples_ms) <= 300 + 1000  # one slice more at most
    assert sum(measurement.samples_ms) < 60_000


def test_a_detectors_boxes_come_back_as_rows(tmp_path: Path, browse: Browse, plan: TimingPlan) -> None:
    """A model with two constant boxes, of which labels have 64 bits as torchvision's detectors give them."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    values = {
        "boxes": np.array([[1, 2, 3, 4], [5, 6, 7, 8.5]], np.float32),
        "scores": np.array([0.75, 0.5], np.float32),
        "labels": np.array([2, 0], np.int64),
    }
    kinds = {"boxes": (1, [2, 4]), "scores": (1, [2]), "labels": (7, [2])}
    outputs = [helper.make_tensor_value_info(name, *kind) for name, kind in kinds.items()]
    nodes = [helper.make_node("Constant", [], [n], value=numpy_helper.from_array(v)) for n, v in values.items()]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "H", "W", 3])
    graph = helper.make_graph(nodes, "detector", [image], outputs)
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    artifact = contract.artifact_of(path, "onnx", "fp32", SPEC, ("a", "b", "c"), "detections")
    _, (measured,) = measure(LOCAL, browse, [artifact], plan)
    assert not measured.skipped and measured.outputs is not None
    rows = measured.outputs.reshape(len(measured.outputs), 100, 6)
    assert rows[0, :2].tolist() == [[1, 2, 3, 4, 0.75, 2], [5, 6, 7, 8.5, 0.5, 0]]
    assert (rows[:, 2:, 5] == -1).all() and (rows == rows[0]).all()
    assert measured.samples_ms and min(measured.samples_ms) > 0


def test_a_clock_of_whole_milliseconds_times_many_runs_as_one_sample(
    browse: Browse, artifacts: list[Artifact], plan: TimingPlan
) -> None:
    """Over http some browsers round the time to 1 ms; a run of this model takes less than a tenth of that."""
    with open_device(LOCAL) as device:
        assert isinstance(device, Browser)
        page = (Path(browser.__file__).parent / "worker.js").read_bytes()
        coarse = page.replace(
            b"const now = () => performance.now();", b"const now = () => Math.floor(performance.now());"
        )
        assert coarse != page
        device.server.pages["worker.js"] = dataclasses.replace(device.server.pages["worker.js"], body=coarse)
        browse(device.url)
        device.describe()
        measurement = device.run(artifacts[:1], dataclasses.replace(plan, min_count=8))[0]
    assert measurement.details["timer_resolution_ms"] == 1.0
    assert measurement.runs_per_sample >= 5 and min(measurement.samples_ms) > 0
    assert len(set(measurement.samples_ms)) > 1
    assert f"each sample is the mean of {measurement.runs_per_sample} runs" in measurement.details["caveat"]
    np.testing.assert_allclose(measurement.outputs, native(artifacts[0]), atol=2e-5)


@pytest.mark.skipif(shutil.which("adb") is None, reason="adb is not installed: apt-get install adb")
def test_over_a_cable_the_port_is_forwarded_and_the_page_opened(
    tmp_path: Path, browse: Browse, artifacts: list[Artifact], plan: TimingPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    monkeypatch.setenv("SOFTEDGE_CACHE", str(pinned.cache_folder()))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
    with AdbdDouble(tmp_path / "phone") as phone, open_device(f"browser:adb={phone.serial},threads=2") as device:
        assert isinstance(device, Browser) and device.url.startswith("http://localhost:")
        browse(device.url)
        about, measured = device.describe(), device.run(artifacts[:1], plan)
    server = urllib.parse.urlsplit(device.url).port
    assert phone.forwards == [f"forward:tcp:{server};tcp:{server}", f"killforward:tcp:{server}"]
    assert f"am start -a android.intent.action.VIEW -d {device.url}" in phone.commands
    assert about["secure_context"] and measured[0].threads == 2
