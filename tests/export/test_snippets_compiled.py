"""The C++, Kotlin and Swift snippets compile without a warning, and tell the golden output from another one.

They are compiled against the real runtime where its headers are there, and against a double of it (``doubles/``, where
the model is a file of the answers and the image they are for) where a runtime is for phones alone or has no headers.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from swift_programs import swift

from softedge.export import contract, snippet
from softedge.export.base import open_format
from softedge.export.executorch.format import ExecuTorch
from softedge.export.ncnn.format import Ncnn
from softedge.export.onnx.format import Onnx
from softedge.export.openvino.format import OpenVino
from softedge.records import InputSpec

DOUBLES = Path(__file__).parent / "doubles"
LABELS = ("a cat", 'a "dog" at $5\\', "größer", "d", "e")
MODELS = {
    "onnx": "model.onnx",
    "openvino": "model.xml",
    "executorch": "model.pte",
    "litert": "model.tflite",
    "coreml": "model.mlpackage",
    "ncnn": "model.param",
}
EDGES: dict[str, dict[str, Any]] = {"output": {"tensor": "logits", "dtype": "uint8", "scale": 0.07, "zero_point": 120}}
WARNINGS = ("-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror")

pytestmark = pytest.mark.hardware
needs_gpp = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")


def exported(target, deployed, pictures, precision: str, folder: Path) -> Path:
    artifact = target.convert(deployed, precision, pictures, folder)
    golden = contract.Golden(pictures[:2], target.load(artifact)(pictures[:2]), deployed.predict(pictures[:2]))
    contract.write(folder, artifact, golden)
    snippet.write(folder)
    return folder


def as_integers(output: str, answers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integers as in ``EDGES`` whose output is about ``answers``, and what it is exactly, with NumPy."""
    edge = EDGES["output"]
    before = {"probabilities": np.log(answers), "scores": np.log(answers / (1 - answers)), "features": 5 * answers}
    integers = np.clip(np.round(before[output] / edge["scale"]) + edge["zero_point"], 0, 255)
    values = edge["scale"] * (integers - edge["zero_point"])
    powers = np.exp(values)
    after = {
        "probabilities": powers / powers.sum(1, keepdims=True),
        "scores": powers / (1 + powers),
        "features": values,
    }
    return integers.astype(np.uint8), after[output].astype(np.float32)


