"""Swift programs, compiled against doubles of the modules that they import."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

DOUBLES = Path(__file__).parent / "export" / "doubles"
MODULES = {
    "onnx": ("CoreGraphics", "ImageIO", "OnnxRuntimeBindings"),
    "coreml": ("CoreGraphics", "ImageIO", "CoreVideo", "CoreML"),
}


@pytest.fixture(scope="session")
def swift_doubles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the doubles of Apple's modules and of onnxruntime's as libraries."""
    if shutil.which("swiftc") is None:
        pytest.skip("swiftc is not installed")
    if sys.platform == "darwin":
        pytest.skip("the doubles would hide the frameworks of this Mac")
    folder = tmp_path_factory.mktemp("doubles")
    made: list[str] = []
    for name in dict.fromkeys(module for modules in MODULES.values() for module in modules):
        as_module = ["-parse-as-library", "-emit-library", "-emit-module"]
        paths = ["-emit-module-path", folder / f"{name}.swiftmodule", "-o", folder / f"lib{name}.so"]
        links = ["-I", folder, "-L", folder, *made]
        source = DOUBLES / f"{name}.swift"
        _run(["swiftc", "-module-name", name, *as_module, *paths, *links, source])
        made.append(f"-l{name}")
    return folder


def swift(source: Path, target: str, doubles: Path, program: Path) -> Path:
    """``source`` as a program, optimized as in an app: then Swift frees what is not used any more."""
    links = [f"-l{name}" for name in MODULES[target]]
    link = ["-I", doubles, "-L", doubles, *links, "-Xlinker", "-rpath", "-Xlinker", doubles]
    for mode in ("5", "6"):
        _run(["swiftc", "-warnings-as-errors", "-swift-version", mode, "-typecheck", source, "-I", doubles])
    _run(["swiftc", "-O", source, *link, "-o", program])
    return program


def _run(command: Sequence[str | Path]) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
