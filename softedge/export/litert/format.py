"""LiteRT files (.tflite) for Android: fp32 and int8, through an environment of its own.

litert-torch 0.10 pins torch below 2.15, softedge wants 2.15: they cannot share an environment. softedge makes a second
one when asked (``softedge litert-setup``) and hands it programs of torch.export, which both versions of torch read.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from softedge.errors import UserError
from softedge.export.base import Float32, Predictor, Uint8
from softedge.export.contract import artifact_of
from softedge.export.quiet import quiet
from softedge.progress import say
from softedge.records import Artifact, InputSpec
from softedge.run import atomic_path

if TYPE_CHECKING:
    from torch import nn

PACKAGES = ("litert-torch>=0.10", "torch<2.15", "numpy>=2.0")  # tried: litert-torch 0.10.0 with torch 2.14.1
WORKER = Path(__file__).with_name("worker.py")


def environment() -> Path:
    """Where LiteRT's environment is: SOFTEDGE_LITERT, or the user's cache."""
    given = os.environ.get("SOFTEDGE_LITERT")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(given).expanduser() if given else cache / "softedge" / "litert"


def interpreter() -> Path:
    return environment() / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def setup() -> Path:
    """Make the environment (about 7 GB with the CUDA build of torch that pip picks on Linux); its folder."""
    folder = environment()
    if _complete():
        return folder
    say(f"making LiteRT's environment in {folder} (about 7 GB on Linux, some minutes)")
    try:
        subprocess.run(
            [sys.executable, "-m", "venv", "--clear", str(folder)], check=True, capture_output=True, text=True
        )
        command = [str(interpreter()), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES]
        subprocess.run(command, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["no message"])[-1][:300]
        raise UserError(f"LiteRT's environment could not be made in {folder}: {reason}") from error
    return folder


def _complete() -> bool:
    return interpreter().exists() and any(environment().glob("[Ll]ib/**/site-packages/litert_torch"))


@dataclass(frozen=True)
class LiteRt:
    """batch: taken for uniformity; a file holds one image."""

    batch: Literal["dynamic", "one"] = "one"

    name = "litert"
    precisions = ("fp32", "int8")
    suffix = ".tflite"
    searchable = ()

    def missing(self) -> str | None:
        if _complete():
            return None
        return (
            "exporting to LiteRT needs an environment of its own (its converter wants torch below 2.15); "
            "make it with: softedge litert-setup"
        )

    def runtime(self) -> str:
        """What ``load`` computes with, for the reports."""
        return "LiteRT interpreter (XNNPACK) in its own environment"

    def convert(self, model: nn.Module, spec: InputSpec, precision: str, calibration: Uint8, out: Path) -> Artifact:
        import torch

        from softedge.export.deployed import Deployed

        if precision not in self.precisions:
            raise UserError(f"LiteRT has no precision '{precision}' here; known: {', '.join(self.precisions)}")
        if precision == "int8" and not len(calibration):
            raise UserError("int8 needs calibration images, found none; give some, or leave int8 out of --precisions")
        if (why := self.missing()) is not None:
            raise UserError(why)
        deployed = Deployed.of(model, spec)
        path = out / f"model{self.suffix}"
        with tempfile.TemporaryDirectory(prefix="softedge-") as folder:
            program, images = Path(folder) / "program.pt2", Path(folder) / "calibration.npy"
            with quiet(), torch.no_grad():
                example = torch.zeros((1, spec.size, spec.size, 3), dtype=torch.uint8)
                torch.export.save(torch.export.export(deployed.folded(), (example,)), program)
            extra = []
            if precision == "int8":
                np.save(images, calibration)
                extra = [images]
            with atomic_path(path) as temporary:
                _work("convert", program, temporary, *extra)
        return artifact_of(path, self.name, precision, spec, deployed.labels, deployed.output)

    def load(self, artifact: Artifact) -> Predictor:
        if (why := self.missing()) is not None:
            raise UserError(why)

        def predict(images: Uint8) -> Float32:
            with tempfile.TemporaryDirectory(prefix="softedge-") as folder:
                given, answered = Path(folder) / "images.npy", Path(folder) / "outputs.npy"
                np.save(given, images)
                _work("run", artifact.path, given, answered)
                return np.load(answered)

        return predict


def _work(verb: str, *arguments: Path) -> None:
    """Run the worker in LiteRT's environment; UserError with its last line when it fails."""
    # -P: the worker's folder holds an onnx.py and an executorch.py, which are not the packages of that name.
    command = [str(interpreter()), "-P", str(WORKER), verb, *map(str, arguments)]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(command, capture_output=True, text=True, env=clean)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1][:300]
        raise UserError(f"LiteRT cannot {verb} {arguments[0].name}: {reason}")
