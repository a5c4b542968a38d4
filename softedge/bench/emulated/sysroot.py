"""An arm64 Debian Python with the runtimes in a folder, for qemu's user emulation.

Made on first use, or by ``python -m softedge.bench.emulated.sysroot``.

Packages come from this machine's Debian archive through a private apt state (nothing is installed, the system's dpkg
knows nothing of it), runtimes from PyPI's aarch64 wheels.  About 20 s and 450 MB, once, in the user's cache.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from softedge.bench import native, pinned
from softedge.bench.base import DeviceError
from softedge.bench.ssh import wheels
from softedge.errors import UserError
from softedge.export.base import open_format

QEMU = "qemu-aarch64-static"
# onnxruntime and OpenVINO read these to pick their kernels: a Cortex-A76 (Raspberry Pi 5, phones of 2019 and later).
CORE = "Cortex-A76"
_CPUINFO = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1
"""
_MIDR = "0x00000000414fd0b1\n"


@dataclass(frozen=True)
class Sysroot:
    """root: the tree for qemu's -L.  python: its interpreter.  site: for PYTHONPATH."""

    root: Path
    python: Path
    site: Path

    def command(self) -> list[str]:
        """The words that start its Python on this machine.

        A processor is named: qemu 7.2's own choice is richer than any board's, and XNNPACK's int8 is wrong on it.
        """
        return [QEMU, "-cpu", CORE.lower(), "-L", str(self.root), str(self.python)]

    def about(self) -> tuple[str, str, str]:
        """Version of its Python, machine, glibc: as for a board's wheels."""
        return self.python.name.removeprefix("python"), "aarch64", (self.root / "glibc").read_text()

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.site), "PYTHONDONTWRITEBYTECODE": "1"}


def existing() -> Sysroot | None:
    """The tree if it was made before."""
    folder = _folder()
    pythons = sorted((folder / "root" / "usr" / "bin").glob("python3.[0-9]*"))
    return Sysroot(folder / "root", pythons[0], folder / "site") if pythons else None


def arm64() -> Sysroot:
    """The tree, made now if need be; DeviceError says what is missing here."""
    missing = [tool for tool in (QEMU, "apt-get", "apt-cache", "dpkg-deb") if shutil.which(tool) is None]
    if missing:
        raise DeviceError(
            f"emulated:arm64 needs {', '.join(missing)}; on Debian or Ubuntu: sudo apt-get install qemu-user-static"
        )
    made = existing()
    if made is not None:
        return made
    folder = _folder()
    partial = folder.with_name(f"{folder.name}-{os.getpid()}")
    try:
        with tempfile.TemporaryDirectory(prefix="softedge-apt-") as state:
            _build(partial, Path(state))
        os.rename(partial, folder)  # whole or not at all
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    made = existing()
    if made is None:
        raise DeviceError(f"emulated:arm64: {folder} holds no Python; remove it and try again")
    return made


def _folder() -> Path:
    """Another one for other versions of the runtimes."""
    return pinned.cache_folder() / f"sysroot-arm64-{wheels.version_of(_packages())}"


def _packages() -> list[str]:
    """What is installed beside Python: the runtimes of all formats that have one for boards."""
    return ["numpy", *(package for kind in wheels.carried() for package in kind.board_packages.values())]


def _build(folder: Path, state: Path) -> None:
    """Fill ``folder``; ``state`` is where apt works, apart from the system's own."""
    archive = Archive(state)
    listed = archive.search(r"^python3\.[0-9]+$")
    versions = sorted(re.findall(r"^python(3\.\d+) ", listed, re.MULTILINE), key=lambda v: int(v.split(".")[1]))
    if not versions:
        raise DeviceError("emulated:arm64: this system's package archive has no arm64 Python")
    python = versions[-1]
    root = folder / "root"
    archive.unpack([f"python{python}", "libstdc++6"], root)
    midr = root / "sys/devices/system/cpu/cpu0/regs/identification"
    midr.mkdir(parents=True)
    (midr / "midr_el1").write_text(_MIDR)
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc" / "cpuinfo").write_text(_CPUINFO)
    glibc = archive.version("libc6").split("-")[0]
    (root / "glibc").write_text(glibc)
    wheels.unpack(wheels.fetch(_packages(), python, "aarch64", glibc), folder / "site")


class Archive:
    """Debian's arm64 packages, fetched and unpacked without being installed.

    state: an empty folder where apt works, apart from the system's own.
    """

    def __init__(self, state: Path):
        self.archives = state / "cache" / "archives"
        for folder in (state / "lists" / "partial", self.archives / "partial"):
            folder.mkdir(parents=True)
        (state / "status").touch()
        options = {
            "Dir::State": state,
            "Dir::State::lists": state / "lists",
            "Dir::State::status": state / "status",
            "Dir::Cache": state / "cache",
            "APT::Architecture": "arm64",
            "APT::Architectures": "arm64",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
        }
        self.settings = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        _run(["apt-get", *self.settings, "update", "-q"], "read the arm64 package lists")

    def search(self, pattern: str) -> str:
        """apt-cache's lines for the packages whose names match."""
        return _run(["apt-cache", *self.settings, "search", "--names-only", pattern], "search the arm64 packages")

    def unpack(self, packages: Sequence[str], root: Path) -> None:
        """The files of some packages, and of all that they need, into ``root``."""
        words = ["apt-get", *self.settings, "install", "-y", "--download-only", *packages]
        _run(words, "fetch arm64 packages")
        root.mkdir(parents=True)
        for package in sorted(self.archives.glob("*.deb")):
            _run(["dpkg-deb", "-x", str(package), str(root)], f"unpack {package.name}")

    def version(self, package: str) -> str:
        """Of a package that was fetched."""
        return _run(
            ["dpkg-deb", "-f", str(next(self.archives.glob(f"{package}_*"))), "Version"], "read a version"
        ).strip()


def _run(command: list[str], doing: str) -> str:
    answer = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if answer.returncode != 0:
        lines = [line for line in answer.stderr.splitlines() if line.strip()] or ["no message"]
        raise DeviceError(f"emulated:arm64: could not {doing}: {lines[-1][:300]}")
    return answer.stdout


def main() -> None:
    """Make everything that ``emulated:arm64`` needs, and say where it is."""
    tree = arm64()
    print(tree.root)
    for kind in wheels.carried():
        try:
            native.library(open_format(kind.name), *tree.about())
        except UserError as error:
            print(f"without {kind.title}: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
