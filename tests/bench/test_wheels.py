"""Wheels that travel to a board are those of the lock file, by the board's Python and checked by their hash."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from softedge.bench.base import DeviceError
from softedge.bench.ssh import wheels


def test_a_board_gets_the_version_for_its_python():
    versions = {python: wheels.pinned_for(["numpy", "onnxruntime"], python) for python in ("3.8", "3.11", "3.13")}
    assert versions["3.8"]["numpy"][0] == "1.24.4"  # the last for Python 3.8
    assert versions["3.11"]["onnxruntime"] == versions["3.13"]["onnxruntime"] != versions["3.8"]["onnxruntime"]
    assert all(len(value) == 64 for _, hashes in versions["3.8"].values() for value in hashes)
    with pytest.raises(DeviceError, match="no wheel of tensorflow for Python 3.11 is known; give a folder of wheels"):
        wheels.pinned_for(["tensorflow"], "3.11")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """pip replaced: it leaves a wheel with the given content, and its words and the requirements are kept."""
    recorded: dict[str, Any] = {"content": b"the wheel"}

    def run(words: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
        recorded["words"], recorded["asked"] = words, Path(words[words.index("--requirement") + 1]).read_text()
        (Path(words[words.index("--dest") + 1]) / "numpy-9-py3-none-any.whl").write_bytes(recorded["content"])
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setenv("SOFTEDGE_CACHE", str(tmp_path))
    monkeypatch.setattr(wheels.subprocess, "run", run)
    known = frozenset({hashlib.sha256(b"the wheel").hexdigest()})
    monkeypatch.setattr(wheels, "pinned_for", lambda packages, python: {"numpy": ("9", known)})
    return recorded


def test_pip_is_asked_for_the_pinned_hashes_and_another_file_is_refused(index: dict[str, Any]) -> None:
    (path,) = wheels.fetch(["numpy"], "3.11", "aarch64", "2.36")
    assert path.read_bytes() == b"the wheel" and "--require-hashes" in index["words"]
    assert index["asked"] == f"numpy==9 --hash=sha256:{hashlib.sha256(b'the wheel').hexdigest()}\n"
    index["content"] = b"another wheel"
    with pytest.raises(DeviceError, match="no wheel of numpy in .* has its known sha256"):
        wheels.fetch(["numpy"], "3.11", "aarch64", "2.36")


def test_the_runtimes_that_travel_are_those_whose_packages_the_lock_file_holds() -> None:
    packages = {kind.name: set(kind.board_packages.values()) for kind in wheels.carried()}
    known = {entry.name for entry, _ in wheels._pins()}
    assert {"onnx", "openvino", "litert", "executorch"} <= packages.keys() and "coreml" not in packages
    assert all(names <= known for names in packages.values())
    for package in {"numpy", "pillow"}.union(*packages.values()):
        assert wheels.pinned_for([package], "3.11")


def test_of_a_runtime_only_the_files_that_suffice_travel(tmp_path: Path) -> None:
    whole = ["ai_edge_litert/interpreter.py", "ai_edge_litert/libLiteRtWebGpuAccelerator.so"]
    whole += ["ai_edge_litert-2.3.0.dist-info/METADATA", "ai_edge_litert-2.3.0.dist-info/RECORD"]
    for name, files in (("ai_edge_litert-2.3.0-cp311-none-any.whl", whole), ("numpy-2.0-py3-none-any.whl", ["a/b.so"])):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for file in files:
                archive.writestr(file, "x")
    wheels.unpack(sorted(tmp_path.glob("*.whl")), tmp_path / "site")
    there = {
        path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*") if path.is_file()
    }
    assert there == {whole[0], whole[2], "a/b.so"}


def test_a_wheel_in_a_folder_is_found_by_the_name_that_pip_gives_it(tmp_path: Path) -> None:
    (tmp_path / "ai_edge_litert-2.3.0-cp311-cp311-linux_aarch64.whl").touch()
    assert [path.name[:14] for path in wheels.newest(tmp_path, ["ai-edge-litert"])] == ["ai_edge_litert"]
