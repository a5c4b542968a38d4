"""The class names in ``config.json`` beside a weights or model file: timm's ``label_names``, transformers' ``id2label``
or ``label2id``."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from softedge.errors import UserError
from softedge.progress import plural
from softedge.weights.timm_config import UNREADABLE, config_beside, settings_beside

_PLACEHOLDER = re.compile(r"LABEL_\d+")  # transformers', where nobody gave a name


def class_names(path: Path, name: str | None = None) -> tuple[tuple[str, ...], Path] | None:
    """The names in the order of the classifier, and the file that says so; None where none does.

    name: timm's, where known: a ``config.json`` of another architecture says nothing.  UserError, one line, for names
    that are no list of names.
    """
    config, content = config_beside(path), None
    with contextlib.suppress(*UNREADABLE):  # who reads the preprocessing in it refuses a damaged one
        content = settings_beside(path, name)
    if content is None:
        return None
    try:
        inner = content.get("pretrained_cfg") or {}
        for key, values in (*content.items(), *inner.items()):
            if key in _READ and values and not all(map(_PLACEHOLDER.fullmatch, (names := _READ[key](values, key)))):
                return names, config
    except UNREADABLE as error:
        raise UserError(f"{config} has no class names that can be read ({error}); mend it, or remove them") from error
    return None


def refuse_other_count(names: tuple[str, ...], config: Path, path: Path, classes: int) -> None:
    """UserError where the classifier in ``path`` has another number of classes."""
    if len(names) != classes:
        count = plural(len(names), "class", "classes")
        raise UserError(
            f"{config} names {count}, and {path.name} has {classes}; give --labels to export-file, or remove the names"
        )


def in_order(values: Any, key: str) -> tuple[str, ...]:
    """A list of names, or index -> name."""
    if isinstance(values, Mapping):
        by_index = {int(index): name for index, name in values.items()}
        if sorted(by_index) != list(range(len(by_index))):
            raise ValueError(f"{key} does not number the classes from 0 to {len(by_index) - 1}")
        values = [by_index[index] for index in range(len(by_index))]
    if not isinstance(values, list) or not all(isinstance(name, str) and name.strip() for name in values):
        raise TypeError(f"{key} is no list of names")
    return tuple(name.strip() for name in values)


def _turned(values: Any, key: str) -> tuple[str, ...]:
    """Name -> index."""
    if not isinstance(values, Mapping):
        raise TypeError(f"{key} does not map names to numbers")
    return in_order({index: name for name, index in values.items()}, key)


_READ = {"label_names": in_order, "id2label": in_order, "label2id": _turned}
