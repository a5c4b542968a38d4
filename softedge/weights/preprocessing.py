"""The preprocessing that weights were trained with. It belongs to the weights, never to the architecture's name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from softedge.errors import UserError
from softedge.progress import say
from softedge.weights import transformers_config
from softedge.weights.timm_config import UNREADABLE, config_beside, read_beside, settings_beside

Channels = tuple[float, float, float]
_BLUE_FIRST = (0.406, 0.456, 0.485)  # ImageNet's mean
_NEAR = 0.006  # Caffe's is 0.4076, 0.4579, 0.4850
Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True)
class Preprocessing:
    """mean, std: per channel, of x / 255.  crop: side of the centre crop / shorter side.  origin: who says so."""

    mean: Channels
    std: Channels
    interpolation: Interpolation
    crop: float
    size: int  # pixels the weights were trained at
    origin: str

    def __str__(self) -> str:
        return f"normalisation {_short(self.mean)}/{_short(self.std)}, {self.interpolation}, {self.origin}"


def _short(values: Channels) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else "(" + ", ".join(f"{v:g}" for v in values) + ")"


def blue_first(mean: Sequence[float]) -> bool:
    """Whether it is ImageNet's mean in the order blue, green, red."""
    return all(abs(value - known) < _NEAR for value, known in zip(mean, _BLUE_FIRST))


def warn_of_blue_first(mean: Sequence[float], file: Path | str, take: str) -> None:
    """Say so where ``mean`` is ImageNet's with blue first and images are fed red first.  take: "the network takes"."""
    if blue_first(mean):
        say(
            f"warning: the mean of {file} is ImageNet's with blue first, and images are fed red first; give --bgr if "
            f"{take} blue, green, red, else the mean as 0.485,0.456,0.406"
        )


def of_timm(name: str, origin: str = "") -> Preprocessing | None:
    """What timm records for the pretrained weights of ``name`` (with its tag, if any); None without any."""
    import timm

    settings = timm.get_pretrained_cfg(name)
    if settings is None:
        return None
    tagged = f"{settings.architecture or name}" + (f".{settings.tag}" if settings.tag else "")
    values = {
        "mean": settings.mean,
        "std": settings.std,
        "interpolation": settings.interpolation,
        "crop_pct": settings.crop_pct,
        "input_size": settings.input_size,
        "crop_mode": settings.crop_mode,
    }
    return _from_values(values, origin or f"from timm's settings of {tagged}")


def beside(path: Path, name: str | None, instead: str = "data.mean and data.std") -> Preprocessing | None:
    """The settings in ``preprocessor_config.json`` (transformers) beside a weights or model file, else in
    ``config.json`` (timm's format, or image_mean and image_std at the top).

    None where there is no such file, it says nothing about preprocessing, or it describes another architecture than
    timm's ``name``.  instead: what the user can set, for the UserError of a file that cannot be read.
    """
    config = config_beside(path, transformers_config.FILE)
    try:
        content = read_beside(path, transformers_config.FILE)
        if content is not None and (stated := transformers_config.as_of_timm(content)) is not None:
            return _from_values(stated, f"from {config}")
        config = config_beside(path)
        if (content := settings_beside(path, name)) is None:
            return None
        values = {**content, **(content.get("pretrained_cfg") or {})}
        values.setdefault("mean", values.get("image_mean"))
        values.setdefault("std", values.get("image_std"))
        if values["mean"] is None or values["std"] is None:
            return None
        return _from_values(values, f"from {config}")
    except UNREADABLE as error:
        raise UserError(
            f"{config} cannot be read as settings of weights ({error}); mend it, or remove it and set {instead}"
        ) from error


def by_name(origin: str, path: Path) -> str:
    """``origin`` without the folders that settings of ``path`` lie in: a file that is passed on does not show them."""
    return origin.replace(f"{path.parent}/", "").replace(f"{path.parent.parent}/", "")


def _from_values(values: Mapping[str, Any], origin: str) -> Preprocessing:
    mean, std = (_channels(values[key]) for key in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3:
        raise ValueError("mean and std need three values, or one for all channels")
    if not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        raise ValueError(f"mean is {list(mean)} and std {list(std)}; they are numbers, and std is positive")
    if max(mean) > 1:
        raise ValueError(f"mean is {list(mean)}, of x; it is of x / 255, between 0 and 1 (divide mean and std by 255)")
    sides = [int(side) for side in (values.get("input_size") or (3, 224, 224))[1:]]
    crop, size = float(values.get("crop_pct") or 1.0), sides[-1]
    if not 0.1 <= crop < math.inf or size < 1:
        raise ValueError(
            f"crop_pct is {crop:g} and input_size {size}; they are a share of the shorter side, and pixels"
        )
    stated = str(values.get("interpolation") or "bilinear")
    interpolation: Interpolation = "bicubic" if stated in ("bicubic", "lanczos") else "bilinear"
    for other in _done_otherwise(values, sides, stated):
        origin += f", but {other}"
    return Preprocessing(mean, std, interpolation, min(crop, 1.0), size, origin)  # type: ignore[arg-type]


def _channels(values: Any) -> tuple[float, ...]:
    """One value, as of weights for grey images, is that of all channels."""
    each = [values] if isinstance(values, int | float) else list(values)
    return tuple(float(value) for value in (each * 3 if len(each) == 1 else each))


def _done_otherwise(values: Mapping[str, Any], sides: list[int], interpolation: str) -> list[str]:
    """What the weights were evaluated with and softedge does not do."""
    shape = {"squash": "squashed to a square", "border": "padded to a square"}.get(values.get("crop_mode") or "")
    found = [f"there images were {shape}, here their centre is cropped"] if shape else []
    if len(set(sides)) > 1:
        found.append(f"there images had {sides[0]} x {sides[1]} pixels, here they are square")
    if interpolation not in ("bilinear", "bicubic", "random"):
        found.append(f"'{interpolation}' is not done here")
    return found
