"""The snippets make of fifty odd photos what training made of them.

Python decodes with Pillow and gives the same bits. The others get the pixels that Pillow decodes, unturned, and give
the same bits from there; with a decoder of their own they differ by what two JPEG decoders differ by.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from odd_photos import UNUSUAL, odd_photos
from PIL import Image
from swift_programs import swift

from softedge.data.decoding import decode, prepare
from softedge.export import contract, snippet
from softedge.export.onnx.format import Onnx
from softedge.records import InputSpec

DOUBLES = Path(__file__).parent / "doubles"
SPECS = [
    InputSpec(24, 32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), "bilinear"),
    InputSpec(33, 33, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), "bicubic"),
    InputSpec(21, 40, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), "bicubic"),
]
by_spec = pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.size}-{s.resize}-{s.interpolation}")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    made = odd_photos(tmp_path_factory.mktemp("photos"))
    assert len(made) == 50
    return made


def with_snippets(target: str, spec: InputSpec, folder: Path, about: dict[str, object] | None = None) -> Path:
    """An export folder of ``target`` whose model the doubles understand, made for ``spec``."""
    folder.mkdir(exist_ok=True)
    model = folder / "model.bin"
    model.write_bytes(b"model")
    images, expected = np.zeros((1, spec.size, spec.size, 3), np.uint8), np.full((1, 2), 0.5, np.float32)
    artifact = contract.artifact_of(model, target, "fp32", spec, ("a", "b"))
    contract.write(folder, artifact, contract.Golden(images, expected, expected), about)
    snippet.write(folder)
    return folder / "snippets"


def in_python(program: Path) -> dict[str, Callable[[str], np.ndarray]]:
    """The functions ``upright`` and ``prepare`` of a written program."""
    body = ast.parse(program.read_text()).body
    made: list[ast.stmt] = [n for n in body if isinstance(n, ast.FunctionDef) and n.name in ("upright", "prepare")]
    names: dict[str, Callable[[str], np.ndarray]] = {"np": np}  # type: ignore[dict-item]
    exec(compile(ast.Module(made, []), "run.py", "exec"), names)
    return names


@by_spec
@pytest.mark.parametrize("target", ["onnx", "executorch", "litert", "ncnn"])
def test_python_gives_the_same_bits(photos: list[Path], spec: InputSpec, target: str, tmp_path: Path) -> None:
    names = in_python(with_snippets(target, spec, tmp_path) / "run.py")
    for photo in photos:
        found = names["prepare"](str(photo))
        assert found.dtype == np.uint8 and found.shape == (1, spec.size, spec.size, 3), photo.name
        np.testing.assert_array_equal(found[0], prepare(decode(photo), spec), err_msg=photo.name)


def test_python_takes_the_range_of_wide_pixels_from_the_training_data(tmp_path: Path) -> None:
    """A 12-bit camera fills a sixteenth of 16 bits: a program that guesses would see the photos nearly black."""
    values = (np.arange(24 * 24).reshape(24, 24) * 7).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "camera.png")
    written = with_snippets("onnx", SPECS[0], tmp_path / "known", {"white": {"I": 4095.0}})
    found = in_python(written / "run.py")["prepare"](str(tmp_path / "camera.png"))
    np.testing.assert_array_equal(found[0], prepare(decode(tmp_path / "camera.png", white={"I": 4095.0}), SPECS[0]))
    guessed = in_python(with_snippets("onnx", SPECS[0], tmp_path / "unknown") / "run.py")["prepare"]
    assert found.mean() > 10 * guessed(str(tmp_path / "camera.png")).mean()


@pytest.mark.slow
def test_the_python_program_answers_photos_as_the_model_does(photos, deployed, pictures, tmp_path) -> None:
    artifact = Onnx().convert(deployed, "fp32", pictures[:0], tmp_path)
    run = Onnx().load(artifact)
    contract.write(tmp_path, artifact, contract.Golden(pictures[:2], run(pictures[:2]), deployed.predict(pictures[:2])))
    snippet.write(tmp_path)
    command = [sys.executable, str(tmp_path / "snippets" / "run.py"), *map(str, photos)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = run(np.stack([prepare(decode(photo), deployed.spec) for photo in photos]))
    for photo, line, output in zip(photos, done.stdout.splitlines(), expected, strict=True):
        name, label, probability = line.rsplit(maxsplit=2)
        assert (name, label) == (f"{photo}:", "abcde"[output.argmax()])
        assert float(probability) == pytest.approx(float(output.max()), rel=1e-4)


def test_kotlins_lines_for_the_jvm_read_the_samples_of_a_grey_photo(tmp_path: Path) -> None:
    """Java's getRGB takes grey for linear light: 192 would become 225. What the lines do is compiled and run below."""
    text = (with_snippets("onnx", SPECS[0], tmp_path) / "run.kt").read_text()
    lines = text.partition(" * JVM:")[2].partition(" */")[0]
    assert "colorModel.numComponents < 3" in lines and "raster.getSample(" in lines


