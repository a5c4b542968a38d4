"""The small frozen types that flow between stages. No heavy imports: the report and the board worker use them too."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

SCHEMA = 1

Output = Literal["probabilities", "scores", "features", "detections"]
"""probabilities: softmax, one label an image.  scores: sigmoid, each label for itself, present from 0.5 on."""
INTERPOLATIONS = ("bilinear", "bicubic")
SIZES = (64, 96, 128, 160, 192, 224)  # pixels a side that plans choose from
SEARCHED = "-search"  # ends the precision of a file that the int8 search made: onnx-int8 -> onnx-int8-search
REFERENCE = "reference interpreter"  # begins the name of what computes a file where its own runtime cannot
LABELLED = ("probabilities", "scores")  # outputs with a value between 0 and 1 for each label


@dataclass(frozen=True)
class InputSpec:
    """What happens to a picture on its way into the network.

    Before the model (the app does it): shorter side to ``resize`` pixels with ``interpolation``, centre crop of
    ``size`` x ``size``, uint8 RGB.  Inside the exported graph: ``(x / 255 - mean) / std`` per channel.
    """

    size: int
    resize: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"  # antialiased, as in Pillow

    def to_dict(self) -> dict[str, Any]:
        return {
            "size": self.size,
            "resize": self.resize,
            "crop": "center",
            "interpolation": self.interpolation,
            "antialias": True,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> InputSpec:
        """The inverse of ``to_dict``; ValueError, KeyError or TypeError for values that describe no picture."""
        size, resize, interpolation = values["size"], values["resize"], values["interpolation"]
        if not isinstance(size, int) or not isinstance(resize, int) or not 0 < size <= resize:
            raise ValueError(f"size is {size} and resize {resize}; they are pixels, and size is not the larger one")
        if interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation is {interpolation!r}; known: {', '.join(INTERPOLATIONS)}")
        if (values.get("crop", "center"), values.get("antialias", True)) != ("center", True):
            raise ValueError("crop is not 'center', or antialias not true")
        mean, std = (tuple(float(v) for v in values[key]) for key in ("mean", "std"))
        if len(mean) != 3 or len(std) != 3 or not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
            raise ValueError(f"mean is {list(mean)} and std {list(std)}; they are 3 numbers each, and std is positive")
        return cls(size, resize, mean, std, interpolation)


@dataclass(frozen=True)
class Precision:
    """Bits of the weights and of the activations that a model file computes with."""

    weights: int
    activations: int

    @property
    def name(self) -> str:
        """``fp32``, ``fp16``, ``int8``; ``w8a16`` where weights and activations differ."""
        if self.weights != self.activations:
            return f"w{self.weights}a{self.activations}"
        return f"{'fp' if self.weights >= 16 else 'int'}{self.weights}"

    @property
    def is_int8(self) -> bool:
        """Whether the weights are stored in 8 bits, whatever the activations are."""
        return self.weights == 8

    @classmethod
    def named(cls, name: str) -> Precision:
        """What a name says: ``fp16``, ``int8``, ``w8a8``, and variants of them such as ``int8-search``.

        Where only the name is known (tables of results).  A format may compute its ``int8`` with wider activations: its
        own table, ``Format.precisions``, has the last word on those.  ValueError for a name that says nothing.
        """
        if match := re.match(r"w(\d+)a(\d+)(?:-|$)", name):
            return cls(int(match[1]), int(match[2]))
        if match := re.match(r"(?:fp|int)(\d+)(?:-|$)", name):
            return cls(int(match[1]), int(match[1]))
        raise ValueError(
            f"'{name}' is not a precision; names are like fp16, int8 or w8a16, and variants like int8-search"
        )


@dataclass(frozen=True)
class Artifact:
    """One exported model on disk: ``path`` is its main file (a folder for ``.mlpackage``), contract.json beside it."""

    path: Path
    target: str
    precision: str
    sha256: str
    size_bytes: int
    spec: InputSpec
    labels: tuple[str, ...]
    output: Output = "probabilities"

    @property
    def name(self) -> str:
        return f"{self.target}-{self.precision}"

    @property
    def is_int8(self) -> bool:
        return Precision.named(self.precision).is_int8


@dataclass(frozen=True)
class Latency:
    """Statistics of the single-stream latency samples, in milliseconds (only ``bench/latency.py`` computes them)."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    min_ms: float
    n: int
    load_ms: float
    first_ms: float
    valid: bool
    why_not_valid: str = ""


