"""A connection through the system's own ssh: its configuration, agents and jump hosts apply.

One master connection is shared by all commands and ends itself.  Files travel as tar streams over it, so that no path
is ever parsed by a remote copy program; every word of a remote command is quoted.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from softedge.bench.base import DeviceError
from softedge.errors import UserError

CONNECT_S = 10
_ADDRESS = re.compile(
    r"(?P<login>(?:[A-Za-z0-9_][\w.+-]*@)?(?:[A-Za-z0-9_][\w.-]*|\[[0-9A-Fa-f:.%\w]+\]))(?::(?P<port>[0-9]{1,5}))?"
)
# What ssh says -> what it means and what to do.  {host} and {login} are filled in.
_MEANINGS = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED|Host key verification failed|No .* host key is known",
        "its host key is unknown or has changed; if you trust it: ssh-keygen -R {host}, then once by hand: ssh {login}",
    ),
    ("Permission denied", "it refuses the login; put your key there: ssh-copy-id {login}"),
    ("Could not resolve", "no such host; is the name right?"),
    (
        "Connection refused|timed out|No route to host|Network is unreachable|Connection closed|Connection reset",
        "it cannot be reached; is it on, in this network, and does it run an ssh server on that port?",
    ),
    ("No space left on device|Disk quota exceeded", "its disk is full; free some space, or name another ?folder="),
)


def parse(spec: str, address: str) -> tuple[str, int | None]:
    """``user@host:port`` -> login and port.  Anything that ssh could take for an option is refused."""
    match = _ADDRESS.fullmatch(address)
    if not match:
        raise UserError(f"device {spec}: expected ssh://user@host or ssh://user@host:port")
    port = int(match["port"]) if match["port"] else None
    return match["login"].replace("[", "").replace("]", ""), port


class Connection:
    """Commands and files to and from one host.  A context manager; commands raise DeviceError in one line."""

    def __init__(self, spec: str, login: str, port: int | None = None, config: str = ""):
        self.spec, self.login, self.port, self.config = spec, login, port, config

    def __enter__(self) -> Self:
        if shutil.which("ssh") is None:
            raise DeviceError(f"{self.spec}: no ssh program on this machine; install OpenSSH's client")
        self.sockets = tempfile.mkdtemp(prefix="se-")  # short: a socket's path has at most 104 bytes
        try:
            self.run(["true"], "connect", timeout=CONNECT_S * 3)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the shared connection; safe to call twice."""
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(
                [*self._ssh(), "-O", "exit", self.login], capture_output=True, timeout=CONNECT_S, check=False
            )
        shutil.rmtree(self.sockets, ignore_errors=True)

    def command(self, words: Sequence[str]) -> list[str]:
        """The local command line that runs ``words`` there, each quoted for the remote shell."""
        return [*self._ssh(), self.login, "--", " ".join(shlex.quote(word) for word in words)]

    def _ssh(self) -> list[str]:
        options = {
            "BatchMode": "yes",  # a password prompt would hang a pipeline; keys and agents work
            "ConnectTimeout": CONNECT_S,
            "ServerAliveInterval": 5,  # a board that loses power is noticed within 15 s
            "ServerAliveCountMax": 3,
            "ControlMaster": "auto",
            "ControlPath": os.path.join(self.sockets, "s"),
            "ControlPersist": 15,  # if this process is killed, the shared connection ends itself
            "LogLevel": "ERROR",
        }
        words = ["ssh", *(["-F", self.config] if self.config else []), *(["-p", str(self.port)] if self.port else [])]
        for key, value in options.items():
            words += ["-o", f"{key}={value}"]
        return words

    def run(self, words: Sequence[str], doing: str, timeout: float = 60, stdin: bytes = b"") -> str:
        """Run a command there and return what it printed."""
        return self._execute(words, doing, timeout, stdin).decode()

    def upload(self, folder: Path, to: str, timeout: float = 900) -> None:
        """Copy the content of ``folder`` into the existing remote folder ``to``."""
        with tempfile.TemporaryFile() as packed:
            with tarfile.open(fileobj=packed, mode="w") as archive:
                archive.add(folder, arcname=".", filter=_anonymous)
            packed.seek(0)
            self._execute(["tar", "-xf", "-", "-C", to], "copy files there", timeout, packed)

    def download(self, files: Iterable[str], folder: str, to: Path, timeout: float = 600) -> None:
        """Copy files of the remote ``folder`` into ``to``."""
        stream = self._execute(["tar", "-cf", "-", "-C", folder, *files], "copy results back", timeout)
        try:
            with tarfile.open(fileobj=io.BytesIO(stream)) as archive:
                archive.extractall(to, filter="data")  # a board is not trusted to name files
        except tarfile.TarError as error:
            raise DeviceError(f"{self.spec}: the results came back damaged ({error}); try again") from error

    def _execute(self, words: Sequence[str], doing: str, timeout: float, stdin: bytes | IO[bytes] = b"") -> bytes:
        process = subprocess.Popen(
            self.command(words),
            stdin=subprocess.PIPE if isinstance(stdin, bytes) else stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C must reach this process alone, which ends the remote side in order
        )
        try:
            output, errors = process.communicate(stdin if isinstance(stdin, bytes) else None, timeout)
        except subprocess.TimeoutExpired:
            raise DeviceError(f"{self.spec}: could not {doing} within {timeout:.0f} s; gave up") from None
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
        if process.returncode != 0:
            raise DeviceError(f"{self.spec}: could not {doing}: {self.explain(process.returncode, errors)}")
        return output

    def explain(self, code: int, errors: bytes) -> str:
        """What went wrong, in one line, from what ssh or the remote command printed."""
        text = errors.decode(errors="replace")
        host = self.login.rpartition("@")[2]
        host = f"[{host}]:{self.port}" if self.port else host
        login = f"-p {self.port} {self.login}" if self.port else self.login
        for pattern, meaning in _MEANINGS:
            if re.search(pattern, text, re.IGNORECASE):
                return meaning.format(host=f"'{host}'", login=login)
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if code == 255:
            reason = f" (ssh says: {lines[-1][:200]})" if lines else ""
            return (
                f"the connection was lost{reason}; the program there stops and removes its files on its own; try again"
            )
        return lines[-1][:300] if lines else f"exit code {code}"


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Names and numbers of this machine's users mean nothing there."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry
