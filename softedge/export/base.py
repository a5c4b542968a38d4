"""What an export format is: the whole contract. Adding one is a folder beside this file and a line in the registry.

A format converts a network, reads its own file back, names every file that belongs to a model, says what computes it,
counts its integer operations, and offers candidates to the int8 search (``quantize/``). Nothing outside a format's
folder knows its name.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from softedge import registry
from softedge.errors import UserError, did_you_mean
from softedge.export.tolerance import BY_PRECISION, Tolerance
from softedge.records import Artifact, InputSpec, Output, Precision

if TYPE_CHECKING:  # verify loads formats on machines without torch
    from softedge.export.candidates import Candidates
    from softedge.export.deployed import Deployed

Uint8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Predictor = Callable[[Uint8], Float32]
"""uint8 RGB (N, size, size, 3) -> float32 (N, classes) probabilities or scores, or (N, features)."""

INTEGERS_OF = "integers_of"
"""In an option's details, a file and the notes of its contract: the artifact of another format that made them."""


@dataclass(frozen=True)
class GivenModel:
    """A float classifier in a file that somebody else exported.

    predict: its ``output`` (N, C): probabilities, softmax added where the file has none, or the scores of a file that
    ends in a sigmoid.  candidates: calibration images, uint8 (N, S, S, 3) -> its int8 candidates, which write files
    with the input and the outputs of the given one.  read_back: such a file -> its output, as ``predict``.
    about: what else is known of the file, for the result.  files: those beside it that it was read from.
    precision: of its weights, "fp32" or "fp16".  at_temperature: the same with its logits divided by a number, for
    answers that differ where those are all 0 and 1; None where it gives no logits.  names: its class names, and the
    entry in the file that has them.
    """

    spec: InputSpec
    predict: Predictor
    candidates: Callable[[Uint8], Candidates]
    output: Output
    read_back: Callable[[Path], Predictor]
    about: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    precision: str = "fp32"
    at_temperature: Callable[[float], GivenModel] | None = None
    names: tuple[tuple[str, ...], str] | None = None


@dataclass(frozen=True)
class Environment:
    """What a format needs that cannot stand beside softedge's own packages; ``softedge setup FORMAT`` makes it.

    folder: where it is, or will be.  size: on disk, in words.  complete: whether it is there.  make: makes it in
    ``folder``, also over one that was left half made; UserError with the reason when it cannot be made.
    python: its interpreter, where that runs the format's files as well: it has ``board_packages``.
    """

    folder: Path
    size: str
    complete: bool
    make: Callable[[], object]
    python: Path | None = None


