from __future__ import annotations

import base64
import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from softedge.bench import pinned
from softedge.bench.browser import ort_web
from softedge.errors import UserError


def package(files: dict[str, bytes]) -> bytes:
    """An npm package: a .tgz with everything below package/."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return data.getvalue()


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry in a folder that has the package; no npm; an empty cache."""
    contents = {"ort.mjs": b"module", "ort.wasm": b"binary"}
    data = package({**contents, "other.js": b"not needed"})
    folder = tmp_path / "registry" / ort_web.PACKAGE / "-"
    folder.mkdir(parents=True)
    (folder / f"{ort_web.PACKAGE}-{ort_web.VERSION}.tgz").write_bytes(data)
    pins = {name: f"sha256:{hashlib.sha256(content).hexdigest()}" for name, content in contents.items()}
    monkeypatch.setattr(ort_web, "BACKENDS", {"wasm": pins})
    integrity = base64.b64encode(hashlib.sha512(data).digest()).decode()
    monkeypatch.setattr(ort_web, "INTEGRITY", f"sha512-{integrity}")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("npm_config_registry", (tmp_path / "registry").as_uri())
    monkeypatch.setenv("SOFTEDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "registry"


def test_files_are_fetched_once_and_then_used_offline(registry: Path, tmp_path: Path) -> None:
    found = ort_web.files("wasm")
    assert {name: path.read_bytes() for name, path in found.items()} == {"ort.mjs": b"module", "ort.wasm": b"binary"}
    registry.rename(tmp_path / "offline")
    assert ort_web.files("wasm") == found


def test_a_damaged_file_is_fetched_again(registry: Path) -> None:
    ort_web.files("wasm")["ort.wasm"].write_bytes(b"damaged")
    assert ort_web.files("wasm")["ort.wasm"].read_bytes() == b"binary"


def test_a_package_with_another_hash_is_not_used(registry: Path, tmp_path: Path) -> None:
    tarball = next(registry.rglob("*.tgz"))
    tarball.write_bytes(tarball.read_bytes() + b"\0")
    with pytest.raises(UserError, match="could not be fetched .*do not have the expected hash"):
        ort_web.files("wasm")
    assert not list((tmp_path / "cache").rglob("ort*.*m*"))


def test_a_missing_network_says_what_to_do(registry: Path, tmp_path: Path) -> None:
    registry.rename(tmp_path / "offline")
    with pytest.raises(UserError, match="connect to the internet once"):
        ort_web.files("wasm")


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.delenv("SOFTEDGE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert pinned.cache_folder() == Path("/home/ada/.cache/softedge")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/ada")
    assert pinned.cache_folder() == Path("/var/cache/ada/softedge")
    monkeypatch.setenv("SOFTEDGE_CACHE", "/data/cache")
    assert pinned.cache_folder() == Path("/data/cache")
