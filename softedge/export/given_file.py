"""Model files that somebody else exported: what a classifier's input and output look like, and its preprocessing.

The same for every format: it gives names, dimensions and types of its tensors, and its own words about the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from softedge.errors import UserError
from softedge.eval.measures import PRESENT
from softedge.export.base import Float32, Uint8
from softedge.progress import say
from softedge.records import InputSpec, Output

GREY = (19595, 38470, 7471)  # parts of 65,536 of red, green and blue (ITU-R 601), as in Pillow
_LUMA = "0.299 R + 0.587 G + 0.114 B, rounded"
HARD = 6  # logits between the two ends of a hard sigmoid, as in MobileNetV3; of others it is a scale
_SCORES = ("float", "f16", "bf16", "f64")  # what scores may be: OpenVINO converts its own kinds of float
_FEATURES = ("features", "embedding", "embeddings", "image_embeds", "pooler_output", "last_hidden_state")
Kind = Literal["float", "f16", "uint8"]


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

    output: what it gives; "scores" where it ends in a sigmoid.  logits: whether probabilities need a softmax, scores a
    sigmoid.  map: whether it gives a map of one pixel, [N, C, 1, 1] or [N, 1, 1, C], in place of a row.
    hard: whether its scores are of a hard sigmoid, 0 or 1 beyond some logit.  channels: 3, or 1 for grey images.
    temperature: what its logits are divided by: no answer changes, and noise relative to the signal neither.
    bgr: whether its channels are blue, green, red; mean and std are then in that order, too.
    """

    size: int
    planes: bool
    kind: Kind
    output: Output
    logits: bool
    map: bool = False
    hard: bool = False
    channels: int = 3
    temperature: float = 1.0
    bgr: bool = False

    def fed(self, images: Uint8, spec: InputSpec) -> NDArray[Any]:
        """What the file takes for uint8 RGB (N, S, S, 3): grey where it takes one channel, normalised where it takes
        floats, planes where it does."""
        values: NDArray[Any] = images if self.channels == 3 else grey(images)
        values = values[..., ::-1] if self.bgr else values
        if self.kind != "uint8":
            mean, std = (
                np.array(each[: self.channels], np.float32) * np.float32(255) for each in (spec.mean, spec.std)
            )
            values = ((values.astype(np.float32) - mean) / std).astype(np.float16 if self.kind == "f16" else np.float32)
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2)) if self.planes else values

    def about(self, origin: str) -> dict[str, Any]:
        """For the result: what the answers are, who says how images are prepared, and how where those are not RGB."""
        grey = {"channels": 1, "grey": _LUMA} if self.channels == 1 else {}
        order = {"channel_order": "BGR"} if self.bgr else {}
        return {"output": self.output, "preprocessing_from": origin, **grey, **order}

    def answers(self, values: Float32) -> Float32:
        """Probabilities or scores (N, C) from what the file gives."""
        values = values.reshape(len(values), -1)
        values = values / np.float32(self.temperature) if self.logits else values
        if self.output == "scores":
            # In logits a hard sigmoid is not 0 or 1 but -3 or 3: between 0 and 1e-6 lies no noise that matters.
            logits = np.float32(HARD) * (values - np.float32(PRESENT)) if self.hard else values
            return (1 / (1 + np.exp(-logits))).astype(np.float32) if self.hard or self.logits else values
        if not self.logits:
            return values
        shares = np.exp(values - values.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)


def _refuse_other_kinds(path: Path, outputs: Sequence[Tensor]) -> None:
    """UserError for detectors, and for networks whose one row is no row of class scores, by the names of outputs."""
    names = [tensor.name for tensor in outputs]
    if len(names) > 1 and any("boxes" in name.lower() for name in names):
        raise UserError(f"{path} is a detector (its outputs are {', '.join(names)}); quantize takes classifiers")
    if len(names) == 1 and names[0].lower() in _FEATURES:
        raise UserError(
            f"{path} returns features (its output is '{names[0]}'), which have no answers to judge int8 by; give a "
            "file with its classifier, or the weights to softedge export-file"
        )


def grey(images: Uint8) -> Uint8:
    """(N, S, S, 1) of RGB (N, S, S, 3), as Pillow converts to "L"."""
    levels: Uint8 = ((images.astype(np.int32) @ np.array(GREY, np.int32) + 32768) >> 16).astype(np.uint8)
    return levels[..., None]


def interface(
    path: Path,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    ends_in: str,
    size: int | None,
    activation: str | None = None,
    usual: int | None = None,
    bgr: bool = False,
) -> Interface:
    """Raises UserError for anything but one image in and one row of scores out.

    ends_in: "softmax", "sigmoid", "hardsigmoid" or else.  size: what the user says, where the file takes images of any
    size; usual: what stands beside it about that.  activation: what the user says that it was trained with.
    bgr: whether the user says that channels are blue, green, red.
    """
    _refuse_other_kinds(path, outputs)
    if len(inputs) != 1:
        names = ", ".join(tensor.name for tensor in inputs)
        raise UserError(f"{path} has {len(inputs)} inputs ({names}); an image classifier has one")
    (image,) = inputs
    dims = image.dims
    channels = next((count for count in (3, 1) if len(dims) == 4 and count in (dims[1], dims[3])), 0)
    if not channels or image.kind not in get_args(Kind):
        what = "" if image.kind in get_args(Kind) else f", {image.kind}"
        raise UserError(
            f"the input of {path} is {image}{what}; an image is [N, 3, H, W] or [N, H, W, 3], 1 in place of 3 for grey "
            "ones, float or uint8"
        )
    if dims[0] > 1:
        raise UserError(f"{path} takes {dims[0]} images at once; export it again for one or any number (dynamic batch)")
    planes = dims[1] == channels
    height, width = dims[2:] if planes else dims[1:3]
    sides = {side for side in (height, width, size) if side} or {side for side in (usual,) if side}
    if not sides:
        raise UserError(f"{path} takes images of any size; say which with --size, such as --size 224")
    if len(sides) > 1:
        raise UserError(
            f"{path} takes images of {height or '?'} x {width or '?'} pixels; --size must be that, and both sides equal"
        )
    if channels == 1:
        if bgr:
            raise UserError(f"{path} takes images of one channel, grey ones; leave out --bgr")
        say(f"{path.name} takes grey images: those of the folder are converted ({_LUMA})")
    if len(outputs) != 1:
        names = ", ".join(f"{tensor.name} {tensor}" for tensor in outputs)
        raise UserError(
            f"{path} has {len(outputs)} outputs ({names}); a classifier has one, a row of class scores: export it "
            "again with that one alone"
        )
    (scores,) = outputs
    if scores.kind not in _SCORES:
        raise UserError(f"the output of {path} is {scores.kind}; a classifier gives scores as float (fp32)")
    gives: Output = "scores" if "sigmoid" in (activation, ends_in.removeprefix("hard")) else "probabilities"
    classes = [size for size in scores.dims[1:] if size != 1] or [1]
    if len(scores.dims) not in (2, 4) or len(classes) > 1 or (classes == [1] and gives == "probabilities"):
        raise UserError(
            f"the output of {path} is {scores}; a classifier gives [N, classes] or [N, classes, 1, 1], two or more, or "
            "ends in a sigmoid (--activation sigmoid where that is not in the file)"
        )
    kind: Kind = image.kind  # type: ignore[assignment]
    logits = ends_in not in ("sigmoid", "hardsigmoid", "softmax")
    return Interface(sides.pop(), planes, kind, gives, logits, map=len(scores.dims) == 4, channels=channels, bgr=bgr)