def for_doubles(target: str, folder: Path, output="probabilities", integers: bool = False) -> Path:
    """An export folder with snippets whose model the doubles understand."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (2, 6, 6, 3), dtype=np.uint8)
    answers = expected = draw.dirichlet(np.ones(5), 2).astype(np.float32)
    if integers:
        answers, expected = as_integers(output, answers)
    folder.mkdir(exist_ok=True)
    model = folder / MODELS[target]
    model.write_bytes(answers[0].tobytes() + images[0].tobytes())
    for other in contract.model_files(model, target)[1:]:
        other.write_bytes(b"weights")
    labels = LABELS if output != "features" else ()
    spec = InputSpec(6, 7, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    artifact = contract.artifact_of(model, target, "fp32", spec, labels, output)
    with pytest.MonkeyPatch.context() as patch:
        if integers:
            patch.setattr(type(open_format(target)), "integer_edges", lambda self, artifact: EDGES)
        contract.write(folder, artifact, contract.Golden(images, expected, expected))
    snippet.write(folder)
    return folder


def compiled(command: Sequence[str | Path]) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def tells_the_golden_output_from_another(
    command: Sequence[str | Path], folder: Path, label: Callable[[int], str], environment: dict[str, str] | None = None
) -> None:
    """Exit code 0 and the label for the golden output; 1 for another one and for NaN; one line for a missing file."""

    def run(where: Path) -> subprocess.CompletedProcess[str]:
        arguments = [*map(str, command), str(where)]
        return subprocess.run(arguments, capture_output=True, text=True, env={**os.environ, **(environment or {})})

    golden = folder / "golden" / "expected.npy"
    expected = np.load(golden)
    best = int(expected[0].argmax())
    done = run(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    name, rest = done.stdout.split(", largest difference")[0].rsplit(" ", 1)
    assert name.splitlines()[-1].removeprefix("no label, the highest: ") == label(best)
    assert float(rest) == pytest.approx(expected[0, best], rel=1e-4)
    for other in (expected + np.float32(0.06) * (np.arange(expected.shape[1]) == best), expected * np.nan):
        np.save(golden, other.astype(np.float32))
        assert run(folder).returncode == 1
    np.save(golden, expected[:1, :3])
    assert run(folder).returncode != 0
    np.save(golden, expected)
    model = folder / contract.describe(folder)["model"]
    model.rename(folder / "elsewhere")
    for where, missing in ((folder, model.name), (folder / "none", str(folder / "none"))):
        failed = run(where)
        assert failed.returncode not in (0, -6) and missing in failed.stderr
    (folder / "elsewhere").rename(model)


# C++


def onnxruntime_headers() -> Path | None:
    """Where onnxruntime_cxx_api.h is: ONNXRUNTIME_INCLUDE, or where packages and releases are usually unpacked."""
    given = os.environ.get("ONNXRUNTIME_INCLUDE")
    usual = ("/usr/include", "/usr/local/include", "/opt/homebrew/include")
    candidates = [given] if given else [folder + end for folder in usual for end in ("/onnxruntime", "")]
    return next((Path(c) for c in candidates if (Path(c) / "onnxruntime_cxx_api.h").is_file()), None)


def onnxruntime_library(folder: Path) -> Path | None:
    """A folder with the wheel's library under the names that the linker and the loader look for."""
    import onnxruntime

    found = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    if not found:
        return None
    folder.mkdir()
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(found[-1])
    return folder


@needs_gpp
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8-strict"])
def test_cpp_snippet_for_onnxruntime_passes_on_the_wheels_library(deployed, pictures, tmp_path, precision):
    import onnxruntime

    if (headers := onnxruntime_headers()) is None:
        pytest.skip("onnxruntime's C++ headers are not installed; set ONNXRUNTIME_INCLUDE to their folder")
    if (library := onnxruntime_library(tmp_path / "lib")) is None:
        pytest.skip("this onnxruntime wheel has no shared library to link against")
    version = re.search(r"define ORT_API_VERSION (\d+)", (headers / "onnxruntime_c_api.h").read_text())
    if version is None or int(version[1]) > int(onnxruntime.__version__.split(".")[1]):
        pytest.skip(f"the headers in {headers} are newer than onnxruntime {onnxruntime.__version__}")
    folder = exported(Onnx(), deployed, pictures[:2], precision, tmp_path)
    program, link = tmp_path / "run", ["-L", library, f"-Wl,-rpath,{library}", "-lonnxruntime"]
    compiled(["g++", *WARNINGS, "-isystem", headers, folder / "snippets" / "run.cpp", *link, "-o", program])
    tells_the_golden_output_from_another([program], folder, lambda i: "abcde"[i])


@needs_gpp
@pytest.mark.parametrize("integers", [False, True])
@pytest.mark.parametrize("output", ["probabilities", "scores", "features"])
def test_cpp_snippet_of_every_kind_of_output_compiles(output, integers, tmp_path):
    folder = for_doubles("onnx", tmp_path, output, integers)
    compiled(["g++", *WARNINGS, "-fsyntax-only", "-isystem", DOUBLES, folder / "snippets" / "run.cpp"])


@needs_gpp
@pytest.mark.parametrize("target", ["onnx", "ncnn"])
def test_cpp_snippet_passes_on_a_double_of_its_runtime(tmp_path, target):
    folder, program = for_doubles(target, tmp_path), tmp_path / "run"
    compiled(["g++", *WARNINGS, "-I", DOUBLES, folder / "snippets" / "run.cpp", "-o", program])
    tells_the_golden_output_from_another([program], folder, lambda i: LABELS[i])


