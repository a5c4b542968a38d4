"""What a file format of detectors is."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softedge.run import sha256

Uint8 = NDArray[np.uint8]
Outputs = dict[str, NDArray[Any]]
Runner = Callable[[Uint8], Outputs]
"""One picture (H, W, 3) -> boxes, scores, labels and, where the detector has them, masks."""
Pictures = Callable[[], Iterator[Uint8]]
"""Calibration pictures (H, W, 3), decoded one by one."""


class DetectorFormat(ABC):
    """A file format of detectors.

    name: that of the exported format.  file: name of the model file.  package: what runs it.
    """

    name: str
    file: str
    package: str

    @abstractmethod
    def convert(
        self, traced: Path, out: Path, labels: tuple[str, ...], precision: str, calibration: Pictures | None
    ) -> Path:
        """Write ``out``/``file`` from a traced float32 ONNX file, which may be moved; calibration: for int8 only."""

    @abstractmethod
    def run(self, path: Path, threads: int = 1) -> Runner:
        """The file read back from disk."""

    def files(self, path: Path) -> list[Path]:
        """All files of the model, the main one first."""
        return [path]


def hash_files(files: list[Path]) -> str:
    """One hash of a model, weights included."""
    if len(files) == 1:
        return sha256(files[0])
    return hashlib.sha256("".join(sha256(file) for file in files).encode()).hexdigest()
