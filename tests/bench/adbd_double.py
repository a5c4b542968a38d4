"""The phone's side of adb over TCP, for tests: the real adb program talks to it as to a phone.

It speaks CNXN, AUTH, OPEN, OKAY, WRTE and CLSE (protocol.txt of AOSP's adb) and serves ``shell,v2`` and ``sync``.
/data/local/tmp is a temporary folder; arm64 programs run under qemu-aarch64-static; ``getprop`` and ``dumpsys`` are
scripts that tell of an emulator, so that nothing measured here is ever taken for a phone's speed.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import socket
import struct
import subprocess
import threading
from pathlib import Path
from typing import Self

CNXN, AUTH, OPEN, OKAY, CLSE, WRTE = (
    struct.unpack("<I", name)[0] for name in (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"CLSE", b"WRTE")
)
VERSION, MOST = 0x01000001, 256 * 1024
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
REMOTE = "/data/local/tmp"
LOADER = "./ld-linux-aarch64.so.1"
# onnxruntime reads this to choose its kernels, and crashes on an x86 one.
CPUINFO = """processor\t: 0
BogoMIPS\t: 50.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1
"""
PROPERTIES = {
    "ro.product.manufacturer": "softedge",
    "ro.product.model": "Double of a phone",
    "ro.product.cpu.abi": "arm64-v8a",
    "ro.product.cpu.abilist": "arm64-v8a,armeabi-v7a",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
    "ro.soc.manufacturer": "QEMU",
    "ro.soc.model": "user emulation",
    "ro.boot.qemu": "1",
}


class AdbdDouble:
    """Listens on 127.0.0.1; ``serial`` is what adb connects to.

    authorized: False keeps asking for a key, as a phone whose owner has not agreed.  capacity: bytes that fit before
    the storage is full.  replace: (pattern, text) applied to shell commands.  drop_at: pattern; a shell command that
    has it runs for a second, then the cable is pulled.  ``am start`` does nothing; ``commands`` and
    ``forwards`` tell what was asked.
    """

    def __init__(self, folder: Path, properties: dict[str, str] | None = None):
        self.storage, self.programs, self.root = folder / "storage", folder / "programs", folder / "root"
        self.authorized, self.capacity, self.drop_at = True, 1 << 40, ""
        self.replace: list[tuple[str, str]] = []
        self.commands: list[str] = []
        self.forwards: list[str] = []
        for path in (self.storage, self.programs, self.root / "proc"):
            path.mkdir(parents=True)
        (self.root / "proc" / "cpuinfo").write_text(CPUINFO)
        listing = "\n".join(f"[{key}]: [{value}]" for key, value in {**PROPERTIES, **(properties or {})}.items())
        self._program("getprop", f"cat <<'END'\n{listing}\nEND")
        self._program("am", "echo Starting: Intent")
        self._program("dumpsys", "case $1 in battery) echo '  USB powered: true'; echo '  level: 73';; esac")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.serial = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._connections: list[Connection] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _program(self, name: str, script: str) -> None:
        (self.programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.programs / name).chmod(0o755)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = Connection(self, self._listener.accept()[0])
                self._connections.append(connection)
                threading.Thread(target=connection.serve, daemon=True).start()

    def local(self, path: str) -> str:
        """A path or a command of the phone as one of this machine."""
        return path.replace(REMOTE, str(self.storage))

    def command(self, asked: str) -> list[str]:
        self.commands.append(asked)
        for pattern, text in self.replace:
            asked = re.sub(pattern, text, asked)
        return [
            "/bin/sh",
            "-c",
            self.local(asked).replace(LOADER, f"qemu-aarch64-static -cpu cortex-a76 -L {self.root} {LOADER}"),
        ]

    def leftovers(self) -> list[str]:
        return sorted(path.name for path in self.storage.iterdir())

    def pull_the_cable(self) -> None:
        self._listener.close()
        for connection in self._connections:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.pull_the_cable()


class Connection:
    """One adb server's connection: packets in, packets out, a stream per service."""

    def __init__(self, phone: AdbdDouble, channel: socket.socket):
        self.phone, self.channel = phone, channel
        self.sending = threading.Lock()
        self.streams: dict[int, Stream] = {}

    def receive(self, count: int) -> bytes:
        got = b""
        while len(got) < count:
            piece = self.channel.recv(count - len(got))
            if not piece:
                raise EOFError
            got += piece
        return got

    def send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        header = struct.pack("<6I", command, first, second, len(data), sum(data) & 0xFFFFFFFF, command ^ 0xFFFFFFFF)
        with self.sending:
            self.channel.sendall(header + data)

    def serve(self) -> None:
        try:
            while True:
                command, first, second, length, _, _ = struct.unpack("<6I", self.receive(24))
                self._handle(command, first, second, self.receive(length))
        except (EOFError, OSError):
            self.close()

    def _handle(self, command: int, first: int, second: int, data: bytes) -> None:
        # A signature (2) is never one that we know; a public key (3) waits for the owner.
        if (command == CNXN and not self.phone.authorized) or (command == AUTH and first == 2):
            self.send(AUTH, 1, 0, bytes(20))
        elif command == CNXN:
            self.send(CNXN, VERSION, MOST, b"device::ro.product.name=double;features=shell_v2,cmd")
        elif command == OPEN:
            stream = Stream(self, len(self.streams) + 1, first)
            self.streams[stream.ours] = stream
            threading.Thread(target=stream.serve, args=(data.rstrip(b"\0").decode(),), daemon=True).start()
        elif second in self.streams:
            stream = self.streams[second]
            if command == OKAY:
                stream.ready.put(True)
            elif command == WRTE:
                stream.incoming.put(data)
                self.send(OKAY, second, first)
            elif command == CLSE:
                stream.incoming.put(None)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.channel.shutdown(socket.SHUT_RDWR)
        self.channel.close()
        for stream in list(self.streams.values()):
            stream.incoming.put(None)
            stream.ready.put(False)


