"""What is wrong with a recipe, in one line: the key, the file that has it, and the nearest right one."""

from __future__ import annotations

import datetime
import difflib
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import ValidationError

from softedge import registry
from softedge.errors import did_you_mean
from softedge.recipes.files import OVERRIDE


def explain(error: ValidationError, known: Sequence[str], origin: Callable[[str], str]) -> str:
    """The first mistake. known: all keys ("ssl.queue").  origin: key -> where it is written."""
    first = error.errors()[0]
    if not isinstance(first["input"], str):  # of the types of a union, the one that the value came nearest to
        first = max((e for e in error.errors() if e["loc"][:2] == first["loc"][:2]), key=lambda e: len(e["loc"]))
    # Unions add the type they tried to the place; a user never typed it.
    loc = first["loc"]
    place = [str(part) for part in loc]
    key = ".".join(p for p in place if not p.startswith(("literal[", "tuple[", "function-")))
    source = origin(".".join(place[:2])) if len(place) > 1 else origin(key)
    if first["type"] == "extra_forbidden":
        near = _sections_of(key, known) or did_you_mean(key, list(known))
        return f"unknown key '{key}' in {source}{near if 'did you mean' in near else '; see: softedge recipes show'}"
    if first["type"] == "unknown_method":
        name = str(first["ctx"]["method"])
        return f"unknown method '{name}' in {origin('ssl.method')}{did_you_mean(name, tuple(registry.METHODS))}"
    found = first["input"]
    if first["type"] == "string_type" and isinstance(found, int | float | datetime.date | datetime.time):
        entry, value = (key.rpartition(".")[0], f'["{found}"]') if isinstance(loc[-1], int) else (key, f'"{found}"')
        quoted = f"--set '{entry}={value}'" if source == OVERRIDE else f'"{found}"'  # a shell takes plain quotes away
        return f"{key} in {source}: input should be text, found {found}; write it in quotes: {quoted}"
    return f"{key} in {source}: {_expected(first['type'], first['msg'], found)}, found {_shown(found)}"


def _expected(kind: str, message: str, value: Any) -> str:
    """What should be there, in the words of a recipe; a list is shown as it may have been meant."""
    if kind == "tuple_type":
        parts = [part.strip(" []'\"") for part in value.split(",")] if isinstance(value, str) else [value]
        return f"input should be a list, such as {_shown([part for part in parts if part != ''])}"
    if kind == "too_short":
        return "input should have at least one entry"
    if kind.startswith(("model_", "dict_")):
        return "input should be a section with keys of its own"
    return message.lower()


def _shown(value: Any) -> str:
    """As TOML has it where that differs from Python; a list of texts as one would type it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_quoted, value))}]"
    return repr(value)


def _quoted(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else _shown(value)


def _sections_of(word: str, known: Sequence[str]) -> str:
    """The keys of all sections that a word without one may mean; of the trainings that most runs have, first."""
    if "." in word:
        return ""
    sections: dict[str, list[str]] = {}
    for key in known:
        section, _, name = key.rpartition(".")
        sections.setdefault(name, []).append(section)
    near = difflib.get_close_matches(word, list(sections), n=1, cutoff=0.8)
    if not near or "" in sections[near[0]]:
        return ""
    first = sorted(sections[near[0]], key=lambda section: (section != "finetune", section != "ssl"))[:3]
    *others, last = [f"'{section}.{near[0]}'" for section in first]
    return f"; did you mean {', '.join(others)} or {last}?" if others else f"; did you mean {last}?"
