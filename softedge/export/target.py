"""What an export target is: three attributes, three functions. Adding one is a file here and a line in the registry."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from softedge.records import Artifact, InputSpec

if TYPE_CHECKING:  # verify.py loads targets on machines without torch
    from torch import nn

Uint8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Predictor = Callable[[Uint8], Float32]
"""uint8 RGB (N, size, size, 3) -> float32 (N, classes) probabilities, or (N, features)."""


@runtime_checkable
class Target(Protocol):
    """A format that models are exported to. Made by ``Target()`` or ``Target(batch="one")``.

    name: as typed by the user.  precisions: what ``convert`` can make.  suffix: of the model file (``.onnx``).
    """

    name: str
    precisions: tuple[str, ...]
    suffix: str

    def missing(self) -> str | None:
        """Why this target cannot be used here, in one line that says what to install; None when it can."""
        ...

    def convert(self, model: nn.Module, spec: InputSpec, precision: str, calibration: Uint8, out: Path) -> Artifact:
        """Write ``model{suffix}`` into the existing folder ``out`` and describe it.

        model: a ``Classifier`` (probabilities), a ``Backbone`` (features) or a ``Deployed``.
        calibration: uint8 (N, size, size, 3), used by int8 only; may be empty for the other precisions.
        Prints nothing.  Raises UserError for a precision or an operator that the format cannot express.
        """
        ...

    def load(self, artifact: Artifact) -> Predictor:
        """The file read back from disk and run by the target's own runtime (no torch)."""
        ...


def needs(what: str, *packages: str, extra: str = "") -> str | None:
    """The line to print when ``packages`` (import names) that ``what`` needs are absent, or None when they are here."""
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    if not absent:
        return None
    install = f"'softedge[{extra}]'" if extra else " ".join(absent)
    return f"{what} needs {' and '.join(absent)}; install it with: pip install {install}"
