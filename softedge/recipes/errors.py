"""What is wrong with a recipe, in one line: the key, the file that has it, and the nearest right one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import ValidationError

from softedge import registry
from softedge.errors import did_you_mean


def explain(error: ValidationError, known: Sequence[str], origin: Callable[[str], str]) -> str:
    """The first mistake. known: all keys ("ssl.queue").  origin: key -> where it is written."""
    first = error.errors()[0]
    if not isinstance(first["input"], str):  # of the types of a union, the one that the value came nearest to
        first = max((e for e in error.errors() if e["loc"][:2] == first["loc"][:2]), key=lambda e: len(e["loc"]))
    # Unions add the type they tried to the place; a user never typed it.
    place = [str(part) for part in first["loc"]]
    key = ".".join(p for p in place if not p.startswith(("literal[", "tuple[", "function-")))
    source = origin(".".join(place[:2])) if len(place) > 1 else origin(key)
    if first["type"] == "extra_forbidden":
        near = did_you_mean(key, list(known))
        return f"unknown key '{key}' in {source}{near if 'did you mean' in near else '; see: softedge recipes show'}"
    if first["type"] == "unknown_method":
        name = str(first["ctx"]["method"])
        return f"unknown method '{name}' in {origin('ssl.method')}{did_you_mean(name, tuple(registry.METHODS))}"
    return f"{key} in {source}: {first['msg'].lower()}, found {first['input']!r}"
