"""The library that a runtime needs compiled for a board: made once, or one line that says why not."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

from softedge.bench import native
from softedge.errors import UserError
from softedge.export.base import open_format


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A wheel that is there, a compiler that writes ``content`` or fails with ``said``, and a cache of this test's."""
    recorded: dict[str, Any] = {"content": "library", "said": "", "runs": 0}
    wheel = tmp_path / "executorch-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("executorch/include/header.h", "")

    def run(words: list[str], **more: Any) -> native.subprocess.CompletedProcess[str]:
        recorded["runs"] += 1
        recorded["words"] = words
        recorded["header"] = any(Path(word[2:], "header.h").exists() for word in words if word.startswith("-I"))
        Path(words[words.index("-o") + 1]).write_text(recorded["content"])
        return native.subprocess.CompletedProcess(words, 1 if recorded["said"] else 0, "", recorded["said"])

    monkeypatch.setenv("SOFTEDGE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    monkeypatch.setattr(native.wheels, "fetch", lambda packages, *there: [wheel])
    monkeypatch.setattr(native.subprocess, "run", run)
    monkeypatch.setattr(native.importlib.util, "find_spec", lambda name: object())
    return recorded


BOARD = ("3.11", "aarch64", "2.36")


def test_it_is_compiled_once_against_the_wheel_that_is_sent_and_then_kept(compiler: dict[str, Any]) -> None:
    first, again = (native.library(open_format("executorch"), *BOARD) for _ in range(2))
    assert first is not None and first == again and first.read_text() == "library" and compiler["runs"] == 1
    assert compiler["header"] and "aarch64-linux-gnu.2.28" in compiler["words"]
    assert native.library(open_format("executorch"), "3.11", "x86_64", "2.36") != first


def test_a_failed_compilation_is_one_line_and_leaves_nothing(compiler: dict[str, Any], tmp_path: Path) -> None:
    compiler["said"] = "native.cpp:1: error: no\nmore"
    with pytest.raises(UserError, match=r"^native.cpp could not be compiled for a board: native.cpp:1: error: no$"):
        native.library(open_format("executorch"), *BOARD)
    assert not list((tmp_path / "cache").iterdir())


def test_without_a_compiler_it_says_what_to_install(compiler: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="there is no zig here; install it: pip install ziglang"):
        native.library(open_format("executorch"), *BOARD)


def test_a_runtime_that_is_python_alone_needs_none() -> None:
    assert native.library(open_format("onnx"), *BOARD) is None


def test_a_runtime_that_is_python_on_boards_may_be_a_library_on_phones(compiler: dict[str, Any]) -> None:
    litert = open_format("litert")
    assert native.library(litert, *BOARD) is None
    path = native.library(litert, *BOARD, phone=True)
    assert path is not None and path.name.startswith("litert-aarch64-") and "-lLiteRt" in compiler["words"]
    assert native.place(open_format("executorch"), "aarch64", phone=True) == native.place(
        open_format("executorch"), "aarch64"
    )
