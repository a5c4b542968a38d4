"""No package that softedge uses calls home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from softedge.files import compiler_caches

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
import time; time.sleep(1)  # what is sent is sent by a thread
assert not called, called
assert sys.modules["openvino_telemetry"] is None
"""


def test_converting_and_quantizing_opens_no_connection_and_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    kept = {key: value for key, value in os.environ.items() if key != "CI" and not key.startswith("NNCF")}
    environment = {**kept, "HOME": str(home), "XDG_CACHE_HOME": str(tmp_path / "cache"), "TORCH_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", CONVERT], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert [str(p) for p in home.rglob("*") if p.is_file()] == []


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
