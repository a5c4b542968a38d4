"""onnxruntime-web (MIT licence) for the browser device: from the npm package, hash-checked, cached, then offline.

Nothing of it is part of softedge: the files go from the npm registry to this machine's cache, from there to the phone.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from softedge.bench import pinned
from softedge.errors import UserError
from softedge.progress import say
from softedge.run import write_bytes

PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
_REGISTRY = "https://registry.npmjs.org/"
_NPM_TIMEOUT_S = 300.0

# The files of dist/ that each backend loads: the module that pages import first, then its WebAssembly half.
BACKENDS: dict[str, dict[str, str]] = {
    "wasm": {
        "ort.wasm.min.mjs": "sha256:219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
        "ort-wasm-simd-threaded.mjs": "sha256:e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
        "ort-wasm-simd-threaded.wasm": "sha256:3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    },
    "webgpu": {
        "ort.webgpu.min.mjs": "sha256:3dffff71811bc13a3a3d9591c57ca5ee5735b8f5f3eaf789510b02bb040ae3a0",
        "ort-wasm-simd-threaded.asyncify.mjs": (
            "sha256:3d1c85995364bb643302fc6fd877a0c3ba5ae72401815e0f24828a53d9191e28"
        ),
        "ort-wasm-simd-threaded.asyncify.wasm": (
            "sha256:39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da"
        ),
    },
}


def files(backend: str) -> dict[str, Path]:
    """name -> path of a backend's files; the package is fetched when one is missing from the cache or damaged."""
    folder = pinned.cache_folder() / f"{PACKAGE}-{VERSION}"
    pins = BACKENDS[backend]
    if not all(pinned.holds(folder / name, pin) for name, pin in pins.items()):
        _unpack(_package(), pins, folder)
    return {name: folder / name for name in pins}


def _unpack(package: bytes, pins: dict[str, str], folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        for name, pin in pins.items():
            member = archive.extractfile(f"package/dist/{name}")
            data = b"" if member is None else member.read()
            if not pinned.matches(data, pin):
                raise UserError(f"{PACKAGE} {VERSION} holds another {name} than expected; it is not used")
            write_bytes(folder / name, data)


def _package() -> bytes:
    """The package's tarball with the pinned hash: through npm where it is installed, else from the registry itself."""
    say(f"fetching {PACKAGE} {VERSION} from the npm registry (33 MB, once)")
    data = _npm_pack()
    if data is not None and pinned.matches(data, INTEGRITY):
        return data
    address = f"{registry()}{PACKAGE}/-/{PACKAGE}-{VERSION}.tgz"
    return pinned.download([address], INTEGRITY, f"{PACKAGE} {VERSION}")


def registry() -> str:
    """The address of the npm registry with a slash at its end: npm's environment or settings, else the public one."""
    for key in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):
        if os.environ.get(key):
            return os.environ[key].rstrip("/") + "/"
    address = _npm("config", "get", "registry")
    return address.strip().rstrip("/") + "/" if address.strip().startswith(("http://", "https://")) else _REGISTRY


def _npm_pack() -> bytes | None:
    with tempfile.TemporaryDirectory(prefix="softedge-npm-") as folder:
        _npm("pack", f"{PACKAGE}@{VERSION}", "--pack-destination", folder, "--silent")
        archives = list(Path(folder).glob("*.tgz"))
        return archives[0].read_bytes() if archives else None


def _npm(*arguments: str) -> str:
    """What npm prints; empty when it is not installed or fails."""
    program = shutil.which("npm")
    if program is None:
        return ""
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=_NPM_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


if __name__ == "__main__":
    print(*files("wasm").values(), sep="\n")
