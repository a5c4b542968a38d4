from __future__ import annotations

import contextlib
import dataclasses
import getpass
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from colour_model import colours
from test_local import processes_with, reference, threads_of

from softedge.bench import job
from softedge.bench.base import Device, DeviceError, Plan, open_device
from softedge.bench.ssh import wheels
from softedge.bench.ssh.remote import Connection
from softedge.bench.ssh.wheels import platforms
from softedge.records import Artifact

pytestmark = pytest.mark.hardware

SSHD = shutil.which("sshd") or next(filter(os.path.exists, ["/usr/sbin/sshd"]), None)
# What a careless quoting would run or split.
ODD = 'it\'s $(touch pwned) `touch pwned`; touch pwned #*? \\ "x"'


@dataclasses.dataclass
class Server:
    """A real sshd on a loopback port with throwaway keys; ``config`` is a client configuration that trusts it."""

    port: int
    config: Path
    folder: Path
    process: subprocess.Popen[bytes]

    def address(self, **options: str) -> str:
        options = {"config": str(self.config), "python": sys.executable, "folder": str(self.folder), **options}
        tail = "&".join(f"{key}={value}" for key, value in options.items())
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}?{tail}"

    def sessions(self) -> list[int]:
        """Process numbers that the server started for connections."""
        found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True)
        return [int(word) for word in found.stdout.split()]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if not SSHD or not shutil.which("ssh"):
        pytest.skip("needs sshd and ssh: apt-get install openssh-server openssh-client")
    root = tmp_path_factory.mktemp("sshd")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", root / name], check=True)
    shutil.copy(root / "user.pub", root / "authorized")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (root / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {root}/host\nAuthorizedKeysFile {root}/authorized\nStrictModes no\n"
        f"UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nPidFile none\n"
    )
    key = (root / "host.pub").read_text().split()[:2]
    (root / "known").write_text(f"[127.0.0.1]:{port} {' '.join(key)}\n")
    config = root / "client_config"
    config.write_text(
        f"Host *\n  IdentityFile {root}/user\n  IdentitiesOnly yes\n  UserKnownHostsFile {root}/known\n"
        "  GlobalKnownHostsFile none\n  StrictHostKeyChecking yes\n"
    )
    if os.getuid() == 0:
        os.makedirs("/run/sshd", exist_ok=True)
    with open(root / "log", "wb") as log:
        process = subprocess.Popen([str(SSHD), "-D", "-e", "-f", str(root / "sshd_config")], stderr=log)
    folder = root / "board"
    folder.mkdir()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            break
        time.sleep(0.05)
    probe = ["ssh", "-F", str(config), "-p", str(port), "-o", "BatchMode=yes", f"{getpass.getuser()}@127.0.0.1", "true"]
    if subprocess.run(probe, capture_output=True).returncode != 0:
        process.kill()
        pytest.skip(f"sshd does not let us in: {(root / 'log').read_text()[-300:]}")
    yield Server(port, config, folder, process)
    process.terminate()
    process.wait()


@pytest.fixture
def tidy(server: Server) -> Iterator[None]:
    """Whatever happens, nothing stays behind: no file on the board, no process there, no connection here."""
    yield
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and (any(server.folder.iterdir()) or processes_with(str(server.folder))):
        time.sleep(0.05)
    assert not any(server.folder.iterdir())
    assert not processes_with(str(server.folder))
    assert not processes_with(f"127.0.0.1:{server.port}")


def test_a_board_gives_the_same_outputs_as_numpy(
    server: Server, artifacts: list[Artifact], plan: Plan, tidy: None
) -> None:
    with open_device(server.address(threads="2")) as device:
        told = device.describe()
        onnx, openvino, coreml = device.run(artifacts, plan)
    assert told["cores"] == os.cpu_count() and told["runtimes"]["numpy"] == np.__version__
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
    server: Server, artifacts: list[Artifact], plan: Plan, tidy: None
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


def test_a_runtime_that_is_absent_is_the_reason_of_its_rows_alone(
    server: Server, artifacts: list[Artifact], plan: Plan, tmp_path: Path, tidy: None
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
    server: Server, artifacts: list[Artifact], plan: Plan, tmp_path: Path, tidy: None
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


def endless(plan: Plan, **changes: float) -> Plan:
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
    server: Server, artifacts: list[Artifact], plan: Plan, tidy: None
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
    server: Server, artifacts: list[Artifact], plan: Plan, tidy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "_GRACE_S", 0.0)
    with pytest.raises(DeviceError, match="hung, no result within 3 s"), open_device(server.address()) as device:
        device.run(artifacts[:1], endless(plan, time_limit_s=3.0))


def test_ctrl_c_leaves_nothing_behind(server: Server, artifacts: list[Artifact], plan: Plan, tidy: None) -> None:
    main = threading.main_thread().ident
    assert main is not None
    with pytest.raises(KeyboardInterrupt), open_device(server.address()) as device:
        thread = during_the_run(device, lambda: signal.pthread_kill(main, signal.SIGINT))
        try:
            device.run(artifacts[:1], endless(plan))
        finally:
            thread.join()


def test_a_full_disk_is_said_before_anything_is_copied(
    server: Server, artifacts: list[Artifact], plan: Plan, tidy: None
) -> None:
    with open_device(server.address()) as device:
        device.about["free_bytes"] = 10_000  # type: ignore[attr-defined]
        with pytest.raises(DeviceError, match="0 MB are free in .*free some space"):
            device.run(artifacts[:1], plan)


def test_a_disk_that_fills_up_while_copying_is_one_clear_line(
    server: Server, artifacts: list[Artifact], plan: Plan, tmp_path: Path
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


def test_a_runtime_of_which_no_wheel_can_be_had_is_the_reason_of_its_rows_alone(
    server: Server,
    artifacts: list[Artifact],
    ready_files: list[Artifact],
    plan: Plan,
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
    server: Server, artifacts: list[Artifact], plan: Plan, tidy: None
) -> None:
    with open_device(server.address()) as device:
        device.about["board"] = "linux,dummy-virt"  # type: ignore[attr-defined]  (what its device tree says)
        told, (onnx,) = device.describe(), device.run(artifacts[:1], plan)
    assert told["emulated"] and "qemu" in onnx.not_timed and onnx.outputs is not None
    assert not onnx.samples_ms and onnx.load_ms is None and onnx.first_ms is None
