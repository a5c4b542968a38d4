"""Android's adb program, with one clear line for everything that can go wrong between a computer and a phone."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from softedge.bench.base import DeviceError

_QUICK_S = 30.0
_PUSH_S = 600.0
_SERVER_PORT = 5037
_STATES = {
    "unauthorized": "the phone has not allowed this computer yet: unlock it and accept 'Allow USB debugging'",
    "authorizing": "the phone has not allowed this computer yet: unlock it and accept 'Allow USB debugging'",
    "offline": "the phone is offline: unplug and plug the cable, or switch USB debugging off and on",
    "no permissions": "this user may not use the USB device: install Android's udev rules (apt install "
    "android-sdk-platform-tools-common) and plug the phone again",
    "recovery": "the phone is in recovery mode: start Android",
    "sideload": "the phone is in sideload mode: start Android",
    "bootloader": "the phone is in its bootloader: start Android",
}
LOST = "the phone was disconnected half way; plug it in and run this again (what was sent removes itself)"
# What adb says when the connection broke: the words differ between versions and moments.
_BROKEN = re.compile(
    r"device '.*' not found|no devices|device offline|error: closed|connection reset|protocol fault|"
    r"failed to read (command|copy response|response)|couldn't read from device|EOF|device still connecting|"
    r"transport|broken pipe|connect failed",
    re.IGNORECASE,
)


class Adb:
    """Commands for one phone.  serial "": the only one that is attached."""

    def __init__(self, spec: str, serial: str):
        self.spec, self.serial = spec, serial
        self.program = _program(spec)
        self._connected = self._started = False

    def connect(self) -> None:
        """Find the phone and check that it is ready; DeviceError says what is not."""
        try:
            self._find()
        except BaseException:
            self.close()
            raise

    def _find(self) -> None:
        self._started = not _server_runs()
        attached = self._attached()
        if ":" in self.serial and self.serial not in attached:  # a phone in the network
            self._run("connect", self.serial, limit_s=_QUICK_S, check=False)
            self._connected = True
            attached = self._attached()
        if not self.serial:
            if len(attached) != 1:
                which = f"these: {', '.join(attached)}; name one: adb://SERIAL" if attached else "none"
                problem = (
                    f"adb sees {which}"
                    if attached
                    else ("adb sees no phone; plug one in, switch on Settings > Developer options > USB debugging")
                )
                raise DeviceError(f"{self.spec}: {problem}")
            self.serial = next(iter(attached))
        if self.serial not in attached:
            known = f"it sees: {', '.join(attached)}" if attached else "it sees none"
            raise DeviceError(f"{self.spec}: adb sees no device {self.serial}; {known}")
        state = attached[self.serial]
        if state != "device":
            why = next((text for key, text in _STATES.items() if state.startswith(key)), f"its state is '{state}'")
            raise DeviceError(f"{self.spec}: {why}")

    def close(self) -> None:
        """Undo what ``connect`` did to the user's adb: the network connection, the background server."""
        with contextlib.suppress(DeviceError):
            if self._connected:
                self._run("disconnect", self.serial, limit_s=_QUICK_S, check=False)
            if self._started:
                self._run("kill-server", limit_s=_QUICK_S, check=False)

    def shell(self, script: str, limit_s: float = _QUICK_S) -> str:
        """What a shell script on the phone prints; DeviceError when it fails."""
        return self._run(*self._to_phone("shell", script), limit_s=limit_s)

    def shell_command(self, script: str) -> list[str]:
        """The words, on this machine, that run a script on the phone."""
        return [self.program, *self._to_phone("shell", script)]

    def push(self, files: Sequence[Path], folder: str) -> None:
        """Copy files into a folder of the phone."""
        self._run(*self._to_phone("push", *map(str, files), f"{folder}/"), limit_s=_PUSH_S)

    def pull(self, names: Sequence[str], folder: str, into: Path) -> None:
        """Copy files out of a folder of the phone."""
        self._run(*self._to_phone("pull", *(f"{folder}/{name}" for name in names), str(into)), limit_s=_PUSH_S)

    def run(self, *words: str) -> str:
        """Any other adb command for this phone."""
        return self._run(*self._to_phone(*words), limit_s=_QUICK_S)

    def alive(self) -> bool:
        """Whether the phone still answers."""
        try:
            return self._run(*self._to_phone("get-state"), limit_s=10.0, check=False).strip() == "device"
        except DeviceError:
            return False

    def _to_phone(self, *words: str) -> list[str]:
        return ["-s", self.serial, *words]

    def _attached(self) -> dict[str, str]:
        """serial -> state of every device that adb sees."""
        lines = self._run("devices", limit_s=_QUICK_S).splitlines()
        rows = (line.split(None, 1) for line in lines if line.strip() and not line.startswith(("List of", "*")))
        return {row[0]: row[1].strip() for row in rows if len(row) == 2}

    def _run(self, *words: str, limit_s: float, check: bool = True) -> str:
        # A session of its own: Ctrl-C is ours to handle, and the server that adb may start must outlive it.
        try:
            done = subprocess.run(
                [self.program, *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=limit_s,
                check=False,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            doing = next((word for word in words if word in ("push", "pull", "shell", "devices")), words[0])
            raise DeviceError(
                f"{self.spec}: adb {doing} did not end within {limit_s:.0f} s; is the phone asleep?"
            ) from None
        output = done.stdout.decode(errors="replace")
        if done.returncode != 0 and check:
            raise DeviceError(f"{self.spec}: {explain(done.stderr.decode(errors='replace') + output)}")
        return output


def explain(output: str, who: str = "adb") -> str:
    """One line for what adb, or a program on a phone that is still there (another ``who``), printed when it failed."""
    lines = [line.strip() for line in output.splitlines() if line.strip() and not line.startswith("*")]
    if re.search("no space left", output, re.IGNORECASE):
        return "the phone's storage is full; free some space (about 40 MB and the models are needed) and run this again"
    if re.search("unauthorized", output):
        return _STATES["unauthorized"]
    if who == "adb" and _BROKEN.search(output):
        return LOST
    return f"{who} says: {lines[-1][:300]}" if lines else f"{who} failed without a word"


def quoted(*words: str) -> str:
    """Words for the phone's shell, safe against spaces and shell characters."""
    return shlex.join(words)


def _program(spec: str) -> str:
    """adb from PATH, or from where Android Studio puts it."""
    program = shutil.which("adb")
    homes = [os.environ.get(key, "") for key in ("ANDROID_HOME", "ANDROID_SDK_ROOT")]
    places = [Path(home) / "platform-tools" / "adb" for home in homes if home]
    program = program or next((str(path) for path in places if path.is_file()), None)
    if program is None:
        raise DeviceError(
            f"{spec}: the adb program is not installed; install it (sudo apt-get install adb, or Android's "
            "platform-tools) or use the phone's browser: browser:"
        )
    return program


def _server_runs() -> bool:
    port = os.environ.get("ANDROID_ADB_SERVER_PORT", "")
    with contextlib.suppress(OSError), socket.socket() as probe:
        probe.settimeout(2.0)
        return probe.connect_ex(("127.0.0.1", int(port) if port.isdigit() else _SERVER_PORT)) == 0
    return False
