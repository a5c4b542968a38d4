"""Runtimes for a board without internet or pip: wheels fetched here, unpacked, and sent along with the benchmark.

Their versions and hashes are in ``wheels.lock``, by the board's Python; ``make lock`` renews it.
"""

from __future__ import annotations

import functools
import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from softedge import registry
from softedge.bench import pinned
from softedge.bench.base import DeviceError
from softedge.files import temporary_folder
from softedge.run import sha256

_OLDEST_GLIBC = 17  # manylinux_2_17 = manylinux2014


def platforms(machine: str, glibc: str) -> list[str]:
    """Wheel platform tags that a Linux board takes, newest first: manylinux_2_36_aarch64 ... for glibc 2.36."""
    minor = int(glibc.split(".")[1]) if glibc.startswith("2.") and glibc.split(".")[1].isdigit() else _OLDEST_GLIBC
    tags = [f"manylinux_2_{n}_{machine}" for n in range(minor, _OLDEST_GLIBC - 1, -1)]
    return [*tags, f"manylinux2014_{machine}"]


@functools.cache
def _pins() -> list[tuple[Requirement, tuple[str, ...]]]:
    """Every entry of ``wheels.lock``: a package at one version, for which Pythons, and the sha256 of its files."""
    parts: list[list[str]] = []
    for line in Path(__file__).with_name("wheels.lock").read_text().splitlines():
        if line[:1].isalnum():
            parts.append([line.rstrip(" \\")])
        elif line.strip().startswith("--hash=sha256:"):
            parts[-1].append(line.strip().removeprefix("--hash=sha256:").rstrip(" \\"))
    return [(Requirement(first), tuple(hashes)) for first, *hashes in parts]


def carried() -> Iterator[Any]:
    """The formats whose runtimes can travel: ``wheels.lock`` holds all that they need on a board."""
    known = {entry.name for entry, _ in _pins()}
    for kind in registry.formats():
        if kind.board_packages and known.issuperset(kind.board_packages.values()):
            yield kind


def pinned_for(packages: Sequence[str], python: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Package -> (version, sha256 of its wheels) for a board's Python ("3.11"); DeviceError where none is known."""
    there = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    chosen = {}
    for package in packages:
        for entry, hashes in _pins():
            if entry.name == package and (entry.marker is None or entry.marker.evaluate(dict(there))):
                chosen[package] = (next(iter(entry.specifier)).version, frozenset(hashes))
        if package not in chosen:
            raise DeviceError(
                f"no wheel of {package} for Python {python} is known; give a folder of wheels: ?wheels=DIR"
            )
    return chosen


def version_of(packages: Sequence[str]) -> str:
    """Eight letters that change with the pinned versions of ``packages``."""
    pins = sorted(f"{entry} {hashes}" for entry, hashes in _pins() if entry.name in packages)
    return hashlib.sha256("\n".join(pins).encode()).hexdigest()[:8]


def fetch(packages: list[str], python: str, machine: str, glibc: str) -> list[Path]:
    """Wheels of ``packages`` for another machine, through pip, kept in the cache folder.  python: "3.11".

    Only files whose sha256 is in ``wheels.lock`` are taken, from the index and from the cache.
    """
    folder = pinned.cache_folder() / "wheels" / f"cp{python.replace('.', '')}-{machine}-glibc{glibc}"
    folder.mkdir(parents=True, exist_ok=True)
    pins = pinned_for(packages, python)
    lines = [
        f"{name}=={version} {' '.join(f'--hash=sha256:{value}' for value in sorted(hashes))}\n"
        for name, (version, hashes) in pins.items()
    ]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version", python, "--dest", str(folder), "--require-hashes"]
    for tag in platforms(machine, glibc):
        command += ["--platform", tag]
    with temporary_folder("pins") as temporary:
        asked = temporary / "wheels.txt"
        asked.write_text("".join(lines))
        command += ["--requirement", str(asked)]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if answer.returncode != 0:
        words = [line for line in answer.stderr.splitlines() if line.startswith("ERROR")] or [answer.stderr.strip()]
        raise DeviceError(
            f"no wheels of {', '.join(packages)} for Python {python} on {machine} (glibc {glibc}): {words[-1][:200]}; "
            "install them on the board, or give a folder of wheels: ?wheels=DIR"
        )
    return [_with_hash(folder, name, hashes) for name, (_, hashes) in pins.items()]


def _with_hash(folder: Path, package: str, hashes: frozenset[str]) -> Path:
    """The wheel of ``package`` in ``folder`` that has one of ``hashes``; older ones may lie beside it."""
    for path in sorted(folder.glob(f"{package.replace('-', '_')}-*.whl")):
        if sha256(path) in hashes:
            return path
    raise DeviceError(f"no wheel of {package} in {folder} has its known sha256; remove the folder and try again")


def newest(folder: Path, packages: list[str]) -> list[Path]:
    """One wheel per package in ``folder``, the last written; DeviceError when one is missing."""
    chosen = []
    for package in packages:
        matching = sorted(folder.glob(f"{package.replace('-', '_')}-*.whl"), key=lambda path: path.stat().st_mtime)
        if not matching:
            raise DeviceError(f"no wheel of {package} in {folder}; put one for the board there")
        chosen.append(matching[-1])
    return chosen


def unpack(wheels: Sequence[Path], into: Path, parts: Sequence[str] = ()) -> None:
    """Unpack wheels into a folder for PYTHONPATH (a wheel is a zip of what lies in site-packages).

    Of a runtime only what its format says suffices: on a board with a small disk the rest would be in the way.
    parts: patterns of the files to unpack instead.
    """
    enough = _parts()
    for wheel in wheels:
        patterns = parts or enough.get(_package(wheel), ("*",))
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if any(fnmatch(name, one) for one in patterns)]
            archive.extractall(into, names)


def _parts() -> Mapping[str, tuple[str, ...]]:
    """Package -> patterns of the files that suffice, its version among them."""
    kinds = [kind for kind in registry.formats() if kind.board_parts]
    return {
        name: (*kind.board_parts, "*.dist-info/METADATA") for kind in kinds for name in kind.board_packages.values()
    }


def _package(wheel: Path) -> str:
    return wheel.name.partition("-")[0].replace("_", "-").lower()