class Stream:
    """One service: a shell command or a file transfer."""

    def __init__(self, connection: Connection, ours: int, theirs: int):
        self.connection, self.phone, self.ours, self.theirs = connection, connection.phone, ours, theirs
        self.incoming: queue.Queue[bytes | None] = queue.Queue()
        self.ready: queue.Queue[bool] = queue.Queue()
        self.writing = threading.Lock()
        self.buffer = b""

    def write(self, data: bytes) -> None:
        with self.writing:
            for start in range(0, len(data), MOST):
                self.connection.send(WRTE, self.ours, self.theirs, data[start : start + MOST])
                if not self.ready.get(timeout=30):
                    raise EOFError

    def read(self, count: int) -> bytes:
        while len(self.buffer) < count:
            data = self.incoming.get()
            if data is None:
                raise EOFError
            self.buffer += data
        got, self.buffer = self.buffer[:count], self.buffer[count:]
        return got

    def serve(self, service: str) -> None:
        with contextlib.suppress(OSError, EOFError):
            self.connection.send(OKAY, self.ours, self.theirs)
            if service.startswith("sync:"):
                self._sync()
            elif service.startswith("shell,v2"):
                self._shell(service.split(":", 1)[1])
            elif service.startswith("reverse:"):  # noted, not done: localhost is the same machine here
                self.phone.forwards.append(service.removeprefix("reverse:"))
                self.write(b"OKAY")
        with contextlib.suppress(OSError):
            self.connection.send(CLSE, self.ours, self.theirs)

    def _shell(self, asked: str) -> None:
        path = f"{self.phone.programs}:{os.environ['PATH']}"
        process = subprocess.Popen(
            self.phone.command(asked),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": path},
        )
        assert process.stdin and process.stdout and process.stderr
        if self.phone.drop_at and re.search(self.phone.drop_at, asked):
            threading.Timer(1.0, self.phone.pull_the_cable).start()
        outputs = [
            threading.Thread(target=self._forward, args=(kind, stream), daemon=True)
            for kind, stream in ((STDOUT, process.stdout), (STDERR, process.stderr))
        ]
        for thread in (*outputs, threading.Thread(target=self._feed, args=(process,), daemon=True)):
            thread.start()
        for thread in outputs:
            thread.join()
        code = process.wait()
        code = 0x80 | -code if code < 0 else code  # as adbd tells of a signal
        self.write(struct.pack("<BI", EXIT, 1) + bytes([code & 255]))

    def _forward(self, kind: int, stream: object) -> None:
        with contextlib.suppress(OSError, EOFError, ValueError):
            while data := stream.read1(65536):  # type: ignore[attr-defined]
                self.write(struct.pack("<BI", kind, len(data)) + data)

    def _feed(self, process: subprocess.Popen[bytes]) -> None:
        """stdin, which closes when the connection does: adbd behaves so."""
        with contextlib.suppress(OSError, EOFError):
            while True:
                kind, length = struct.unpack("<BI", self.read(5))
                data = self.read(length)
                if kind == CLOSE_STDIN:
                    break
                if kind == STDIN and process.stdin:
                    process.stdin.write(data)
                    process.stdin.flush()
        if process.stdin:
            with contextlib.suppress(OSError):
                process.stdin.close()

    def _sync(self) -> None:
        while True:
            command, length = struct.unpack("<4sI", self.read(8))
            if command == b"QUIT":
                return
            path = self.read(length).decode()
            if command == b"STAT":
                self.write(struct.pack("<4s3I", b"STAT", *self._stat(path)))
            elif command == b"SEND":
                self._take(*path.rsplit(",", 1))
            elif command == b"RECV":
                self._give(path)
            else:
                self._fail(f"unknown {command!r}")

    def _stat(self, path: str) -> tuple[int, int, int]:
        try:
            found = os.stat(self.phone.local(path))
        except OSError:
            return 0, 0, 0
        return found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime)

    def _take(self, path: str, mode: str) -> None:
        full = False
        with open(self.phone.local(path), "wb") as file:
            while True:
                command, length = struct.unpack("<4sI", self.read(8))
                if command == b"DONE":
                    break
                data = self.read(length)
                self.phone.capacity -= len(data)
                full = full or self.phone.capacity < 0
                if not full:
                    file.write(data)
        if full:
            self._fail("couldn't write: No space left on device")
            return
        os.chmod(self.phone.local(path), int(mode) & 0o777)
        self.write(struct.pack("<4sI", b"OKAY", 0))

    def _give(self, path: str) -> None:
        try:
            with open(self.phone.local(path), "rb") as file:
                while data := file.read(65536):
                    self.write(struct.pack("<4sI", b"DATA", len(data)) + data)
        except OSError as error:
            self._fail(str(error))
            return
        self.write(struct.pack("<4sI", b"DONE", 0))

    def _fail(self, reason: str) -> None:
        self.write(struct.pack("<4sI", b"FAIL", len(reason)) + reason.encode())
