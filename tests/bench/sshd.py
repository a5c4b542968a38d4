"""A real sshd on loopback, and the claim that it is left as it was found."""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_local import processes_with

SSHD = shutil.which("sshd") or next(filter(os.path.exists, ["/usr/sbin/sshd"]), None)


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