@needs_gpp
def test_cpp_snippet_for_openvino_passes_on_the_wheels_library(deployed, pictures, tmp_path):
    import openvino

    root = Path(openvino.__file__).parent
    library = next(iter(sorted((root / "libs").glob("libopenvino.so*"))), None)
    if library is None or not (root / "include").is_dir():
        pytest.skip("this OpenVINO wheel has no library or no headers to compile against")
    folder = exported(OpenVino(), deployed, pictures[:2], "fp32", tmp_path)
    program, link = tmp_path / "run", [library, f"-Wl,-rpath,{root / 'libs'}"]
    compiled(["g++", *WARNINGS, "-isystem", root / "include", folder / "snippets" / "run.cpp", *link, "-o", program])
    tells_the_golden_output_from_another([program], folder, lambda i: "abcde"[i])


@needs_gpp
@pytest.mark.slow
def test_cpp_snippet_for_executorch_passes_on_the_wheels_library(deployed, pictures, tmp_path):
    found = importlib.util.find_spec("executorch")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs executorch: pip install 'softedge[executorch]'")
    root = Path(next(iter(found.submodule_search_locations)))
    if not (root / "lib" / "libexecutorch.so").is_file():
        pytest.skip("this ExecuTorch wheel has no library to link against")
    folder = exported(ExecuTorch(), deployed, pictures[:2], "fp32", tmp_path)
    include = root / "include"
    headers = ["-isystem", include, "-isystem", include / "executorch/runtime/core/portable_type/c10"]
    defined = ["-DC10_USING_CUSTOM_GENERATED_MACROS", "-DET_EVENT_TRACER_ENABLED"]
    # Kernels and backend register themselves when they are loaded: no symbol of theirs is used.
    names = [
        "-lexecutorch",
        "-lexecutorch_kernels_optimized",
        "-lexecutorch_backend_xnnpack",
        "-lexecutorch_threadpool",
    ]
    link = ["-L", root / "lib", f"-Wl,-rpath,{root / 'lib'}", "-Wl,--no-as-needed", *names]
    program = tmp_path / "run"
    compiled(["g++", *WARNINGS, *defined, *headers, folder / "snippets" / "run.cpp", *link, "-o", program])
    tells_the_golden_output_from_another([program], folder, lambda i: "abcde"[i])


@needs_gpp
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_cpp_snippet_for_ncnn_passes_on_the_library(deployed, pictures, tmp_path, precision):
    if (why := Ncnn().missing()) is not None:
        pytest.skip(why)
    root = Path(os.environ.get("NCNN_ROOT", "/usr"))
    library = next(iter(sorted((root / "lib").glob("**/libncnn.*"))), None)
    if library is None or not (root / "include" / "ncnn" / "net.h").is_file():
        pytest.skip("ncnn's headers and its library are not installed; set NCNN_ROOT to their folder")
    folder = exported(Ncnn(), deployed, pictures[:20], precision, tmp_path)
    program, link = tmp_path / "run", [library, "-fopenmp"]
    compiled(["g++", *WARNINGS, "-isystem", root / "include", folder / "snippets" / "run.cpp", *link, "-o", program])
    tells_the_golden_output_from_another([program], folder, lambda i: "abcde"[i])


@needs_gpp
def test_cpp_snippet_of_a_model_without_labels_names_the_largest_feature(tmp_path):
    folder, program = for_doubles("onnx", tmp_path, "features"), tmp_path / "run"
    header = (DOUBLES / "onnxruntime_cxx_api.h").read_text().replace('"probabilities"', '"features"')
    (tmp_path / "onnxruntime_cxx_api.h").write_text(header)
    compiled(["g++", *WARNINGS, "-I", tmp_path, folder / "snippets" / "run.cpp", "-o", program])
    assert not (folder / "snippets" / "labels.txt").exists()
    tells_the_golden_output_from_another([program], folder, str)


# Kotlin and Swift: every kind of output, from float and from integers


def kinds(*targets: str) -> list[tuple[str, str, bool]]:
    """What the snippets of ``targets`` are written for: target, output, whether its tensor is of integers."""
    outputs = ("probabilities", "scores", "features")
    edges = [(target, integers) for target in targets for integers in (False, True)]
    return [(t, o, i) for t, i in edges if open_format(t).strict or not i for o in outputs]


