"""What an export format is: the whole contract. Adding one is a folder beside this file and a line in the registry.

A format converts a network, reads its own file back, names every file that belongs to a model, says what computes it,
counts its integer operations, and offers candidates to the int8 search (``quantize/``). Nothing outside a format's
folder knows its name.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from softedge.records import Artifact, InputSpec, Precision

if TYPE_CHECKING:  # verify loads formats on machines without torch
    from torch import nn

    from softedge.export.deployed import Deployed

Uint8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Predictor = Callable[[Uint8], Float32]
"""uint8 RGB (N, size, size, 3) -> float32 (N, classes) probabilities, or (N, features)."""


@dataclass(frozen=True)
class Option:
    """One way to quantize a network.

    step: which kind of change made it, one of ``quantize.search.STEPS``.  what: what was done, in words.
    model: the quantized model in memory, in the format's own terms; only the format looks inside.
    """

    step: str
    what: str
    model: Any
    details: Mapping[str, Any] = field(default_factory=dict)


class Candidates(ABC):
    """The int8 candidates of one network in one format: what the search (``quantize.search``) chooses among.

    Made by ``Format.candidates``.  Every method but the first three may say "not possible" by returning None.
    """

    @abstractmethod
    def calibrations(self) -> Iterator[Option]:
        """Every way to quantize the whole network, cheapest first; made lazily, one at a time."""

    @abstractmethod
    def predict(self, option: Option, images: Uint8) -> Float32:
        """Outputs (N, C) of an option for uint8 (N, S, S, 3)."""

    @abstractmethod
    def write(self, option: Option, out: Path) -> Path:
        """Write an option into ``out`` like an export; the path of its main file."""

    def layers(self) -> Sequence[str]:
        """Names of the layers with weights, in order of computation; empty when none can be kept in float."""
        return ()

    def with_float(self, option: Option, layers: Sequence[str]) -> Option | None:
        """``option`` with these layers computed in float."""
        return None

    def equalized(self, option: Option) -> Option | None:
        """``option`` after cross-layer equalization (Nagel et al. 2019, arXiv 1906.04721)."""
        return None

    def bias_corrected(self, option: Option) -> Option | None:
        """``option`` with biases corrected for the mean error of each layer."""
        return None

    def fine_tuned(self, option: Option, float_layers: Sequence[str]) -> Option | None:
        """``option`` after quantization-aware fine-tuning, with these layers in float."""
        return None

    def weights_only(self) -> Option | None:
        """8-bit weights, float arithmetic: where nothing else holds."""
        return None


class Format(ABC):
    """A format that models are exported to.  Made as ``Format(batch="one", safe=True)``.

    name: as typed by the user.  title: as people write it.  suffix: of the model's main file.
    precisions: what it can make, by the name a user types.
    batch: "dynamic" or "one"; a format that holds one image ignores it.
    safe: int8 kernels whose sums cannot saturate on x86 without VNNI; a format without such kernels ignores it.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    suffix: ClassVar[str]
    precisions: ClassVar[Mapping[str, Precision]]

    def __init__(self, batch: str = "dynamic", safe: bool = False):
        self.batch, self.safe = batch, safe

    @abstractmethod
    def missing(self) -> str | None:
        """Why this format cannot be used here, in one line that says what to install; None when it can."""

    @abstractmethod
    def convert(self, deployed: Deployed, precision: str, calibration: Uint8, out: Path) -> Artifact:
        """Write ``model{suffix}`` into the existing folder ``out`` and describe it.

        calibration: uint8 (N, size, size, 3), used by int8 only; may be empty for the other precisions.
        Prints nothing.  Raises UserError for a precision or an operator that the format cannot express.
        """

    @abstractmethod
    def load(self, artifact: Artifact) -> Predictor:
        """The file read back from disk and run by the format's own runtime (no torch)."""

    @abstractmethod
    def runtime(self) -> str:
        """What ``load`` computes with, with its version: "onnxruntime 1.31.1"."""

    def files(self, path: Path) -> list[Path]:
        """All files of the model whose main file is ``path``: they are hashed, checked and sent together."""
        return [path]

    def candidates(self, deployed: Deployed, precision: str, calibration: Uint8) -> Candidates | None:
        """What the int8 search can choose among for ``precision``; None: ``convert`` makes the only file there is."""
        return None

    def integer_operations(self, artifact: Artifact) -> dict[str, int]:
        """Convolutions and linear layers by arithmetic, counted from the file; empty where nobody can tell.

        conv, linear: weights and activations in 8 bits.  conv_weights, linear_weights: 8-bit weights, float arithmetic.
        conv_float, linear_float: neither.
        """
        return {}

    def notes(self, artifact: Artifact) -> dict[str, Any]:
        """What was decided while the file was made, read back from it, for contract.json."""
        return {}

    def layer_outputs(self, artifact: Artifact, images: Uint8, deployed: Deployed) -> Iterator[tuple[str, Float32]]:
        """Outputs of the convolutions and linear layers in the file, by module name, for ``parity.first_departure``.

        Nothing when the format cannot look inside its files.
        """
        return iter(())

    def snippets(self) -> list[Path]:
        """Templates of ready code: files ``run.py.txt``, ``run.cpp`` ... in ``snippets/`` of the format's folder."""
        import inspect

        return sorted((Path(inspect.getfile(type(self))).parent / "snippets").glob("run.*"))

    def board_runtime(self) -> Path | None:
        """A Python 3.8 file without softedge imports that runs this format on a device; None: devices cannot run it.

        It defines ``class Runtime`` as ``bench/board/worker.py`` describes it, and travels to the board.
        """
        import inspect

        path = Path(inspect.getfile(type(self))).parent / "board_runtime.py"
        return path if path.is_file() else None


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
