"""What a format's runtime needs compiled on a board: made here, for the board's processor, once for each version.

The headers and libraries are those in the wheel that is sent to the board, checked by its hash.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from softedge.bench import pinned
from softedge.bench.ssh import wheels
from softedge.errors import UserError
from softedge.files import temporary_folder
from softedge.progress import say
from softedge.run import sha256

_GLIBC = "2.28"  # the oldest that the result runs on; wheels that hold C++ libraries ask for no older one


def _needed(format_: Any, phone: bool) -> tuple[Path, tuple[str, ...]] | None:
    source: tuple[Path, tuple[str, ...]] | None = format_.phone_source() if phone else format_.board_source()
    return source


def place(format_: Any, machine: str, phone: bool = False) -> Path | None:
    """Where the library of a format for a processor is kept, made or not; None when its runtime needs none.

    phone: for a device without Python.
    """
    needed = _needed(format_, phone)
    if needed is None:
        return None
    source, flags = needed
    parts = [sha256(source), wheels.version_of([*format_.board_packages.values()]), machine, _GLIBC, *flags]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
    return pinned.cache_folder() / f"{format_.name}-{machine}-{key}.so"


def library(format_: Any, python: str, machine: str, glibc: str, phone: bool = False) -> Path | None:
    """The compiled library of a format for a board; None when its runtime needs none.

    python ("3.11"), machine ("aarch64"), glibc ("2.36"): the board's.  UserError when it cannot be made here.
    """
    path, needed = place(format_, machine, phone), _needed(format_, phone)
    if path is None or needed is None or path.exists():
        return path
    source, flags = needed
    compiler = _compiler(format_.title, machine)
    (wheel,) = wheels.fetch([*format_.board_packages.values()], python, machine, glibc)
    say(f"compiling what {format_.title} files need on the device (once, about a minute)")
    with temporary_folder("native") as folder:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / "wheel")
        _compile(compiler, flags, source, folder)
        partial = path.with_name(f"{path.name}-{os.getpid()}")
        shutil.copyfile(folder / "library.so", partial)
        os.replace(partial, path)  # whole or not at all
    return path


def why_not(natives: dict[str, Path], format_: Any, python: str, machine: str, glibc: str, phone: bool = False) -> str:
    """Put the library of a format into ``natives``, where its runtime needs one; why it cannot be made, else empty."""
    try:
        made = library(format_, python, machine, glibc, phone)
    except UserError as error:
        return f"not run: {error}"
    if made is not None:
        natives[format_.name] = made
    return ""


def _compiler(title: str, machine: str) -> list[str]:
    """The words that start a C++ compiler for Linux on ``machine``; UserError when there is none."""
    target = ["c++", "-target", f"{machine}-linux-gnu.{_GLIBC}"]
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", *target]
    if shutil.which("zig"):
        return ["zig", *target]
    raise UserError(
        f"{title} files need a small C++ library compiled for {machine} to run on the device, and there "
        "is no zig here; install it: pip install ziglang"
    )


def _compile(compiler: list[str], flags: Sequence[str], source: Path, folder: Path) -> None:
    """Make library.so in ``folder``, where the wheel is unpacked."""
    words = [*compiler, "-O2", "-s", "-fPIC", "-shared", "-fvisibility=hidden", "-o", str(folder / "library.so")]
    words += [str(source), *(flag.replace("{wheel}", str(folder / "wheel")) for flag in flags)]
    zig = str(folder / "zig")  # where that compiler may keep its own files meanwhile
    environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": zig, "ZIG_LOCAL_CACHE_DIR": zig}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=600, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or ["it said nothing"]
        raise UserError(f"{source.name} could not be compiled for a board: {lines[0][:300]}")
