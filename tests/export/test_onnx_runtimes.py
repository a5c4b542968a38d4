"""Exported ONNX files on old onnxruntimes of the package index: what ``contract.json`` and the docs say runs there."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from softedge.backbones import Classifier, build
from softedge.config import Backbone
from softedge.export.deployed import Deployed
from softedge.export.onnx.format import Onnx
from softedge.export.onnx.graph import OLDEST, OLDEST_RUNTIME
from softedge.records import Artifact, InputSpec

VERSIONS = ("1.15.1", "1.17.3", "1.18.1", "1.20.1")
PRECISIONS = ("fp32", "fp16", "int8", "w8a32", "w8a16")
SPEC = InputSpec(64, 64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
RUN = """
import sys, numpy, onnxruntime
assert onnxruntime.__version__ == sys.argv[1], onnxruntime.__version__
session = onnxruntime.InferenceSession(sys.argv[2], providers=["CPUExecutionProvider"])
numpy.save(sys.argv[4], session.run(None, {session.get_inputs()[0].name: numpy.load(sys.argv[3])})[0])
"""


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """version -> a folder with that onnxruntime, and NumPy 1, beside nothing else."""

    @functools.cache
    def installed(version: str) -> Path:
        folder = tmp_path_factory.mktemp(f"onnxruntime-{version}")
        command = [sys.executable, "-m", "pip", "install", "-q", "--only-binary", ":all:", "--target", str(folder)]
        done = subprocess.run([*command, f"onnxruntime=={version}", "numpy<2"], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"onnxruntime {version} cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
        return folder

    return installed


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Artifact, np.ndarray, np.ndarray]]:
    """precision -> a MobileNetV3 in it, two images, and its answers on the onnxruntime of this environment."""
    model = Classifier(build(Backbone(name="mobilenetv3_small_050")), ("a", "b", "c"), SPEC).eval()
    images = np.random.default_rng(0).integers(0, 256, (24, 64, 64, 3), dtype=np.uint8)

    @functools.cache
    def made(precision: str) -> tuple[Artifact, np.ndarray, np.ndarray]:
        artifact = Onnx().convert(Deployed(model, SPEC), precision, images, tmp_path_factory.mktemp(precision))
        return artifact, images[:2], Onnx().load(artifact)(images[:2])

    return made


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_files_run_on_the_runtimes_that_are_named(runtime, exported, tmp_path, precision, version) -> None:
    folder = runtime(version)
    artifact, images, expected = exported(precision)
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, "-c", RUN, version, str(artifact.path), str(tmp_path / "images.npy")]
    done = subprocess.run(
        [*command, str(tmp_path / "answers.npy")], capture_output=True, text=True, env={"PYTHONPATH": str(folder)}
    )
    oldest = OLDEST.get(precision, OLDEST_RUNTIME)
    if _numbers(version) < _numbers(oldest):
        assert "IR version" in done.stderr, done.stderr
        return
    assert not done.returncode, done.stderr
    answers = np.load(tmp_path / "answers.npy")
    assert np.isfinite(answers).all()
    # Integer kernels of other versions round a sum otherwise; a float file has nothing to round.
    assert np.abs(answers - expected).max() < (0.02 if precision in ("int8", "w8a16", "fp16") else 1e-5)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
