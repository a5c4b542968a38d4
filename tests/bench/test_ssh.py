from __future__ import annotations

import dataclasses
import getpass
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from colour_model import colours
from sshd import Server
from test_local import processes_with, reference, threads_of

from softedge.bench import job
from softedge.bench.base import Device, DeviceError, TimingPlan, open_device
from softedge.bench.ssh.remote import Connection
from softedge.bench.ssh.wheels import platforms
from softedge.records import Artifact

pytestmark = pytest.mark.hardware

# What a careless quoting would run or split.
ODD = 'it\'s $(touch pwned) `touch pwned`; touch pwned #*? \\ "x"'


def test_a_board_gives_the_same_outputs_as_numpy(
    server: Server, artifacts: list[Artifact], plan: TimingPlan, tidy: None
) -> None:
    with open_device(server.address(threads="2")) as device:
        facts = device.describe()
        onnx, openvino, coreml = device.run(artifacts, plan)
    assert facts["cores"] == os.cpu_count() and facts["runtimes"]["numpy"] == np.__version__
    for measurement in (onnx, openvino):
        assert measurement.outputs is not None
        np.testing.assert_allclose(measurement.outputs, reference(colours()[0]), atol=1e-5)
        assert len(measurement.samples_ms) >= plan.min_count
        assert measurement.threads == threads_of(measurement, 2) and measurement.end_to_end_ms["total"]
    assert "Apple" in coreml.skipped


def test_remote_words_survive_spaces_and_shell_characters(server: Server, tmp_path: Path, tidy: None) -> None:
    login = f"{getpass.getuser()}@127.0.0.1"
    with Connection("board", login, server.port, str(server.config)) as connection:
        assert connection.run(["printf", "%s", ODD], "echo") == ODD
        remote = server.folder / ODD
        connection.run(["mkdir", str(remote)], "make a folder")
        (tmp_path / "out").mkdir()
        (tmp_path / "in").mkdir()
        (tmp_path / "out" / ODD).write_bytes(bytes(range(256)))
        connection.upload(tmp_path / "out", str(remote))
        assert (remote / ODD).read_bytes() == bytes(range(256))
        connection.download([ODD], str(remote), tmp_path / "in")
        assert (tmp_path / "in" / ODD).read_bytes() == bytes(range(256))
        connection.run(["rm", "-rf", str(remote)], "clean up")
    assert not Path("pwned").exists() and not (Path.home() / "pwned").exists()


def test_a_benchmark_runs_in_a_folder_of_an_odd_name(
    server: Server, artifacts: list[Artifact], plan: TimingPlan, tidy: None
) -> None:
    odd = server.folder / "it's $(touch pwned); odd"
    odd.mkdir()
    with open_device(server.address(folder=str(odd))) as device:
        (measurement,) = device.run(artifacts[:1], plan)
    assert len(measurement.samples_ms) >= plan.min_count
    assert not any(odd.iterdir())
    odd.rmdir()
    assert not (Path.home() / "pwned").exists()


def broken_address(server: Server, fault: str, tmp_path: Path) -> str:
    if fault == "wrong host key":
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
        other = " ".join((tmp_path / "other.pub").read_text().split()[:2])
        (tmp_path / "known").write_text(f"[127.0.0.1]:{server.port} {other}\n")
        text = server.config.read_text().replace(str(server.config.parent / "known"), str(tmp_path / "known"))
        (tmp_path / "config").write_text(text)
        return server.address(config=str(tmp_path / "config"))
    if fault == "no key":
        (tmp_path / "config").write_text(server.config.read_text().replace("/user\n", "/nobody\n"))
        return server.address(config=str(tmp_path / "config"))
    if fault == "nothing listens":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        return server.address().replace(f":{server.port}?", f":{port}?")
    if fault == "no such host":
        return f"ssh://board.invalid?config={server.config}"
    if fault == "no python":
        return server.address(python="python9")
    if fault == "not a python":
        return server.address(python="/bin/true")
    if fault == "no such folder":
        return server.address(folder="/no/such/folder")
    assert fault == "no numpy"
    bare = tmp_path / "bare python"
    bare.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S -E "$@"\n')  # without site-packages
    bare.chmod(0o755)
    return server.address(python=str(bare))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("wrong host key", "host key is unknown or has changed.*ssh-keygen -R"),
        ("no key", "refuses the login.*ssh-copy-id"),
        ("nothing listens", "cannot be reached"),
        ("no such host", "no such host"),
        ("no python", "no python9 there; install it"),
        ("not a python", "did not answer as Python 3"),
        ("no such folder", "could not make a folder in /no/such/folder"),
        ("no numpy", "numpy is missing for .*pip install numpy onnxruntime.*wheels=send"),
    ],
)
def test_a_board_that_cannot_be_used_is_one_clear_line(
    server: Server, tmp_path: Path, fault: str, said: str, tidy: None
) -> None:
    device = open_device(broken_address(server, fault, tmp_path))
    with pytest.raises(DeviceError, match=said) as caught, device:
        pass
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


