"""What an Android phone needs to run models without an app: one folder of files, made here once, then cached.

Android is Linux with another C library (bionic), so the bundle brings its own: glibc's loader starts the runner with
the glibc beside it, as ``./ld-linux-aarch64.so.1 --library-path . ./runner``.  Three sources, pinned by hash:

- libonnxruntime.so from onnxruntime's aarch64 wheel on PyPI (MIT);
- glibc (LGPL 2.1 or later), libstdc++ and libgcc (GPL 3 with the runtime library exception) from Debian's cross
  packages, 1.5 MB: they hold arm64 libraries and nothing else, and are unpacked here without dpkg;
- the runner, compiled from ``android_*.c`` beside this file.

The bundle is not part of softedge: it is put together on the user's machine, sent to the user's phone, removed there.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from softedge.bench import native, pinned
from softedge.bench.ssh import wheels
from softedge.errors import UserError
from softedge.export.base import open_format
from softedge.progress import say
from softedge.run import write_json

ONNXRUNTIME = "1.31.1"
_WHEEL = f"onnxruntime-{ONNXRUNTIME}-cp311-cp311-manylinux_2_28_aarch64.whl"
_WHEEL_PIN = "sha256:da05378364c44d4407e463982d2bf8d5e4cfea873283757e48beeb41df97b7f3"
_WHEEL_AT = "https://files.pythonhosted.org/packages/02/ee/b173a49293b146b54bd057bf8681a015aef764d8f56d999ad8c6e53ab18d"
_MIRRORS = ("http://deb.debian.org/debian/pool/main/", "http://archive.debian.org/debian/pool/main/")
_GLIBC = (2, 36)  # the glibc of the packages below: a runner that needs a newer one would not start
_PACKAGES = {
    "c/cross-toolchain-base/libc6-arm64-cross_2.36-8cross1_all.deb": (
        "sha256:91936cbbee75771c360ed16513f6e734a25ca5517fe7c3e13dfd7835d7553186"
    ),
    "g/gcc-12-cross/libstdc++6-arm64-cross_12.2.0-14cross1_all.deb": (
        "sha256:9cba984b64d0cf11698978fc5e0fe93c7441d29b9f42f70f1c6c734cc9e2ea41"
    ),
    "g/gcc-12-cross/libgcc-s1-arm64-cross_12.2.0-14cross1_all.deb": (
        "sha256:af1e686fc6a416228222e7bfb68317dd2fa2685236301ae29141fc6108a66cac"
    ),
}
THERE = ("3.11", "aarch64", f"{_GLIBC[0]}.{_GLIBC[1]}")  # as for a board's wheels; no Python is needed
LOADER = "ld-linux-aarch64.so.1"
_LIBRARIES = {LOADER, "libc.so.6", "libm.so.6", "libdl.so.2", "librt.so.1", "libpthread.so.0"}
_LIBRARIES |= {"libstdc++.so.6", "libgcc_s.so.1"}
_SOURCES = ("runner.c", "model.c", "sha256.c")
_HERE = Path(__file__).parent


def bundle() -> Path:
    """The folder of the bundle, made now if need be: loader, libraries, libonnxruntime.so, runner, sources.json."""
    sources = [(_HERE / name).read_bytes() for name in (*_SOURCES, "runner.h")]
    pins = "".join([_WHEEL_PIN, *_PACKAGES.values()]).encode()
    key = hashlib.sha256(b"\0".join([pins, *sources])).hexdigest()[:12]
    folder = pinned.cache_folder() / f"android-arm64-{key}"
    if folder.is_dir():
        return folder
    compiler = _compiler()
    say(f"making the runner for Android phones (once, 23 MB to fetch) in {folder}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="android-", dir=folder.parent) as partial:
        unfinished = Path(partial) / "bundle"
        unfinished.mkdir()
        _compile(compiler, unfinished / "runner", Path(partial) / "zig")
        _onnxruntime(unfinished / "libonnxruntime.so")
        for package, pin in _PACKAGES.items():
            urls = [mirror + package for mirror in _MIRRORS]
            _unpack(pinned.download(urls, pin, f"Debian's {package.rsplit('/', 1)[1]}"), unfinished)
        missing = _LIBRARIES - {path.name for path in unfinished.iterdir()}
        if missing:
            raise UserError(f"Debian's cross packages do not hold {', '.join(sorted(missing))}")
        for name in (LOADER, "runner"):
            (unfinished / name).chmod(0o755)
        write_json(unfinished / "sources.json", {"onnxruntime": _WHEEL_PIN, **_PACKAGES, "compiler": compiler})
        try:
            os.rename(unfinished, folder)
        except OSError:  # another process was quicker
            if not folder.is_dir():
                raise
    return folder


def _compiler() -> list[str]:
    """The words that start a C compiler for arm64 Linux; UserError when there is none."""
    target = ["cc", "-target", "aarch64-linux-gnu.2.28"]
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", *target]
    if shutil.which("zig"):
        return ["zig", *target]
    names = ["aarch64-linux-gnu-gcc"]
    if platform.system() == "Linux" and platform.machine() == "aarch64":
        names.append("cc")
    for name in filter(shutil.which, names):
        return [name, "-std=gnu11"]
    raise UserError(
        "an Android phone needs a small C program compiled for arm64, and no compiler for it is installed; install "
        "one: pip install 'softedge[android]' (zig, on any system), or: sudo apt-get install gcc-aarch64-linux-gnu"
    )


def _compile(compiler: list[str], path: Path, zig: Path) -> None:
    """Compile the runner; ``zig`` is where that compiler may keep its own files meanwhile."""
    command = [*compiler, "-O2", "-fPIE", "-pie", "-o", str(path), *(str(_HERE / name) for name in _SOURCES)]
    command += ["-lm", "-ldl"]
    environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(zig), "ZIG_LOCAL_CACHE_DIR": str(zig)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)
    if done.returncode != 0:
        words = [line for line in done.stderr.splitlines() if "error" in line] or ["it said nothing"]
        raise UserError(f"the runner for Android could not be compiled with {compiler[0]}: {words[0][:300]}")
    wanted = newest_glibc(path.read_bytes())
    if wanted > _GLIBC:
        raise UserError(
            f"{compiler[0]} makes programs for glibc {wanted[0]}.{wanted[1]}, the bundle has {_GLIBC[0]}.{_GLIBC[1]}; "
            "use zig instead: pip install 'softedge[android]'"
        )


def newest_glibc(program: bytes) -> tuple[int, int]:
    """The newest version of glibc that a program asks for."""
    versions = [(int(a), int(b)) for a, b in re.findall(rb"GLIBC_(\d+)\.(\d+)", program)]
    return max(versions, default=(0, 0))


def _onnxruntime(path: Path) -> None:
    """libonnxruntime.so out of the aarch64 wheel: through pip (which knows the user's index), else by its address."""
    data = _wheel_by_pip()
    if data is None:
        data = pinned.download([f"{_WHEEL_AT}/{_WHEEL}"], _WHEEL_PIN, f"onnxruntime {ONNXRUNTIME} for arm64")
    with zipfile.ZipFile(io.BytesIO(data)) as wheel:
        path.write_bytes(wheel.read(f"onnxruntime/capi/libonnxruntime.so.{ONNXRUNTIME}"))


def _wheel_by_pip() -> bytes | None:
    with tempfile.TemporaryDirectory(prefix="softedge-wheel-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--platform", "manylinux_2_28_aarch64", "--python-version", "3.11"]
        command += ["--dest", folder, f"onnxruntime=={ONNXRUNTIME}"]
        try:
            subprocess.run(command, capture_output=True, timeout=600, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        path = Path(folder) / _WHEEL
        return path.read_bytes() if pinned.holds(path, _WHEEL_PIN) else None


def _unpack(package: bytes, folder: Path) -> None:
    """The libraries we need and the licence out of a .deb: an ``ar`` archive that holds data.tar.xz."""
    with tarfile.open(fileobj=io.BytesIO(_member(package, "data.tar.xz"))) as archive:
        for entry in archive.getmembers():
            name = entry.name.rsplit("/", 1)[-1]
            licence = name == "copyright" and entry.isfile()
            if name not in _LIBRARIES and not licence:
                continue
            file = archive.extractfile(entry)  # follows links inside the package
            if file is not None:
                into = f"LICENCE-{entry.name.split('/')[-2]}.txt" if licence else name
                (folder / into).write_bytes(file.read())


def _member(archive: bytes, name: str) -> bytes:
    """A member of an ``ar`` archive: 60-byte headers (name in 16, size in decimal at 48), bodies padded to even."""
    at = len(b"!<arch>\n")
    while at + 60 <= len(archive):
        member, size = archive[at : at + 16].decode().strip().rstrip("/"), int(archive[at + 48 : at + 58])
        if member == name:
            return archive[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    raise UserError(f"a Debian package without {name}")


def files(folder: Path) -> list[Path]:
    """What of the bundle goes to the phone."""
    return [folder / name for name in sorted({*_LIBRARIES, "libonnxruntime.so", "runner"})]


def native_files(natives: Mapping[str, Path]) -> list[Path]:
    """What goes along for formats with a library (format -> it): it, and those of the wheel that it was made for."""
    chosen: dict[str, Path] = {}
    for name, library in natives.items():
        folder = library.with_suffix(".android")
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(prefix="android-", dir=folder.parent) as partial:
                unpacked = Path(partial) / "made"
                format_ = open_format(name)
                fetched = wheels.fetch([*format_.board_packages.values()], *THERE)
                wheels.unpack(fetched, unpacked, format_.phone_parts)
                shutil.copyfile(library, unpacked / f"native-{name}.so")
                os.rename(unpacked, folder)
        chosen |= {path.name: path for path in sorted(folder.rglob("*.so"))}
    return list(chosen.values())


def main() -> None:
    """Make everything that ``adb:`` needs, and say where it is."""
    print(bundle())
    for kind in wheels.carried():
        if library := native.library(open_format(kind.name), *THERE, phone=True):
            native_files({kind.name: library})


if __name__ == "__main__":
    main()
