"""Model files that somebody else exported: what a classifier's input and output look like, and its preprocessing.

The same for every format: it gives names, dimensions and types of its tensors, and its own words about the images.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from softedge.errors import UserError
from softedge.export.base import Float32, Uint8
from softedge.records import InputSpec, Output

_CROP = 0.875
_SCORES = ("float", "f16", "bf16", "f64")  # what scores may be: OpenVINO converts its own kinds of float
_MOVED = ("identity", "reshape", "flatten", "squeeze", "unsqueeze", "expanddims", "transpose", "slice", "stridedslice")
_CHANGED = ("cast", "convert", "convertlike", "clip", "clamp", "min", "max", "minimum", "maximum")
_SAME = {*_MOVED, *_CHANGED}  # operators, as any format names them, behind which scores are scores still
Kind = Literal["float", "uint8"]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Tensor:
    """An input or output.  dims: 0 where any or unknown; () of unknown rank.  kind: its type, "float" in 32 bits."""

    name: str
    dims: tuple[int, ...]
    kind: str

    def __str__(self) -> str:
        return " x ".join(str(size or "?") for size in self.dims) or "of unknown shape"


@dataclass(frozen=True)
class Interface:
    """Of an image classifier.  size: input height = width.  planes: channels come first.  kind: of the input.

    output: what it gives; "scores" where it ends in a sigmoid.  logits: whether probabilities need a softmax.
    map: whether it gives a map of one pixel, [N, C, 1, 1] or [N, 1, 1, C], in place of a row.
    """

    size: int
    planes: bool
    kind: Kind
    output: Output
    logits: bool
    map: bool = False

    def fed(self, images: Uint8, spec: InputSpec) -> NDArray[Any]:
        """What the file takes for uint8 RGB (N, S, S, 3): normalised where it takes floats, planes where it does."""
        values: NDArray[Any] = images
        if self.kind == "float":
            mean, std = (np.asarray(channels, np.float32) * np.float32(255) for channels in (spec.mean, spec.std))
            values = (images.astype(np.float32) - mean) / std
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2)) if self.planes else values

    def answers(self, values: Float32) -> Float32:
        """Probabilities or scores (N, C) from what the file gives."""
        values = values.reshape(len(values), -1)
        if not self.logits:
            return values
        shares = np.exp(values - values.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)


def end_of(value: Value, made: Callable[[Value], tuple[str, Value | None]]) -> tuple[str, Value]:
    """The operator that makes the values of an output, in lower case, and its own output.

    "softmax" and "sigmoid" are found behind a reshape, a conversion or a clip as well.  made: what makes a value, and
    the first operand of that.
    """
    kind, source = made(value)
    while kind.lower().replace("_", "") in _SAME and source is not None:
        value = source
        kind, source = made(value)
    return kind.lower(), value


def interface(
    path: Path, inputs: Sequence[Tensor], outputs: Sequence[Tensor], ends_in: str, size: int | None
) -> Interface:
    """Raises UserError for anything but one image in and one row of scores out.

    ends_in: "softmax", "sigmoid" or else.  size: what the user says, where the file takes images of any size.
    """
    if len(inputs) != 1:
        names = ", ".join(tensor.name for tensor in inputs)
        raise UserError(f"{path} has {len(inputs)} inputs ({names}); an image classifier has one")
    (image,) = inputs
    dims = image.dims
    if len(dims) != 4 or 3 not in (dims[1], dims[3]) or image.kind not in ("float", "uint8"):
        what = "" if image.kind in ("float", "uint8") else f", {image.kind}"
        raise UserError(
            f"the input of {path} is {image}{what}; an image is [N, 3, H, W] or [N, H, W, 3], float or uint8"
        )
    if dims[0] > 1:
        raise UserError(f"{path} takes {dims[0]} images at once; export it again for one or any number (dynamic batch)")
    planes = dims[1] == 3
    height, width = dims[2:] if planes else dims[1:3]
    sides = {side for side in (height, width, size) if side}
    if not sides:
        raise UserError(f"{path} takes images of any size; say which with --size, such as --size 224")
    if len(sides) > 1:
        raise UserError(
            f"{path} takes images of {height or '?'} x {width or '?'} pixels; --size must be that, and both sides equal"
        )
    if len(outputs) != 1:
        raise UserError(f"{path} has {len(outputs)} outputs; a classifier has one, a row of class scores")
    (scores,) = outputs
    if scores.kind not in _SCORES:
        raise UserError(f"the output of {path} is {scores.kind}; a classifier gives scores as float (fp32)")
    gives: Output = "scores" if ends_in == "sigmoid" else "probabilities"
    classes = [size for size in scores.dims[1:] if size != 1] or [1]
    if len(scores.dims) not in (2, 4) or len(classes) > 1 or (classes == [1] and gives == "probabilities"):
        raise UserError(
            f"the output of {path} is {scores}; a classifier gives [N, classes] or [N, classes, 1, 1], two or more, or "
            "ends in a sigmoid"
        )
    kind: Kind = "uint8" if image.kind == "uint8" else "float"
    logits = ends_in not in ("sigmoid", "softmax")
    return Interface(sides.pop(), planes, kind, gives, logits, map=len(scores.dims) == 4)


def preprocessing(
    path: Path, interface: Interface, asked: Mapping[str, Any], own: Mapping[str, Any] | None = None
) -> InputSpec:
    """What the user says, else what the file says of itself (``own``: keys as of ``InputSpec.to_dict``, some of them).

    Raises UserError where a file takes floats and nobody says how they are normalised.
    """
    own, size, crop = own or {}, interface.size, asked.get("crop")
    mean, std = (asked.get(key) or (own.get(key) if interface.kind == "float" else None) for key in ("mean", "std"))
    if interface.kind == "uint8":
        mean, std = (0.0,) * 3, (1.0,) * 3
    elif mean is None or std is None:
        raise UserError(
            f"{path} takes float images, and does not say how they are normalised: give --mean and --std, of x / 255 "
            "(0.485,0.456,0.406 and 0.229,0.224,0.225 for most of ImageNet's weights, 0,0,0 and 1,1,1 for x / 255)"
        )
    resize = int(own["resize"]) if "resize" in own and not crop else round(size / (crop or _CROP))
    interpolation = asked.get("interpolation") or own.get("interpolation") or "bilinear"
    return InputSpec(size, resize, tuple(mean), tuple(std), interpolation)  # type: ignore[arg-type]


def own_words(path: Path, text: str | None) -> Mapping[str, Any]:
    """The preprocessing in a file that softedge wrote, from its entry ``softedge.input``; {} in others."""
    if text is None:
        return {}
    try:
        return InputSpec.from_dict(json.loads(text)).to_dict()
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f"{path}: its entry 'softedge.input' is damaged ({error}); export the file again") from error
