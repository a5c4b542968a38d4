"""Runtimes for a board without internet or pip: wheels fetched here, unpacked, and sent along with the benchmark."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from softedge.bench import pinned
from softedge.bench.base import DeviceError

_OLDEST_GLIBC = 17  # manylinux_2_17 = manylinux2014


def platforms(machine: str, glibc: str) -> list[str]:
    """Wheel platform tags that a Linux board takes, newest first: manylinux_2_36_aarch64 ... for glibc 2.36."""
    minor = int(glibc.split(".")[1]) if glibc.startswith("2.") and glibc.split(".")[1].isdigit() else _OLDEST_GLIBC
    tags = [f"manylinux_2_{n}_{machine}" for n in range(minor, _OLDEST_GLIBC - 1, -1)]
    return [*tags, f"manylinux2014_{machine}"]


def fetch(packages: list[str], python: str, machine: str, glibc: str) -> list[Path]:
    """Wheels of ``packages`` for another machine, through pip, kept in the cache folder.  python: "3.11"."""
    folder = pinned.cache_folder() / "wheels" / f"cp{python.replace('.', '')}-{machine}-glibc{glibc}"
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version", python, "--dest", str(folder)]
    for tag in platforms(machine, glibc):
        command += ["--platform", tag]
    answer = subprocess.run([*command, *packages], capture_output=True, text=True, timeout=900, check=False)
    if answer.returncode != 0:
        words = [line for line in answer.stderr.splitlines() if line.startswith("ERROR")] or [answer.stderr.strip()]
        raise DeviceError(
            f"no wheels of {', '.join(packages)} for Python {python} on {machine} (glibc {glibc}): {words[-1][:200]}; "
            "install them on the board, or give a folder of wheels: ?wheels=DIR"
        )
    return newest(folder, packages)


def newest(folder: Path, packages: list[str]) -> list[Path]:
    """One wheel per package in ``folder``, the last written; DeviceError when one is missing."""
    chosen = []
    for package in packages:
        found = sorted(folder.glob(f"{package.replace('-', '_')}-*.whl"), key=lambda path: path.stat().st_mtime)
        if not found:
            raise DeviceError(f"no wheel of {package} in {folder}; put one for the board there")
        chosen.append(found[-1])
    return chosen


def unpack(wheels: list[Path], into: Path) -> None:
    """Unpack wheels into a folder for PYTHONPATH (a wheel is a zip of what lies in site-packages)."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(into)
