"""The snippets beside a model are whole programs: they run the golden image and say whether it came out right."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_snippets_compiled import for_doubles

from softedge import registry
from softedge.export import contract, snippet
from softedge.export.base import open_format
from softedge.export.onnx.format import Onnx
from softedge.export.openvino.format import OpenVino


def exported(target, deployed, pictures, folder: Path) -> Path:
    artifact = target.convert(deployed, "fp32", pictures[:0], folder)
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


def test_a_damaged_photo_costs_one_line_and_the_exit_code_and_the_others_are_read(deployed, pictures, tmp_path):
    folder = exported(Onnx(), deployed, pictures, tmp_path)
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(pictures[0]).save(tmp_path / name)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:100])
    command = [sys.executable, str(folder / "snippets" / "run.py")]
    done = subprocess.run([*command, "a.png", "b.png", "d.png", "c.png"], cwd=tmp_path, capture_output=True, text=True)
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == ["a.png", "c.png"]
    damaged, absent = done.stderr.splitlines()
    assert damaged.startswith("b.png: cannot be read (") and absent.startswith("d.png: cannot be read (")
    assert done.returncode == 1
    assert subprocess.run([*command, "a.png"], cwd=tmp_path, capture_output=True).returncode == 0


@pytest.mark.parametrize("target", [Onnx(), OpenVino()], ids=["onnx", "openvino"])
def test_python_snippet_needs_numpy_and_the_runtime_alone(target, deployed, pictures, tmp_path):
    folder = exported(target, deployed, pictures, tmp_path)
    code = (
        "import runpy, sys; refused = dict.fromkeys(['softedge', 'torch', 'timm', 'onnx', 'cv2', 'PIL']);"
        "sys.modules.update(refused); runpy.run_path(sys.argv.pop(1))"
    )
    command = [sys.executable, "-c", code, str(folder / "snippets" / "run.py")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_openvinos_contract_states_the_precision_hint_that_its_snippets_set(deployed, pictures, tmp_path):
    artifact = OpenVino().convert(deployed, "fp32", pictures[:0], tmp_path)
    (hint,) = OpenVino().notes(artifact)["compile_model"]["properties"].items()
    assert hint == ("INFERENCE_PRECISION_HINT", "f32")
    folder = exported(OpenVino(), deployed, pictures, tmp_path)
    assert '{"INFERENCE_PRECISION_HINT": "f32"}' in (folder / "snippets" / "run.py").read_text()
    assert "inference_precision(ov::element::f32)" in (folder / "snippets" / "run.cpp").read_text()


def test_labels_stand_one_on_each_line_in_the_order_of_the_outputs(deployed, pictures, tmp_path):
    folder = exported(Onnx(), deployed, pictures, tmp_path)
    assert (folder / "snippets" / "labels.txt").read_text() == "a\nb\nc\nd\ne\n"


def test_every_file_in_a_snippets_folder_is_a_template_that_is_written():
    for folder in (Path(snippet.__file__).parent).glob("*/snippets"):
        assert {path.stem.removesuffix(".py") for path in folder.iterdir()} == {"run"}, folder


OUTPUTS = [
    (target, integers)
    for target in registry.FORMATS.own
    for integers in (False, True)
    if open_format(target).strict or not integers
]


@pytest.mark.parametrize("output", ["probabilities", "scores", "features"])
@pytest.mark.parametrize(("target", "integers"), OUTPUTS)
def test_a_program_has_the_code_of_its_own_model_alone(target, output, integers, tmp_path):
    folder = for_doubles(target, tmp_path, output, integers)
    programs = [path for path in (folder / "snippets").iterdir() if path.name != "labels.txt"]
    assert any(path.suffix == ".py" for path in programs)
    for path in programs:
        text = path.read_text()
        assert not re.findall(r"@[A-Z]+\b.*@", text), path
        assert not re.findall(r'"(?:probabilities|scores|features)"\)? *[!=]=', text), path
        if path.suffix == ".py":
            assert ".get(image.mode" not in text and "\n\n\n\n" not in text
            done = subprocess.run(
                [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "E9,F,PLR0133,SIM", str(path)],
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stdout


def test_the_known_value_of_white_stands_in_the_program(tmp_path):
    folder = for_doubles("onnx", tmp_path)
    values = json.loads((folder / "contract.json").read_text()) | {"white": {"I": 4095.0}}
    (folder / "contract.json").write_text(json.dumps(values))
    snippet.write(folder)
    assert 'white = {"I": 4095.0}.get(image.mode[0], white)' in (folder / "snippets" / "run.py").read_text()


IN_APPS = [
    (target, output) for target in ("onnx", "executorch", "litert", "coreml") for output in ("scores", "features")
]


@pytest.mark.parametrize(("target", "output"), IN_APPS)
def test_the_part_of_a_program_that_an_app_takes_has_declarations_alone(target, output, tmp_path):
    """Swift allows statements in main.swift alone, and Kotlin nowhere."""
    declared = re.compile(
        r"(//|/\*\*| \*|import |let |const val |(private )?(final )?(struct|class|fun|func) |[}#)]|$)"
    )
    for path in (for_doubles(target, tmp_path, output) / "snippets").iterdir():
        if path.suffix in (".kt", ".swift"):
            part = path.read_text().partition("\n// Command line:")[0]
            assert [line for line in part.splitlines() if line[:1] != " " and not declared.match(line)] == [], path


LOADS = (
    r"createSession|[sS]ession\(|Session session|Interpreter\(|[lL]oad\(|read_model|compile_model|load_param"
    r"|Module module|MLModel\("
)


@pytest.mark.parametrize("target", ["onnx", "openvino", "executorch", "litert", "coreml", "ncnn"])
def test_a_program_loads_the_model_once_for_all_photos(target, tmp_path):
    for path in (for_doubles(target, tmp_path) / "snippets").iterdir():
        if path.suffix in (".kt", ".swift", ".cpp"):
            before, _, after = path.read_text().partition("class Classifier")
            predict = after.partition(" predict(")[2].partition("\n    }" if path.suffix != ".cpp" else "\n  }")[0]
            assert len(predict.splitlines()) > 2 and not re.search(LOADS, predict), path
            assert re.search(LOADS, before + after), path


@pytest.mark.parametrize(("target", "output"), IN_APPS)
def test_a_program_for_apps_says_package_version_files_thread_and_licence(target, output, tmp_path):
    folder = for_doubles(target, tmp_path, output)
    package = {"onnx": "onnxruntime", "executorch": "executorch", "litert": "ai-edge-litert", "coreml": "coremltools"}[
        target
    ]
    values = json.loads((folder / "contract.json").read_text())
    (folder / "contract.json").write_text(json.dumps(values | {"versions": {package: "9.8.7", "torch": "1.2.3"}}))
    snippet.write(folder)
    for path in (folder / "snippets").iterdir():
        head = re.split(r"^(?:import|package) ", path.read_text(), maxsplit=1, flags=re.MULTILINE)[0]
        if path.name != "labels.txt":
            assert re.match(r"(//|#) SPDX-License-Identifier: Apache-2.0\n", head), path
        if path.suffix == ".kt":
            assert "implementation(" in head and "src/main/assets/" in head and "Dispatchers.Default" in head
            assert "package" in head and f"Exported with {package} 9.8.7" in head
        if path.suffix == ".swift":
            assert "folder references" in head and "Task.detached" in head and "iOS 1" in head
            assert target == "coreml" or f"Exported with {package} 9.8.7" in head


@pytest.mark.parametrize("ending", [".kt", ".swift", ".cpp", ".py.txt"])
def test_one_function_of_a_language_makes_the_output_of_integers(ending):
    root = Path(snippet.__file__).parent
    assert [path.name for path in root.rglob(f"*{ending}") if "@SCALE@" in path.read_text()] == [f"integers{ending}"]


def test_the_labels_in_a_program_are_as_many_as_the_outputs(tmp_path):
    """labels.txt ends with a line end: split at these it has one more, empty label."""
    folder = for_doubles("onnx", tmp_path)
    assert (folder / "snippets" / "labels.txt").read_text().count("\n") == 5
    assert "omittingEmptySubsequences: false).dropLast()" in (folder / "snippets" / "run.swift").read_text()
