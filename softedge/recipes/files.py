"""Recipe files and what they are based on: ``base = "moco-v2"`` and the keys that differ."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from softedge.errors import UserError, did_you_mean, need_lists
from softedge.files import expanded, read_text

CONFIGS = Path(__file__).parents[1] / "configs"
OVERRIDE = "--set"

# Keys as they were named in recipes of earlier runs, which can still be reopened.
RENAMED = {
    "check.doctor": "quantize.search",
    "check.tune_steps": "quantize.tune_steps",
    "check.tune_minutes": "quantize.tune_minutes",
}


@dataclass(frozen=True)
class RecipeFile:
    """Plain values (parsed TOML) and where they are written: a file's name or ``--set``."""

    source: str
    values: Mapping[str, Any]


@dataclass
class Merged:
    """Layers upon each other: a later one wins, key by key.  origins: "ssl.queue" -> the layer that says so."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def add(self, layer: RecipeFile) -> None:
        """Put ``layer`` on top. UserError where it expects a section and there is a value."""
        self._add(layer.values, self.values, (), layer.source)

    def _add(self, values: Mapping[str, Any], to: dict[str, Any], path: tuple[str, ...], source: str) -> None:
        for key, value in values.items():
            at = (*path, key)
            if isinstance(value, Mapping):
                inner = to.setdefault(key, {})
                if not isinstance(inner, dict):
                    raise UserError(f"'{'.'.join(at)}' is a value, not a section, but {source} sets a key in it")
                self._add(value, inner, at, source)
            else:
                to[key] = value
                self.origins[".".join(at)] = source

    def origin(self, key: str) -> str:
        """Where a key, or the first one in a section, is written."""
        inside = (source for name, source in self.origins.items() if name.startswith(f"{key}."))
        return self.origins.get(key) or next(inside, "the recipe")


def available() -> dict[str, Path]:
    """Recipes that come with the package: name -> file."""
    return {path.stem: path for path in sorted(CONFIGS.glob("*.toml"))}


def locate(name_or_path: str, folder: Path = Path()) -> Path:
    """The file of a recipe given by name, or by path (from ``folder``); UserError with a suggestion."""
    known = available()
    if not str(name_or_path).strip():
        raise UserError("the name of the recipe is empty; leave it out, or choose one that softedge recipes lists")
    if name_or_path in known:
        return known[name_or_path]
    path = folder / expanded(name_or_path)
    if path.suffix == ".toml" or path.exists():
        if path.is_file():
            return path
        raise UserError(f"recipe {name_or_path} is not a file; recipes that come with softedge: {', '.join(known)}")
    raise UserError(f"unknown recipe '{name_or_path}'{did_you_mean(name_or_path, tuple(known))}")


def layers(name_or_path: str) -> list[RecipeFile]:
    """The recipe and all it is based on, the most basic first."""
    path, chain, made = locate(name_or_path), list[Path](), list[RecipeFile]()
    while True:
        if path.resolve() in [seen.resolve() for seen in chain]:
            circle = " -> ".join(seen.name for seen in [*chain, path])
            raise UserError(f"the recipes are based on each other in a circle: {circle}; change the 'base' of one")
        chain.append(path)
        values = _read(path)
        base = values.pop("base", None)
        if made:
            values.pop("name", None)  # a recipe does not go by the name of its base
        made.insert(0, RecipeFile(path.name, values))
        if base is None:
            return made
        if not isinstance(base, str):
            raise UserError(f"base in {path.name}: expected the name or the file of a recipe, found {base!r}")
        try:
            path = locate(base, path.parent)
        except UserError as error:
            raise UserError(f"base in {path.name}: {error}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(path, "utf-8-sig"))  # Windows' Notepad writes a byte order mark
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError, RecursionError) as error:
        raise UserError(f"recipe {path} cannot be read: {error}") from error


def parse_override(text: str) -> tuple[str, Any]:
    """Split ``a.b=value``; the value is read as TOML, or as a plain string where that fails."""
    key, sign, value = text.partition("=")
    key = key.strip()
    if not sign or not key:
        raise UserError(f"--set {text}: expected KEY=VALUE, for example --set finetune.epochs=20")
    try:
        parsed = tomllib.loads(f"v = {value}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return key, value.strip()
    return key, parsed["v"] if parsed.keys() == {"v"} else value.strip()  # a line break may begin another key


def layered(overrides: Iterable[str]) -> list[RecipeFile]:
    """Every ``a.b=value`` as a layer; UserError for one text, or a mapping, in place of a list."""
    texts = overrides if isinstance(overrides, str | Mapping) else [*overrides]
    need_lists(set=texts)
    return [override(text) for text in texts]


def override(text: str) -> RecipeFile:
    """``a.b=value`` as a layer."""
    key, value = parse_override(text)
    for part in reversed(key.split(".")):
        value = {part: value}
    return RecipeFile(OVERRIDE, value)


def annotated(values: Mapping[str, Any], origins: Mapping[str, str], own: str) -> str:
    """A resolved recipe as TOML; a comment says which values the file ``own``, a base or ``--set`` gives."""
    sections = {name: value for name, value in values.items() if isinstance(value, Mapping)}
    lines = [_line(n, v, origins.get(n), own) for n, v in values.items() if n not in sections]
    for section, content in sections.items():
        lines += ["", f"[{section}]"]
        lines += [_line(n, v, origins.get(f"{section}.{n}"), own) for n, v in content.items()]
    return "\n".join(lines) + "\n"


def _line(key: str, value: Any, origin: str | None, own: str) -> str:
    if origin is None:
        return f"{key} = {_toml(value)}"
    return f"{key} = {_toml(value)}  # {'set here' if origin == own else f'from {origin}'}"


def _toml(value: Any) -> str:
    """A value on one line: ``tomli_w`` breaks arrays."""
    import tomli_w

    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return tomli_w.dumps({"v": value}).removeprefix("v = ").rstrip("\n")


def rename(values: dict[str, Any]) -> None:
    """Move values of ``RENAMED`` keys to their new places, where nothing stands yet."""
    for old, new in RENAMED.items():
        section, key = old.split(".")
        if isinstance(values.get(section), dict) and key in values[section]:
            place, name = new.split(".")
            values.setdefault(place, {}).setdefault(name, values[section].pop(key))