def labelled(output: str) -> Callable[[int], str]:
    return str if output == "features" else lambda i: LABELS[i]


KOTLIN = kinds("onnx", "executorch", "litert")


@pytest.fixture(scope="module")
def kotlin(tmp_path_factory) -> tuple[list[str], dict[tuple[str, str, bool], Path]]:
    """All Kotlin snippets with their doubles in one jar, for the compiler takes seconds to start."""
    if shutil.which("kotlinc") is None or shutil.which("java") is None:
        pytest.skip("kotlinc or java is not installed")
    root, folders, sources = tmp_path_factory.mktemp("kotlin"), {}, []
    for number, kind in enumerate(KOTLIN):
        folders[kind] = for_doubles(kind[0], root / str(number), *kind[1:])
        text = (folders[kind] / "snippets" / "run.kt").read_text()
        if "fun main" not in text:  # an Android app calls checkGolden itself
            text += "\nfun main(a: Array<String>) { if (!checkGolden(File(a[0]))) kotlin.system.exitProcess(1) }\n"
        # Each in a package of its own: the same functions stand in all of them.
        (root / f"snippet{number}.kt").write_text(f"package snippet{number}\n\n{text}")
        sources.append(root / f"snippet{number}.kt")
    jar = root / "run.jar"
    compiled(["kotlinc", "-Werror", *sources, *sorted(DOUBLES.glob("*.kt")), "-include-runtime", "-d", jar])
    return ["java", "-cp", str(jar)], folders


@pytest.mark.slow
@pytest.mark.parametrize("kind", KOTLIN, ids=str)
def test_kotlin_snippet_passes_on_a_double(kotlin, kind):
    java, folders = kotlin
    number = KOTLIN.index(kind)
    tells_the_golden_output_from_another(
        [*java, f"snippet{number}.Snippet{number}Kt"], folders[kind], labelled(kind[1])
    )


@pytest.mark.slow
def test_the_way_of_files_into_an_android_app_compiles(kotlin, tmp_path):
    """The lines of the comment, against a double of Android's AssetManager, unpack a folder in a folder."""
    _, folders = kotlin
    text = (folders[KOTLIN[0]] / "snippets" / "run.kt").read_text()
    function = re.search(r"^//     fun unpack.*?^//     }$", text, re.MULTILINE | re.DOTALL)
    assert function is not None
    (tmp_path / "unpack.kt").write_text(ANDROID + function[0].replace("//     ", ""))
    jar = tmp_path / "unpack.jar"
    compiled(["kotlinc", "-Werror", tmp_path / "unpack.kt", "-include-runtime", "-d", jar])
    compiled(["java", "-cp", jar, "UnpackKt", folders[KOTLIN[0]].parent, folders[KOTLIN[0]].name, tmp_path / "to"])
    for name in ("model.onnx", "golden/images.npy", "snippets/labels.txt"):
        assert (tmp_path / "to" / name).read_bytes() == (folders[KOTLIN[0]] / name).read_bytes()


ANDROID = """
import java.io.File

class AssetManager(private val root: File) {
    fun list(path: String): Array<String>? = File(root, path).list() ?: arrayOf()
    fun open(name: String) = File(root, name).inputStream()
}

fun main(a: Array<String>) = unpack(AssetManager(File(a[0])), a[1], File(a[2]))

"""


SWIFT = kinds("onnx", "coreml")


@pytest.mark.slow
@pytest.mark.parametrize("kind", SWIFT, ids=str)
def test_swift_snippet_passes_on_a_double(swift_doubles, tmp_path, kind):
    target, output, integers = kind
    folder = for_doubles(target, tmp_path, output, integers)
    program = swift(folder / "snippets" / "run.swift", target, swift_doubles, folder / "run")
    environment = {"OUTPUT": output, "LABELS": ",".join(LABELS)}
    tells_the_golden_output_from_another([program], folder, labelled(output), environment)
