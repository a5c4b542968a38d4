"""The snippets beside a model are whole programs: they run the golden image and say whether it came out right."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from softedge.export import contract, snippet
from softedge.export.onnx import Onnx
from softedge.export.openvino import OpenVino


def exported(target, deployed, pictures, folder: Path) -> Path:
    artifact = target.convert(deployed, deployed.spec, "fp32", pictures[:0], folder)
    golden = contract.Golden(pictures[:2], target.load(artifact)(pictures[:2]), deployed.predict(pictures[:2]))
    contract.write(folder, artifact, golden)
    snippet.write(folder)
    return folder


@pytest.mark.parametrize("target", [Onnx(), OpenVino()], ids=["onnx", "openvino"])
def test_python_snippet_passes_and_fails_when_the_expected_output_is_another(target, deployed, pictures, tmp_path):
    folder = exported(target, deployed, pictures, tmp_path)
    command = [sys.executable, str(folder / "snippets" / "run.py")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] in "abcde"
    np.save(folder / "golden" / "expected.npy", np.zeros((2, 5), np.float32))
    assert subprocess.run(command, capture_output=True).returncode == 1


def test_every_template_is_used_and_filled_in(deployed, pictures, tmp_path):
    used = {name for names in snippet.BY_TARGET.values() for name in names}
    assert used == {p.name for p in snippet.TEMPLATES.iterdir() if p.is_file()}


@pytest.mark.hardware
@pytest.mark.slow
def test_cpp_snippet_for_openvino_compiles_against_the_wheel_and_passes(deployed, pictures, tmp_path):
    import openvino

    root = Path(openvino.__file__).parent
    library = next(iter(sorted((root / "libs").glob("libopenvino.so*"))), None)
    if shutil.which("g++") is None or library is None or not (root / "include").is_dir():
        pytest.skip("needs g++ and OpenVINO's headers")
    folder = exported(OpenVino(), deployed, pictures, tmp_path)
    program = str(folder / "run")
    source = str(folder / "snippets" / "run.cpp")
    subprocess.run(
        [
            "g++",
            "-std=c++17",
            "-I",
            str(root / "include"),
            source,
            str(library),
            f"-Wl,-rpath,{root / 'libs'}",
            "-o",
            program,
        ],
        check=True,
    )
    done = subprocess.run([program, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