class Format(ABC):
    """A format that models are exported to.  Made by ``open_format``.

    name: as typed by the user, no hyphens.  title: as people write it.  suffix: of the model's main file.
    precisions: what it can make, by the name a user types; ``Precision.named`` must agree about what is int8.
    packages: distributions that make and run its files; their versions are recorded with every result.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    suffix: ClassVar[str]
    precisions: ClassVar[Mapping[str, Precision]]
    packages: ClassVar[tuple[str, ...]] = ()
    searchable: ClassVar[tuple[str, ...]] = ()
    """The precisions for which ``candidates`` offers a choice."""
    strict: ClassVar[str] = ""
    """The precision whose files hold integers alone, for ``export.strict``; empty: this format has none."""

    integers_from: ClassVar[tuple[str, ...]] = ()
    """Suffixes of other formats' int8 files whose integers are candidates here: they are exported first."""
    others: Sequence[Artifact] = ()
    """Such files of the network that is converted; set by the export for each run."""

    seconds: ClassVar[Mapping[str, float]] = {}
    """Typical ones that a file takes, by precision, for plans: of an EfficientNet-Lite0 at 64 pixels on two busy cores,
    2026-11-30.  Of others: ``typical_seconds``."""

    # What a board needs to run it: import name -> what pip calls it.  The options that a device's address may give its
    # runtime (``local:provider=...``).  Why only special devices run it, and which; empty: any machine with Python.
    # Patterns of the files in those packages that suffice for that; empty: all of them.
    board_packages: ClassVar[Mapping[str, str]] = {}
    board_parts: ClassVar[tuple[str, ...]] = ()
    phone_parts: ClassVar[tuple[str, ...]] = ()
    """Such patterns for a phone, which has no Python; empty: ``board_parts``."""
    board_options: ClassVar[tuple[str, ...]] = ()
    special_device: ClassVar[str] = ""

    saturation_advice: ClassVar[str] = ""
    """What to do about int8 kernels whose sums saturate on x86 without VNNI; empty: this format has no such kernels."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "-" in getattr(cls, "name", ""):
            raise TypeError(f"{cls.__qualname__}.name is '{cls.name}': a hyphen separates format and precision")
        for name, bits in getattr(cls, "precisions", {}).items():
            if Precision.named(name).is_int8 != bits.is_int8:
                raise TypeError(f"{cls.__qualname__}.precisions: '{name}' is a misleading name for {bits}")

    def __init__(self, batch: str = "dynamic", safe: bool = False, float_prefix: str = ""):
        """batch: "dynamic" or "one"; a format that holds one image ignores it.

        safe: int8 kernels whose sums cannot saturate on x86 without VNNI; a format without such kernels ignores it.
        float_prefix: the layer at which the integer part begins, for formats that choose it by speed; empty: chosen.
        """
        self.batch, self.safe, self.float_prefix = batch, safe, float_prefix

    @abstractmethod
    def missing(self) -> str | None:
        """Why this format cannot be used here, in one line that says what to install; None when it can."""

    @abstractmethod
    def convert(self, deployed: Deployed, precision: str, calibration: Uint8, out: Path) -> Artifact:
        """Write ``model{suffix}`` into the existing folder ``out`` and describe it.

        calibration: uint8 (N, size, size, 3); may be empty for a precision that ``needs_calibration`` says no of.
        Prints nothing.  Raises UserError for a precision or an operator that the format cannot express.
        """

    @abstractmethod
    def load(self, artifact: Artifact) -> Predictor:
        """The file read back from disk and run by the format's own runtime (no torch)."""

    @abstractmethod
    def runtime(self) -> str:
        """What ``load`` computes with, with its version: "onnxruntime 1.31.1"."""

    def bits(self, precision: str) -> Precision:
        """Bits of a precision by name, also of a searched file (``int8-search``); UserError for one it cannot make."""
        bits = self.precisions.get(precision) or self.precisions.get(precision.removesuffix("-search"))
        if bits is None:
            raise UserError(f"{self.title} has no precision '{precision}'; known: {', '.join(self.precisions)}")
        return bits

    def typical_seconds(self, precision: str) -> float:
        """``seconds`` of a precision; where nobody measured it, those of a file with weights of as many bits."""
        like = "int8" if Precision.named(precision).is_int8 else "fp32"
        return self.seconds.get(precision, self.seconds.get(like, {"int8": 40.0}.get(like, 10.0)))

    def tolerance(self, precision: str) -> Tolerance:
        """How far the outputs of its files may be from those recorded, and from PyTorch's; below 16 bits there is one
        for all.  For a format whose runtime computes otherwise to override."""
        return BY_PRECISION.get(self.bits(precision).name, BY_PRECISION["int8"])

    def integers_alone(self, artifact: Artifact) -> bool:
        """Whether a file is of the ``strict`` precision, found by the search or not."""
        return bool(self.strict) and artifact.precision.removesuffix("-search") == self.strict

    def calibrates(self, precision: str) -> bool:
        """Whether ``convert`` looks at calibration images: otherwise it gets none, and no user is warned of theirs."""
        return self.bits(precision).is_int8

    def needs_calibration(self, precision: str) -> bool:
        """Whether ``convert`` cannot do without: integer activations have ranges, weights alone have nearest steps."""
        return self.calibrates(precision) and self.bits(precision).activations < 32

    def environment(self) -> Environment | None:
        """The environment of its own that ``missing`` asks for; None: pip installs all that it needs."""
        return None

    def files(self, path: Path) -> list[Path]:
        """All files of the model whose main file is ``path``: they are hashed, checked and sent together."""
        return [path]

    def without_timing(self) -> Format:
        """The same format making no choice by timing here: for many int8 files whose accuracy alone is wanted."""
        return self

    def as_before(self, notes: Mapping[str, Any]) -> Format:
        """The same format, with the choices by timing that ``notes`` of an earlier file of the network record.

        So that a file that is made again, here or on another machine, has the same bits.
        """
        return self

    def candidates(
        self, deployed: Deployed, precision: str, calibration: Uint8, like: Artifact | None = None
    ) -> Candidates | None:
        """What can be chosen among for ``precision``; None: ``convert`` makes the only file there is.

        like: an exported file of the same network whose part in float is kept instead of being chosen again.  Its
        options are judged on other images, so that all of ``calibration`` may set their ranges.
        """
        return None

    def given(self, path: Path, asked: Mapping[str, Any]) -> GivenModel | None:
        """A float file of this format that somebody else exported; None: this format quantizes no such files.

        asked: size, mean, std, interpolation, crop, where the user gives them.  Raises UserError for a file that is
        not a float image classifier, or whose preprocessing is unknown.
        """
        return None

    def integer_operations(self, artifact: Artifact) -> dict[str, int]:
        """Convolutions and linear layers by arithmetic, counted from the file; empty where unknown.

        conv, linear: weights and activations in 8 bits.  conv_weights, linear_weights: 8-bit weights, float arithmetic.
        conv_float, linear_float: neither.
        """
        return {}

    def notes(self, artifact: Artifact) -> dict[str, Any]:
        """What was decided while the file was made, read back from it, for contract.json."""
        return {}

    def metadata(self, artifact: Artifact) -> Mapping[str, Any]:
        """What the file says of itself, where it does: ``labels``, a list, and ``input``, as ``InputSpec.to_dict``.

        ValueError where that is damaged, UserError where this machine cannot read the file.
        """
        return {}

    def integer_edges(self, artifact: Artifact) -> Mapping[str, Mapping[str, Any]]:
        """More about the input and the output in contract.json, where a file holds them in integers or takes no array.

        {"input": {"scale", "zero_point"}, "output": {"tensor", "dtype", "scale", "zero_point"}}: a value is
        scale * (q - zero_point).  "activation_by": "the app" of logits; "given_as" of no array.  ``load`` does it all.
        """
        return {}

    def layer_outputs(self, artifact: Artifact, images: Uint8, deployed: Deployed) -> Iterator[tuple[str, Float32]]:
        """Outputs of the convolutions and linear layers in the file, by module name, for ``parity.first_departure``.

        Nothing when the format cannot look inside its files.
        """
        return iter(())

    def snippets(self) -> list[Path]:
        """Templates of ready code: files ``run.py.txt``, ``run.cpp`` ... in ``snippets/`` of the format's folder."""
        folder = self._beside("snippets")
        return sorted(folder.glob("run.*")) if folder else []

    def board_runtime(self) -> Path | None:
        """A Python 3.8 file without softedge imports that runs this format on a device; None: devices cannot run it.

        It defines ``class Runtime`` as ``bench/board/worker.py`` describes it, and travels to the board.
        """
        return self._beside("board_runtime.py")

    def board_source(self) -> tuple[Path, tuple[str, ...]] | None:
        """A C++ file whose library its ``Runtime`` needs where the runtime was sent, and flags of the compiler.

        The library lies beside ``Runtime`` by the name in ``settings["native"]``.  {wheel} in a flag: where the wheel
        of the one in ``board_packages`` is unpacked.  None: it needs none.
        """
        return None

    def phone_source(self) -> tuple[Path, tuple[str, ...]] | None:
        """The like for a phone: the interface of ``bench/android/model.c``.  None: phones do not run it by one."""
        return self.board_source()

    def board_settings(self, artifact: Artifact, options: Mapping[str, str]) -> dict[str, Any]:
        """What its ``Runtime`` on a board is given, as JSON values.  options: those of the device's address."""
        return {}

    def _beside(self, name: str) -> Path | None:
        """A file or folder beside the code of the format, or of a format that it derives from."""
        import inspect

        kinds = [kind for kind in type(self).__mro__ if issubclass(kind, Format) and kind is not Format]
        places = [Path(inspect.getfile(kind)).parent / name for kind in kinds]
        return next((place for place in places if place.exists()), None)


