"""What exporters note inside a model file about its classes and images: texts by key, as ONNX' ``metadata_props``."""

from __future__ import annotations

import ast
import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from softedge.errors import UserError
from softedge.progress import plural, say
from softedge.weights.class_names import in_order

_NAMES = ("softedge.labels", "names", "labels", "classes", "class_names", "label_names", "id2label")
_UNREADABLE = (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError)
_CLASSIFIES = "classify"  # Ultralytics' word for it; others are detect, segment, pose and obb

Names = tuple[tuple[str, ...], str]
"""Class names in the classifier's order, and the key that has them."""


def names(path: Path, notes: Mapping[str, str]) -> Names | None:
    """The first entry of class names; None where there is none.  One that cannot be read is passed over with a line.

    JSON, Python (Ultralytics: "{0: 'cat', 1: 'dog'}"), or names behind each other with commas or in lines.
    """
    for key in (key for key in _NAMES if notes.get(key, "").strip()):
        try:
            return in_order(_value(notes[key]), key), key
        except _UNREADABLE:
            say(f"{path.name}: its entry '{key}' holds no class names that can be read, and is passed over")
    return None


def of_as_many(path: Path, found: Names | None, classes: int) -> Names | None:
    """Those for another number of classes are passed over with a line: they may be of another network."""
    if found is not None and len(found[0]) != classes:
        count = plural(len(found[0]), "class", "classes")
        say(f"{path.name}: its entry '{found[1]}' names {count}, the file has {classes}: it is passed over")
        return None
    return found


def of_ultralytics(path: Path, notes: Mapping[str, str]) -> dict[str, Any]:
    """How images are prepared, from a file of Ultralytics, by the keys of ``InputSpec.to_dict``; {} of others.

    Its classifiers take x / 255 of the centre of an image whose shorter side is the input's.  UserError for detectors.
    """
    if "task" not in notes or "ultralytics" not in f"{notes.get('author')} {notes.get('description')}".lower():
        return {}
    if notes["task"] != _CLASSIFIES:
        raise UserError(f"{path} is a network of Ultralytics for the task '{notes['task']}'; give a classifier")
    own: dict[str, Any] = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "interpolation": "bilinear", "crop": 1.0}
    with contextlib.suppress(*_UNREADABLE):
        sides = _value(notes["imgsz"])
        own["size"] = int(max(sides) if isinstance(sides, list) else sides)
    return own


def _value(text: str) -> Any:
    for read in (json.loads, ast.literal_eval):
        with contextlib.suppress(*_UNREADABLE):
            value = read(text)
            return list(value) if isinstance(value, tuple) else value
    parts = text.splitlines() if "\n" in text.strip() else text.split(",")
    return [part.strip() for part in parts if part.strip()]