def endless(plan: TimingPlan, **changes: float) -> TimingPlan:
    return dataclasses.replace(plan, min_seconds=1e9, **changes)


def during_the_run(device: Device, act: object) -> threading.Thread:
    """Call ``act`` as soon as the worker runs on the board."""

    def wait() -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not processes_with("worker.py serve"):
            time.sleep(0.05)
        time.sleep(0.3)
        act()  # type: ignore[operator]

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_connection_lost_half_way_cleans_up_on_the_board(
    server: Server, artifacts: list[Artifact], plan: TimingPlan, tidy: None
) -> None:
    def pull_the_cable() -> None:
        for number in server.sessions():
            os.kill(number, signal.SIGKILL)

    with pytest.raises(DeviceError, match="cannot be reached|connection was lost"), open_device(server.address()) as d:
        thread = during_the_run(d, pull_the_cable)
        try:
            d.run(artifacts[:1], endless(plan))
        finally:
            thread.join()


def test_a_hung_worker_is_given_up_and_leaves_nothing(
    server: Server, artifacts: list[Artifact], plan: TimingPlan, tidy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "_GRACE_S", 0.0)
    with pytest.raises(DeviceError, match="hung, no result within 3 s"), open_device(server.address()) as device:
        device.run(artifacts[:1], endless(plan, time_limit_s=3.0))


def test_ctrl_c_leaves_nothing_behind(server: Server, artifacts: list[Artifact], plan: TimingPlan, tidy: None) -> None:
    main = threading.main_thread().ident
    assert main is not None
    with pytest.raises(KeyboardInterrupt), open_device(server.address()) as device:
        thread = during_the_run(device, lambda: signal.pthread_kill(main, signal.SIGINT))
        try:
            device.run(artifacts[:1], endless(plan))
        finally:
            thread.join()


def test_a_full_disk_is_said_before_anything_is_copied(
    server: Server, artifacts: list[Artifact], plan: TimingPlan, tidy: None
) -> None:
    with open_device(server.address()) as device:
        device.about["free_bytes"] = 10_000  # type: ignore[attr-defined]
        with pytest.raises(DeviceError, match="0 MB are free in .*free some space"):
            device.run(artifacts[:1], plan)


def test_a_disk_that_fills_up_while_copying_is_one_clear_line(
    server: Server, artifacts: list[Artifact], plan: TimingPlan, tmp_path: Path
) -> None:
    small = tmp_path / "small disk"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", small], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        with open_device(server.address(folder=str(small))) as device:
            device.about["free_bytes"] = 10**9  # type: ignore[attr-defined]
            with pytest.raises(DeviceError, match="its disk is full"):
                device.run(artifacts[:1], plan)
        assert not any(small.iterdir())
    finally:
        subprocess.run(["umount", small], check=True)


def test_platform_tags_start_with_the_newest_the_board_takes() -> None:
    assert platforms("aarch64", "2.19") == [
        "manylinux_2_19_aarch64",
        "manylinux_2_18_aarch64",
        "manylinux_2_17_aarch64",
        "manylinux2014_aarch64",
    ]