def open_format(name: str, batch: str = "dynamic", safe: bool = False, float_prefix: str = "") -> Format:
    """The format of that name, softedge's own or one of an installed package; UserError when there is none."""
    kind: type[Format] = registry.lookup(registry.FORMATS, name, "target")
    return kind(batch=batch, safe=safe, float_prefix=float_prefix) if float_prefix else kind(batch=batch, safe=safe)


def combinations(
    names: Iterable[str],
    precisions: Iterable[str],
    batch: str = "dynamic",
    safe: bool = False,
    float_prefix: str = "",
    named: bool = True,
) -> list[tuple[Format, str]]:
    """Every format with every precision; UserError for a format that is unknown, or a precision that none of them has.

    A precision that some of them have is left to the others to refuse: the reason stands in their row of the table.
    named: False for precisions by default; each format gets those that it has, UserError where it has none of them.
    """
    asked = tuple(precisions)
    formats = [open_format(name, batch, safe, float_prefix) for name in names]
    if not named:
        for entry in formats:
            if asked and not set(asked) & set(entry.precisions):
                own = ", ".join(entry.precisions)
                raise UserError(f"{entry.title} has none of {', '.join(asked)}; choose with --precisions: {own}")
        return [(entry, precision) for entry in formats for precision in asked if precision in entry.precisions]
    known = list(dict.fromkeys(name for entry in formats for name in entry.precisions))
    for precision in asked:
        if formats and precision not in known:
            titles = ", ".join(entry.title for entry in formats)
            raise UserError(f"export.precisions: no '{precision}' in {titles}{did_you_mean(precision, known)}")
    return [(entry, precision) for entry in formats for precision in asked]


def needs(what: str, *packages: str, extra: str = "") -> str | None:
    """The line to print when ``packages`` (import names) that ``what`` needs are absent, or None when they are here."""
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    if not absent:
        return None
    install = f"'softedge[{extra}]'" if extra else " ".join(absent)
    return f"{what} needs {' and '.join(absent)}; install it with: pip install {install}"