# The other languages: raw pixels in, prepared pixels out


def raw(photos: Sequence[Path], folder: Path, turns: bool = False) -> list[Path]:
    """Each photo as its decoder leaves it: ``NAME.rgba`` with width and height (``turns``: and the orientation, of JPEG
    alone, as the programs do) as 4 bytes each, then the pixels."""
    written = []
    for photo in photos:
        with Image.open(photo) as image:
            rgba, turn = image.convert("RGBA"), image.getexif().get(274, 1) if turns and image.format == "JPEG" else 1
        written.append(folder / f"{photo.name}.rgba")
        head = [*rgba.size, *([turn] if turns else [])]
        written[-1].write_bytes(np.array(head, "<u4").tobytes() + rgba.tobytes())
    return written


def usual(photos: Sequence[Path]) -> list[Path]:
    return [photo for photo in photos if photo.name not in UNUSUAL]


def prepared(command: Sequence[str | Path], spec: InputSpec) -> Iterator[np.ndarray]:
    """The images that a program writes to its standard output, one after the other."""
    done = subprocess.run(list(map(str, command)), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    yield from np.frombuffer(done.stdout, np.uint8).reshape(-1, spec.size, spec.size, 3)


def same_bits(
    command: Sequence[str | Path], photos: list[Path], spec: InputSpec, folder: Path, turns: bool = False
) -> None:
    """``command`` is followed by pairs of a photo and its pixels."""
    both = [path for pair in zip(photos, raw(photos, folder, turns)) for path in pair]
    for photo, found in zip(photos, prepared([*command, *both], spec), strict=True):
        np.testing.assert_array_equal(found, prepare(decode(photo), spec), err_msg=photo.name)


CPP = """
#define main run_main
#include "run.cpp"
#undef main
static std::vector<uint8_t> contents(const char *path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), {});
  return {bytes.begin(), bytes.end()};
}
int main(int argc, char **argv) {
  const bool decodes = std::string(argv[1]) == "decode";
  for (int i = 2; i < argc; i += decodes ? 1 : 2) {
    std::vector<char> image;
    if (decodes) {
      image = prepare(fs::path(argv[i]));
    } else {
      const std::vector<uint8_t> raw = contents(argv[i + 1]);
      int width = 0, height = 0;
      std::memcpy(&width, raw.data(), 4);
      std::memcpy(&height, raw.data() + 4, 4);
      const std::vector<uint8_t> rgb = upright(raw.data() + 8, width, height, orientation(contents(argv[i])));
      image = prepare(rgb, width, height);
    }
    std::fwrite(image.data(), 1, image.size(), stdout);
  }
}
"""


def compiled_cpp(spec: InputSpec, folder: Path, *more: str) -> Path:
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    snippets, program = with_snippets("onnx", spec, folder), folder / "driver"
    (snippets / "driver.cpp").write_text(CPP)
    warnings = ("-std=c++17", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror")
    command = ["g++", *warnings, "-isystem", str(DOUBLES), *more, str(snippets / "driver.cpp"), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


@pytest.mark.slow
@pytest.mark.hardware
@by_spec
def test_cpp_gives_the_same_bits_from_the_same_pixels(photos: list[Path], spec: InputSpec, tmp_path: Path) -> None:
    same_bits([compiled_cpp(spec, tmp_path), "raw"], usual(photos), spec, tmp_path)


@pytest.mark.slow
@pytest.mark.hardware
def test_cpp_with_its_own_decoder_differs_by_a_decoder_alone(photos: list[Path], tmp_path: Path) -> None:
    usual_folders = [os.environ.get("STB_INCLUDE", ""), "/usr/include/stb", "/usr/local/include/stb", "/usr/include"]
    folder = next((f for f in usual_folders if f and (Path(f) / "stb_image.h").is_file()), None)
    if folder is None:
        pytest.skip("stb_image.h is not installed; set STB_INCLUDE to its folder")
    spec, taken = SPECS[1], [photo for photo in usual(photos) if photo.suffix in (".jpg", ".png", ".bmp")]
    program = compiled_cpp(spec, tmp_path, "-isystem", folder)
    for photo, found in zip(taken, prepared([program, "decode", *taken], spec), strict=True):
        difference = np.abs(found.astype(int) - prepare(decode(photo), spec))
        assert difference.mean() < (1.0 if photo.suffix == ".jpg" else 1e-9), photo.name


NODE = """
import { readFileSync } from "node:fs";
import { prepare } from "MODULE";
const [spec, ...files] = process.argv.slice(2);
for (let i = 0; i < files.length; i += 2) {
  const raw = readFileSync(files[i + 1]);
  const [width, height] = [raw.readUInt32LE(0), raw.readUInt32LE(4)];
  process.stdout.write(prepare(new Uint8ClampedArray(raw.subarray(8)), width, height, JSON.parse(spec)));
}
"""


@pytest.mark.slow
@pytest.mark.hardware
@by_spec
def test_javascript_gives_the_same_bits_from_upright_pixels(
    photos: list[Path], spec: InputSpec, tmp_path: Path
) -> None:
    """A browser turns photos and lays them on white itself: here Pillow has."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    page = Path(snippet.__file__).parents[1] / "live" / "pixels.js"
    (tmp_path / "pixels.mjs").write_text(page.read_text())
    (tmp_path / "driver.mjs").write_text(NODE.replace("MODULE", "./pixels.mjs"))
    upright = []
    for photo in photos:
        upright.append(tmp_path / f"{photo.name}.png")
        Image.fromarray(decode(photo)).save(upright[-1])
    about = json.dumps({"size": spec.size, "resize": spec.resize, "interpolation": spec.interpolation})
    same_bits(["node", tmp_path / "driver.mjs", about], upright, spec, tmp_path)


KOTLIN = """
fun decoded(file: File): ByteArray {
    @JVM@
    return prepare(argb, photo.width, photo.height, orientation(file.readBytes()))
}

fun main(a: Array<String>) {
    if (a[0] == "decode") {
        a.drop(1).forEach { System.out.write(decoded(File(it))) }
        return System.out.flush()
    }
    for (i in a.indices step 2) {
        val raw = ByteBuffer.wrap(File(a[i + 1]).readBytes()).order(ByteOrder.LITTLE_ENDIAN)
        val (width, height) = raw.getInt() to raw.getInt()
        val argb = IntArray(width * height) { java.lang.Integer.rotateRight(Integer.reverseBytes(raw.getInt()), 8) }
        System.out.write(prepare(argb, width, height, orientation(File(a[i]).readBytes())))
    }
    System.out.flush()
}
"""


@pytest.mark.slow
@pytest.mark.hardware
def test_kotlin_gives_the_same_bits_from_the_same_pixels(photos: list[Path], tmp_path: Path) -> None:
    if shutil.which("kotlinc") is None or shutil.which("java") is None:
        pytest.skip("kotlinc or java is not installed")
    spec = SPECS[2]
    text = (with_snippets("litert", spec, tmp_path) / "run.kt").read_text()
    lines = text.partition(" * JVM:")[2].partition(" */")[0].replace("\n *", "\n")  # of the comment
    lines = lines.replace("ImageIO.", "javax.imageio.ImageIO.")
    (tmp_path / "driver.kt").write_text(text + KOTLIN.replace("@JVM@", lines))
    jar = tmp_path / "driver.jar"
    command = ["kotlinc", "-Werror", tmp_path / "driver.kt", DOUBLES / "litert.kt", "-include-runtime", "-d", jar]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    same_bits(["java", "-cp", jar, "DriverKt"], usual(photos), spec, tmp_path)
    taken = [photo for photo in usual(photos) if photo.suffix in (".jpg", ".png", ".bmp")]
    for photo, found in zip(taken, prepared(["java", "-cp", jar, "DriverKt", "decode", *taken], spec), strict=True):
        difference = np.abs(found.astype(int) - prepare(decode(photo), spec))
        assert difference.mean() < (1.0 if photo.suffix == ".jpg" else 1e-9), photo.name  # another decoder of JPEG


SWIFT = """
for path in CommandLine.arguments.dropFirst() where path.hasSuffix(".rgba") {
    FileHandle.standardOutput.write(Data(try prepare(photo: URL(fileURLWithPath: path))))
}
"""


@pytest.mark.slow
@pytest.mark.hardware
@by_spec
def test_swift_gives_the_same_bits_from_the_same_pixels(
    photos: list[Path], spec: InputSpec, swift_doubles: Path, tmp_path: Path
) -> None:
    """The file without its end, as an app has it; the doubles of Image I/O and Core Graphics decode and draw."""
    source = tmp_path / "app" / "main.swift"
    source.parent.mkdir()
    text = (with_snippets("coreml", spec, tmp_path) / "run.swift").read_text()
    source.write_text(text.partition("// Command line:")[0] + SWIFT)
    same_bits([swift(source, "coreml", swift_doubles, tmp_path / "driver")], usual(photos), spec, tmp_path, turns=True)
