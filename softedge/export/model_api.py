"""What OpenVINO's Model API notes in a file about its images and answers (OTX, Geti), as ``model_info`` in OpenVINO and
ONNX files.

https://github.com/open-edge-platform/model_api: adapters/openvino_adapter.py, ``embed_preprocessing``.  There an image
comes as OpenCV reads it, blue first; ``reverse_input_channels`` turns it for a network that takes red first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from softedge.errors import UserError
from softedge.progress import say
from softedge.weights.preprocessing import blue_first

ENTRY = "model_info"
KEYS = (
    *("mean_values", "scale_values", "reverse_input_channels", "resize_type", "interpolation_mode", "labels"),
    *("embedded_processing", "orig_height", "orig_width", "input_dtype", "intensity_mode", "intensity_max_value"),
    *("multilabel", "hierarchical"),
)
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_WHITE = {"u8": 255.0, "u16": 65535.0, "i16": 32767.0, "f32": 1.0}  # what its scale_to_unit divides images by
_INTERPOLATIONS = {"LINEAR": "bilinear", "CUBIC": "bicubic"}
_OTHERWISE = {
    "standard": "squashed to a square",
    "fit_to_window": "padded to a square",
    "fit_to_window_letterbox": "padded to a square",
}
_OF_LEVELS = {"mean": (0.0,) * 3, "std": (1 / 255,) * 3}
_LEAST = 1e-3  # deviation of x / 255; that of x is never below 1


@dataclass(frozen=True)
class Noted:
    """own: how images are prepared, by the keys of ``InputSpec.to_dict``.  size: that the network was made for.

    reverses: whether images that come blue first are turned for the network; None where the file does not say.
    embedded: whether all of that is in the graph already.  multilabel: whether a sigmoid belongs behind its logits.
    """

    own: dict[str, Any] = field(default_factory=dict)
    size: int | None = None
    reverses: bool | None = None
    embedded: bool = False
    multilabel: bool = False

    def asked(self, path: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What the user says, and what the notes add to it.  UserError where they contradict each other."""
        bgr = bool(asked.get("bgr"))
        if bgr and self.reverses and not self.embedded:
            raise UserError(
                f"{path} takes red first: its entry 'reverse_input_channels' turns images that come blue first; leave "
                "out --bgr"
            )
        if self.embedded and self.reverses and not bgr:
            say(f"{path.name} takes blue first and turns it itself, by its entry 'reverse_input_channels'")
            bgr = True
        activation = asked.get("activation") or ("sigmoid" if self.multilabel else None)
        return {**asked, "bgr": bgr or None, "activation": activation}

    def warn(self, path: Path, mean: Sequence[float], channels: int, asked: Mapping[str, Any]) -> None:
        """Say so where the Model API would feed blue first, and neither the user nor the mean says which is meant."""
        known = channels == 1 or blue_first(mean) or blue_first(mean[::-1])
        if self.reverses is False and not self.embedded and not asked.get("bgr") and not known:
            say(
                f"warning: by its entry 'reverse_input_channels' the Model API gives {path.name} images as they come, "
                "blue first where OpenCV reads them, and here they are fed red first; give --bgr if the network takes "
                "blue, green, red"
            )


def noted(path: Path, notes: Mapping[str, str]) -> Noted:
    """Of the entries by their keys in the Model API.  UserError for what is not done here."""
    if _yes(notes.get("hierarchical")):
        raise UserError(f"{path} is a hierarchical classifier, with groups of classes; give one of a single group")
    mode = notes.get("intensity_mode") or "none"
    if mode not in ("none", "scale_to_unit"):
        raise UserError(f"{path} asks for intensities by '{mode}' (its entry 'intensity_mode'), which is not done here")
    embedded = _yes(notes.get("embedded_processing"))
    sides = {int(side) for key in ("orig_height", "orig_width") if (side := notes.get(key) or "").isdecimal()}
    reverses = notes.get("reverse_input_channels")
    return Noted(
        {**(_OF_LEVELS if embedded else _normalisation(notes, mode)), **_resizing(path, notes)},
        sides.pop() if len(sides) == 1 else None,
        None if reverses in (None, "", "None") else _yes(reverses),
        embedded,
        _yes(notes.get("multilabel")),
    )


def labels(notes: Mapping[str, str]) -> str:
    """Class names, each on a line: there they are one behind the other, spaces in them as "_"."""
    return "\n".join(notes.get("labels", "").split())


def _yes(text: str | None) -> bool:
    return (text or "").lower() in ("yes", "true", "1")


def _normalisation(notes: Mapping[str, str], mode: str) -> dict[str, Any]:
    """From "123.675 116.28 103.53", of x, or of shares of what is white in images of that type."""
    unit = white = _WHITE.get(notes.get("input_dtype") or "u8", 255.0)
    if mode == "scale_to_unit":
        largest = [float(text) for text in _NUMBER.findall(notes.get("intensity_max_value") or "")]
        unit = white / largest[0] if largest and largest[0] > 0 else 1.0
    own: dict[str, Any] = {}
    for entry, name in (("mean_values", "mean"), ("scale_values", "std")):
        numbers = [float(text) / unit for text in _NUMBER.findall(notes.get(entry) or "")]
        if len(numbers) in (1, 3):  # one for grey images, or for all channels
            own[name] = tuple(numbers * (3 // len(numbers)))
    valid = len(own) == 2 and all(0 <= m <= 1 for m in own["mean"]) and all(_LEAST <= s <= 1 for s in own["std"])
    return own if valid else {}


def _resizing(path: Path, notes: Mapping[str, str]) -> dict[str, Any]:
    own: dict[str, Any] = {"crop": 1.0} if notes.get("resize_type") else {}  # all that it resizes is used
    if other := _OTHERWISE.get(notes.get("resize_type") or ""):
        say(f"{path.name}: by its entry 'resize_type' images are {other}; here their centre is cropped")
    if kind := _INTERPOLATIONS.get((notes.get("interpolation_mode") or "").upper()):
        own["interpolation"] = kind
    return own
