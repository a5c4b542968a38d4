"""What the values are that a classifier file gives: logits, probabilities, or a score for each label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from softedge.errors import UserError
from softedge.export.base import Float32, Predictor
from softedge.export.given_file import Interface
from softedge.progress import say

_MOVED = (
    "identity",
    "reshape",
    "flatten",
    "squeeze",
    "unsqueeze",
    "expanddims",
    "transpose",
    "slice",
    "stridedslice",
)
_CONVERTED = ("cast", "convert", "convertlike")
_CLIPPED = ("clip", "clamp", "min", "max", "minimum", "maximum")
_SAME = {*_MOVED, *_CONVERTED, *_CLIPPED}  # operators, in any format's spelling, behind which scores are scores still
# Operators that say what the values before them are, and what they were trained with.
_TRAINED = {"softmax": "softmax", "logsoftmax": "softmax", "sigmoid": "sigmoid", "hardsigmoid": "sigmoid"}
_IMAGES = 8  # of noise, to see what values come out
_SUM = 0.01  # a thousand probabilities in 16 bits are rounded by less
Value = TypeVar("Value")


@dataclass(frozen=True)
class End(Generic[Value]):
    """kind: the operator that makes the values of an output, "logsoftmax".  value: its own output.

    clipped: whether the values are clipped behind it.
    """

    kind: str
    value: Value
    clipped: bool = False


def end_of(value: Value, made: Callable[[Value], tuple[str, Value | None]]) -> End[Value]:
    """Ends are found behind a reshape, a conversion or a clip as well.

    made: what makes a value, and the first operand of that.
    """
    kind, source = made(value)
    clipped = False
    while (name := kind.lower().replace("_", "")) in _SAME and source is not None:
        value, clipped = source, clipped or name in _CLIPPED
        kind, source = made(value)
    if name in ("mul", "multiply", "div", "divide") and source is not None:  # relu6(x + 3) / 6
        behind = made(source)[0].lower().replace("_", "")
        clipped = clipped or behind in (*_CLIPPED, "relu6")
    return End(name, value, clipped)


def noise(size: int) -> np.ndarray:
    """Images (8, S, S, 3) from nearly black to nearly white, uint8."""
    levels = np.random.default_rng(0).integers(0, 256, (_IMAGES, size, size, 3))
    middle = np.linspace(0, 255, _IMAGES).reshape(-1, 1, 1, 1)
    return ((levels + middle) / 2).astype(np.uint8)


def judged(
    path: Path, known: Interface, end: End[Value], values_of: Predictor, activation: str | None = None
) -> Interface:
    """``known`` with what its values are; a line says what they are taken for.

    A softmax or sigmoid may be made of other operators: probabilities are known by their sum, on images of noise.
    values_of: what the file itself gives for one image.  activation: what the user says that the classifier was trained
    with, "softmax" or "sigmoid".  UserError where that contradicts the file, and where nothing but the user can tell.
    """
    own = _TRAINED.get(end.kind, "")
    if own and activation not in (None, own):
        raise UserError(f"{path} ends in a {end.kind} itself; leave out --activation {activation}")
    known = replace(known, hard=end.kind == "hardsigmoid") if own else _seen(path, known, end, values_of, activation)
    meaning = "a score for each label by itself" if known.output == "scores" else "probabilities of one label an image"
    how = f", from its {end.kind or 'logits'}" if own else ", from its logits" if known.logits else ""
    hint = "" if own or activation or not known.logits else "; --activation sigmoid for a multi-label classifier"
    say(f"{path.name}: the answers are {meaning}{how}{hint}")
    return known


def _seen(path: Path, known: Interface, end: End[Value], values_of: Predictor, activation: str | None) -> Interface:
    values = np.concatenate([_row(values_of(image[None])) for image in noise(known.size)])
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1 + _SUM:
        return known
    if values.shape[1] > 1 and np.abs(values.sum(axis=1) - 1).max() < _SUM:
        if activation == "sigmoid":
            raise UserError(
                f"{path} gives values that sum to 1, as behind a softmax; leave out --activation {activation}"
            )
        return replace(known, output="probabilities", logits=False)
    if activation == "softmax" or (values == values[:1]).all():  # a file that answers nothing is refused elsewhere
        return known
    if activation is None and not end.clipped:
        raise UserError(
            f"{path} gives values between 0 and 1 by '{end.kind}', which may be a sigmoid in parts or logits: say "
            "--activation sigmoid if each label stands for itself, softmax if the largest value is the answer"
        )
    return replace(known, output="scores", logits=False, hard=end.clipped)


def _row(values: Float32) -> Float32:
    return values.reshape(len(values), -1).astype(np.float32)
