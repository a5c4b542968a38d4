"""No package that softedge uses calls home."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from colour_model import colour_model

from softedge.bench.base import TimingPlan, open_device
from softedge.files import compiler_caches
from softedge.records import Artifact

CONVERT = """
import socket, sys
called = []
for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, lambda self, *address, **_: called.append(address))
socket.getaddrinfo = lambda *address, **_: called.append(address) or []
import softedge
import nncf, numpy as np, openvino as ov, torch
network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()).eval()
model = ov.convert_model(network, example_input=torch.zeros(1, 3, 8, 8), input=[(1, 3, 8, 8)])
nncf.quantize(model, nncf.Dataset([np.zeros((1, 3, 8, 8), np.float32)]), subset_size=1)
import onnxruntime
with open(sys.argv[1], "rb") as file:
    onnxruntime.InferenceSession(file.read(), providers=["CPUExecutionProvider"])
import time; time.sleep(1)  # what is sent is sent by a thread
assert not called, called
assert sys.modules["openvino_telemetry"] is None
"""


ROOT = Path(__file__).resolve().parents[1]
_THEIRS = ("CI", "NNCF", "ORT_", "TORCHINDUCTOR", "TRITON", "XDG_", "SOFTEDGE_CACHE")


def fresh(folder: Path) -> dict[str, str]:
    """An environment whose home, cache and temporary folders are new and empty."""
    places = {"HOME": "home", "XDG_CACHE_HOME": "cache", "TMPDIR": "tmp"}
    for name in places.values():
        (folder / name).mkdir()
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_THEIRS)}
    return {**kept, **{key: str(folder / name) for key, name in places.items()}, "TORCH_HOME": str(folder / "torch")}


def left(folder: Path) -> list[str]:
    """What lies in those folders, without the cache of softedge."""
    found = [path.relative_to(folder) for name in ("home", "cache", "tmp") for path in (folder / name).rglob("*")]
    return sorted(str(path) for path in found if path.parts[:2] != ("cache", "softedge"))


def test_converting_quantizing_and_running_opens_no_connection_and_leaves_nothing_behind(tmp_path: Path) -> None:
    colour_model(tmp_path / "model.onnx")
    done = subprocess.run(
        [sys.executable, "-c", CONVERT, str(tmp_path / "model.onnx")],
        env=fresh(tmp_path),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert left(tmp_path) == []


def test_measuring_on_this_machine_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, artifacts: list[Artifact], plan: TimingPlan
) -> None:
    """The processes that measure import nothing of softedge, on a board as here."""
    environment = fresh(tmp_path)
    for key in os.environ.keys() - environment.keys():
        monkeypatch.delenv(key)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(tempfile, "tempdir", None)
    with open_device("local") as device:
        device.describe()
        measured = device.run(artifacts, plan)
    assert [bool(measurement.samples_ms) for measurement in measured] == [True, True, False]  # Core ML runs on a Mac
    assert left(tmp_path) == []


@pytest.mark.slow
def test_deploying_opens_no_connection_and_writes_into_its_run_and_the_cache_alone(tmp_path: Path) -> None:
    """The demo's command with all its processes, watched by the kernel; fewer epochs and formats, no search."""
    strace = shutil.which("strace")
    if strace is None or subprocess.run([strace, "-f", "true"], capture_output=True).returncode:
        pytest.skip("strace is not installed, or may not trace here")
    environment, log = fresh(tmp_path) | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT)}, tmp_path / "log"
    (tmp_path / "work").mkdir()
    calls = "trace=connect,sendto,sendmsg,open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2"
    watched = [strace, "-f", "--seccomp-bpf", "-e", calls, "-o", str(log)]
    fast = ("ssl.epochs=1", "probe.few_labels=3", "quantize.search=false", "check.min_agreement=0", "check.max_drop=1")
    fast += ('export.targets=["onnx", "openvino"]', 'export.precisions=["int8"]')
    short = [word for setting in fast for word in ("--set", setting)]
    done = subprocess.run(
        [*watched, sys.executable, "-m", "softedge", "deploy", "--out", "runs/demo", *short],
        env=environment,
        cwd=tmp_path / "work",
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = log.read_text(errors="replace").splitlines()
    assert [line for line in lines if "AF_INET" in line] == []
    assert left(tmp_path) == [] and [path.name for path in (tmp_path / "work").iterdir()] == ["runs"]
    written = [line for line in lines if re.search(r"O_WRONLY|O_RDWR|O_CREAT|mkdir|rename|creat\(", line)]
    ours = re.compile(rf'"(?:/dev/|/proc/|{re.escape(str(tmp_path))})')
    elsewhere = [line for line in written if '"/' in line and not ours.search(line) and " = -1 " not in line]
    assert len(written) > 100 and elsewhere == []


def test_importing_torchs_compiler_through_softedge_leaves_tmpdir_empty(tmp_path: Path) -> None:
    temporary, cache = tmp_path / "tmp", tmp_path / "cache"
    temporary.mkdir()
    unset = {key: value for key, value in os.environ.items() if not key.startswith(("TORCHINDUCTOR", "TRITON"))}
    environment = {**unset, "TMPDIR": str(temporary), "SOFTEDGE_CACHE": str(cache), "HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", "import softedge.ssl.train, torch._dynamo"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert list(temporary.iterdir()) == [] and (cache / "compiled" / "torchinductor").is_dir()
    assert not (tmp_path / "home").exists()


def test_a_cache_that_cannot_be_written_is_not_given_to_the_compiler(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SOFTEDGE_CACHE", str(tmp_path / "file" / "cache"))
    assert compiler_caches() == {}
