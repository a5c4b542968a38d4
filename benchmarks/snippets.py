"""The Kotlin programs beside exported models, compiled against the runtimes' Java classes and run on photos.

    python benchmarks/snippets.py RUN ... --photos FOLDER --kotlin kotlin-compiler.jar kotlin-stdlib.jar
        --classes onnxruntime.jar litert.jar executorch.jar --compute onnx

A row is a file.  Pixels: the program's image of a photo against training's preprocessing, both from Pillow's decoder.
Output: the program's on that image against Python's runtime on Python's image; formats that are not in ``--compute``
have no library for Java on this machine, and their image goes to Python's runtime as well.  A program that computes
checks its golden image first.  Java's decoder: the photo decoded by the lines for the JVM in the program's comment.

Jars: a Kotlin compiler, e.g. the one in PyPI's kotlin-jupyter-kernel; a runtime's classes, built from its sources where
nothing is computed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from softedge.data.decoding import decode, prepare
from softedge.export import contract, snippet
from softedge.export.base import open_format

DRIVER = """
/** A photo as Java decodes it, by the lines of the program's comment. */
fun decoded(file: File): Pair<java.awt.image.BufferedImage, IntArray> {
    @JVM@
    return photo to argb
}

fun main(a: Array<String>) {
    val out = java.io.DataOutputStream(System.out.buffered())
    val folder = File(a[0])
    val classifier = if (a[1] == "run") Classifier(File(folder, "@MODEL@")) else null
    if (classifier != null && !checkGolden(folder)) exitProcess(1)
    for (i in 2 until a.size step 2) {
        val raw = ByteBuffer.wrap(File(a[i + 1]).readBytes()).order(ByteOrder.LITTLE_ENDIAN)
        val (width, height) = raw.getInt() to raw.getInt()
        val argb = IntArray(width * height) { java.lang.Integer.rotateRight(Integer.reverseBytes(raw.getInt()), 8) }
        val turn = orientation(File(a[i]).readBytes())
        val image = prepare(argb, width, height, turn)
        out.write(image)
        out.write(decoded(File(a[i])).let { (photo, own) -> prepare(own, photo.width, photo.height, turn) })
        classifier?.predict(image)?.forEach(out::writeFloat)
    }
    out.flush()
}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--photos", type=Path, required=True, help="a folder of JPEG files")
    parser.add_argument("--java", default="java")
    parser.add_argument("--kotlin", type=Path, nargs="+", required=True, help="jars of the compiler and of its library")
    parser.add_argument("--classes", type=Path, nargs="+", required=True, help="jars of the runtimes' Java classes")
    parser.add_argument("--compute", nargs="*", default=[], help="formats whose jar has its library for this machine")
    options = parser.parse_args()
    photos = sorted(path for path in options.photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    print(f"{len(photos)} photos; Kotlin {kotlin_version(options)}\n")
    print("| file | output | size | computed by | pixels, largest difference | output, largest difference "
          "| same answer | pixels with Java's decoder, mean difference |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    for run in options.runs:
        for artifact in contract.exported(run / "export"):
            if any(path.suffix == ".kt" for path in open_format(artifact.target).snippets()):
                with tempfile.TemporaryDirectory() as work:
                    print(row(artifact.path.parent, artifact.target, photos, options, Path(work)), flush=True)


def kotlin(options: argparse.Namespace, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    jars = os.pathsep.join(map(str, options.kotlin))
    command = [options.java, "-cp", jars, "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def kotlin_version(options: argparse.Namespace) -> str:
    return kotlin(options, "-version").stderr.strip()


def row(exported: Path, target: str, photos: Sequence[Path], options: argparse.Namespace, work: Path) -> str:
    folder = Path(shutil.copytree(exported, work / "export"))
    snippet.write(folder)  # as this version writes it
    values, (artifact,) = contract.describe(folder), contract.exported(work)
    source, classes = work / "program.kt", os.pathsep.join(map(str, [*options.classes, *options.kotlin]))
    text = (folder / "snippets" / "run.kt").read_text().partition("\nfun main(")[0]
    needed = "" if "import kotlin.system.exitProcess" in text else "import kotlin.system.exitProcess\n"
    text = text.replace("import java.io.File\n", f"import java.io.File\n{needed}", 1)
    driver = DRIVER.replace("@MODEL@", values["model"]).replace("@JVM@", lines_for_java(text))
    source.write_text(f"package program\n\n{text}\n{driver}")
    done = kotlin(options, "-Werror", "-no-stdlib", "-no-reflect", "-cp", classes, source, "-d", work / "classes")
    if done.returncode:
        raise SystemExit(f"{exported}: {done.stdout}{done.stderr}")

    spec, computes = artifact.spec, target in options.compute
    both = [path for photo in photos for path in (photo, raw(photo, work))]
    classes = os.pathsep.join([str(work / "classes"), classes])
    command = [options.java, "-cp", classes, "program.ProgramKt", folder, "run" if computes else "prepare", *both]
    ran = subprocess.run(list(map(str, command)), capture_output=True)
    if ran.returncode:
        raise SystemExit(f"{exported}: {ran.stdout.decode(errors='replace')[-300:]}{ran.stderr.decode()}")
    words, outputs = ran.stdout, int(values["output"]["shape"][1])
    pixels, floats = spec.size * spec.size * 3, outputs * computes
    body = words[len(words) - len(photos) * (2 * pixels + 4 * floats) :]  # after the line about the golden image
    rows = np.frombuffer(body, np.uint8).reshape(len(photos), -1)
    found, own = (rows[:, i * pixels :][:, :pixels].reshape(-1, spec.size, spec.size, 3) for i in (0, 1))
    expected = np.stack([prepare(decode(photo), spec) for photo in photos])
    predict = open_format(target).load(artifact)
    wanted = predict(expected)
    answers = np.ascontiguousarray(rows[:, 2 * pixels :]).view(">f4").astype(np.float32) if computes else predict(found)
    gap = np.abs(found.astype(int) - expected).max()
    decoder = np.abs(own.astype(int) - expected).mean()
    same = int((answers.argmax(1) == wanted.argmax(1)).sum())
    return (
        f"| {artifact.name} | {values['output']['name']} | {spec.size} | {'Java' if computes else 'Python'} | {gap} "
        f"| {np.abs(answers - wanted).max():.1g} | {same} of {len(photos)} | {decoder:.2f} of 255 |"
    )


def lines_for_java(text: str) -> str:
    """The lines of the comment that decode a photo on the JVM."""
    after = text.partition(" * JVM:")[2].partition(" */")[0]
    return after.replace("\n *", "\n").replace("ImageIO.", "javax.imageio.ImageIO.")


def raw(photo: Path, folder: Path) -> Path:
    """Width and height as 4 bytes each, then the pixels as Pillow decodes them, not turned, RGBA."""
    with Image.open(photo) as image:
        rgba = image.convert("RGBA")
    path = folder / f"{photo.parent.name}-{photo.name}.rgba"
    path.write_bytes(np.array(rgba.size, "<u4").tobytes() + rgba.tobytes())
    return path


if __name__ == "__main__":
    main()