DISTURBED = 2.0  # p90 over p50, an assumption: on an idle device the two are near each other


def disturbance(p50_ms: float | None, p90_ms: float | None) -> float | None:
    """p90 over p50 where other work disturbed the timing; None where it did not, or one of the two is missing.

    The one rule for the table of ``bench``, the report, the latency gate and the plan.
    """
    ratio = p90_ms / p50_ms if p50_ms and p90_ms else 0.0
    return ratio if ratio > DISTURBED else None


@dataclass(frozen=True)
class Outcome:
    """What a stage's work returns; ``run.perform`` turns it into a ``Result`` on disk.

    metrics: flat name -> number (the names in CONTRIBUTING.md); accuracies are fractions.
    details: anything the report needs beyond that (rows, curves, predictions), JSON-serialisable.
    skipped: cell name -> reason, for what was asked for and not measured. Never a made-up number.
    """

    metrics: dict[str, float | int | bool] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """The content of a stage's ``result.json``, written last and atomically: its presence means "done"."""

    stage: str
    name: str
    metrics: dict[str, Any]
    recipe: dict[str, Any]
    inputs: dict[str, str]
    environment: dict[str, Any]
    started: str
    seconds: float
    details: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)  # .safetensors file of the stage's folder -> sha256
    arrays: dict[str, str] = field(default_factory=dict)  # .npz file of the stage's folder -> sha256
    files: list[str] = field(default_factory=list)  # other files and folders in it, without what serves to resume
    schema: int = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        return {"schema": self.schema, **{k: v for k, v in dataclasses.asdict(self).items() if k != "schema"}}

    @classmethod
    def from_dict(cls, values: Any) -> Result:
        """The inverse of ``to_dict``; keys of later versions are left out. ValueError when it is something else."""
        if not isinstance(values, dict):
            raise ValueError("no JSON object")
        for name in ("stage", "name", "metrics", "recipe", "inputs", "environment", "started", "seconds"):
            if name not in values:
                raise ValueError(f"it has no '{name}'")
        for name in ("metrics", "recipe", "inputs", "environment", "details", "skipped", "weights", "arrays"):
            if not isinstance(values.get(name, {}), dict):
                raise ValueError(f"'{name}' is not an object")
        if not isinstance(values.get("files", []), list):
            raise ValueError("'files' is not a list")
        if not isinstance(values["seconds"], int | float) or not isinstance(values["started"], str):
            raise ValueError("'seconds' is not a number or 'started' not a string")
        for name in ("metrics", "details"):
            _check_shares(values.get(name, {}), name)
        known = {f.name for f in dataclasses.fields(cls)}
        return cls(**{k: v for k, v in values.items() if k in known})


_SHARE = re.compile(r"(.*_)?(top1|top5|agreement)")  # names of values from 0 to 1


def _check_shares(value: Any, where: str) -> None:
    """ValueError for an accuracy or an agreement, however deep, that is none.  where: for its message."""
    if isinstance(value, list):
        for number, one in enumerate(value):
            _check_shares(one, f"{where}[{number}]")
    elif isinstance(value, dict):
        for key, one in value.items():
            inside = f"{where}.{key}"
            if isinstance(one, dict | list):
                _check_shares(one, inside)
            elif _SHARE.fullmatch(key) and one is not None:
                possible = isinstance(one, int | float) and -1e-6 <= one <= 1 + 1e-6  # sums are rounded
                if not possible:
                    raise ValueError(f"{inside} is {one!r}, not a number from 0 to 1")
