"""What is wrong with a recipe, in one line: the key, the file that has it, and the nearest right one."""

from __future__ import annotations

import contextlib
import datetime
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from softedge import registry
from softedge.errors import did_you_mean, quoted
from softedge.recipes.files import OVERRIDE, Merged

_OF_LISTS = ("tuple_type", "too_short", "words_alone")  # mistakes that a list which is right explains best


def explain(error: ValidationError, merged: Merged, sections: Mapping[str, Any], recipe: type[BaseModel]) -> str:
    """The first mistake.

    merged: what ``recipe`` was validated with.  sections: its sections, name -> class.
    """
    known, origin = _keys(sections), merged.origin
    first = error.errors()[0]
    if not isinstance(first["input"], str):  # of the types of a union, the one that the value came nearest to
        first = max((e for e in error.errors() if e["loc"][:2] == first["loc"][:2]), key=lambda e: len(e["loc"]))
    # Unions add the type they tried to the place; a user never typed it.
    loc = first["loc"]
    place = [str(part) for part in loc]
    key = ".".join(p for p in place if not p.startswith(("literal[", "tuple[", "function-")))
    source = origin(".".join(place[:2])) if len(place) > 1 else origin(key)
    if first["type"] == "extra_forbidden":
        near = _sections_of(key, known) or did_you_mean(key, known)
        return f"unknown key '{key}' in {source}{near if 'did you mean' in near else '; see: softedge recipes show'}"
    if first["type"] == "unknown_method":
        name = str(first["ctx"]["method"])
        return f"unknown method '{name}' in {origin('ssl.method')}{did_you_mean(name, tuple(registry.METHODS))}"
    found = first["input"]
    if first["type"] == "string_type" and isinstance(found, int | float | datetime.date | datetime.time):
        entry, value = key, f'"{found}"'
        if len(loc) == 3:  # an entry of a list
            entry, value = ".".join(place[:2]), _shown([str(one) for one in merged.values[place[0]][place[1]]])
        written = f"--set '{entry}={value}'" if source == OVERRIDE else f'"{found}"'  # a shell takes plain quotes away
        return f"{key} in {source}: input should be text, found {found}; write it in quotes: {written}"
    line = f"{key} in {source}: {_expected(first['type'], first['msg'])}, found {_shown(found) or 'nothing'}"
    if first["type"] not in _OF_LISTS or (example := _right(key, found, merged.values, sections, recipe)) is None:
        return line
    option = f"{OVERRIDE} {quoted(f'{key}={_shown(example)}')}"  # as a shell takes it; plain quotes it takes away
    return f"{line}; for example: {option if source == OVERRIDE else _shown(example)}"


def _keys(sections: Mapping[str, Any]) -> list[str]:
    inside = [f"{name}.{key}" for name, kind in sections.items() for key in getattr(kind, "model_fields", ())]
    return sorted([*sections, *inside])


def _right(
    key: str, found: Any, values: Mapping[str, Any], sections: Mapping[str, Any], recipe: type[BaseModel]
) -> Sequence[Any] | None:
    """A list for ``key`` that ``recipe`` accepts: what ``found`` may mean, else an example of the field, its default.

    One of nothing where there is no other.
    """
    section, _, name = key.partition(".")
    if (field := getattr(sections.get(section), "model_fields", {}).get(name)) is None:
        return None
    inside = values.get(section)
    others = inside if isinstance(inside, Mapping) else {}

    def accepted(value: Any) -> bool:
        try:
            recipe.model_validate({**values, section: {**others, name: value}})
        except ValidationError as error:
            return not any(e["loc"][:2] == (section, name) for e in error.errors())
        return True

    candidates = (*_meant(found), *(field.examples or ()), field.default)
    lists = [value for value in candidates if isinstance(value, list | tuple)]
    return next((value for value in sorted(lists, key=lambda value: not value) if accepted(value)), None)


def _meant(found: Any) -> list[list[Any]]:
    """The lists that a value which is none may stand for: ``run,words``, or ``[run,words]`` after a shell."""
    if isinstance(found, list | tuple):
        return []
    parts = [part.strip(" []'\"") for part in found.split(",")] if isinstance(found, str) else [found]
    parts = [part for part in parts if part != ""]
    return [[_plain(part) for part in parts], [_shown(part) if isinstance(part, bool) else str(part) for part in parts]]


def _plain(part: Any) -> Any:
    """A number where a text is one."""
    for kind in (int, float):
        with contextlib.suppress(TypeError, ValueError):
            return kind(part) if isinstance(part, str) else part
    return part


def _expected(kind: str, message: str) -> str:
    """What should be there, in the words of a recipe."""
    if kind == "tuple_type":
        return "input should be a list"
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
    return repr(value) if value != "" else ""


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
