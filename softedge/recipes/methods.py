"""``[ssl]`` of a recipe belongs to the method that it names, which brings the keys of the section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import PydanticCustomError

from softedge import registry
from softedge.recipes.files import Merged, RecipeFile
from softedge.recipes.section import Section

DEFAULT = "light-moco"  # where a recipe does not name one


def settings_of(method: str) -> type[Section]:
    """The class of a method's ``[ssl]`` section; imports the method."""
    settings: type[Section] = registry.lookup(registry.METHODS, method, "method").Settings
    return settings


def method_settings(value: Any) -> Any:
    """``[ssl]`` as plain values -> the settings of the method that it names."""
    if not isinstance(value, Mapping):
        return value
    name = value.get("method", DEFAULT)
    if not known(name):
        raise PydanticCustomError("unknown_method", "unknown method", {"method": name})
    return settings_of(name).model_validate(value)


def known(name: object) -> bool:
    """Whether there is a method of this name; a recipe may hold anything in its place."""
    return isinstance(name, str) and name in registry.METHODS


def leave_to_others(merged: Merged, layers: Sequence[RecipeFile]) -> None:
    """Where ``layers`` change the method: drop what was said for the one before and the new one does not know."""
    before = merged.values.get("ssl", {})
    methods = [
        s["method"] for s in (layer.values.get("ssl") for layer in layers) if isinstance(s, Mapping) and "method" in s
    ]
    if not methods or not isinstance(before, dict):
        return
    old, new = before.get("method", DEFAULT), methods[-1]
    if old != new and known(old) and known(new):
        for key in settings_of(old).model_fields.keys() - settings_of(new).model_fields.keys() & before.keys():
            del before[key]
