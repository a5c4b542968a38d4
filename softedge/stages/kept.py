"""What a run that is deployed again keeps of the options of earlier starts, in words for a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from softedge.config import Check, Recipe
from softedge.errors import UserError
from softedge.records import Result
from softedge.run import Run, read_json, write_json
from softedge.stages.opening import ASKED, reopen

# Limit -> whether it refuses a row of ``check``.
_REFUSES: dict[str, Callable[[Mapping[str, Any], float], bool]] = {
    "min_accuracy": lambda row, limit: row.get("top1", 1.0) < limit,
    "max_drop": lambda row, limit: row.get("drop", 0.0) > limit,
    "min_agreement": lambda row, limit: row.get("agreement", 1.0) < limit,
    "max_size": lambda row, limit: bool(row.get("too_large")),
    "max_p90": lambda row, limit: "p90 " in row.get("judged_late", ""),
}
_LATE = ("min_accuracy", "max_p90")  # not judged by the stage ``check`` itself
_SIZING = {"max_p90": "--max-ms", "max_size": "--max-mb"}  # options that set a limit, too


def asked(set: Sequence[str], **options: float | Sequence[str] | None) -> dict[str, str]:
    """The options that were given: ``{"--minutes": "30", "--set finetune.epochs": "3"}``."""
    given = {f"--{name.replace('_', '-')}": _text(value) for name, value in options.items() if value is not None}
    return given | {f"--set {key}": value for key, _, value in (item.partition("=") for item in set)}


def _text(value: float | Sequence[str]) -> str:
    return f"{value:g}" if isinstance(value, int | float) else ",".join(value)


def before(run: Run) -> dict[str, str]:
    """What ``asked`` found at earlier starts; empty where that cannot be read."""
    with contextlib.suppress(UserError):
        values = read_json(run.root / ASKED)
        if isinstance(values, dict):
            return {str(key): str(value) for key, value in values.items()}
    return {}


def keep(run: Run, options: Mapping[str, str]) -> None:
    """Leave the options for the next start."""
    write_json(run.root / ASKED, dict(options))


def lines(run: Run, check: Check, given: Mapping[str, str]) -> Iterator[str]:
    """What is kept though it was not given now.  given: the options and limits of this start, as of ``asked``."""
    below = {f"--set check.{name}" for name in _REFUSES}  # limits have lines of their own
    others = {option: value for option, value in before(run).items() if option not in {*given, *below}}
    if others:
        words = ", ".join(f"{o}={v}" if o.startswith("--set ") else f"{o} {v}" for o, v in others.items())
        yield f"{run.root} resumes as it was begun, with {words}; to start anew, give another --out"
    for name, default in _defaults().items():
        value, option = getattr(check, name), _option(name)
        if value != default and given.keys().isdisjoint((option, f"--set check.{name}", _SIZING.get(name, option))):
            what = "removes it" if default == 0 else "is the default"
            yield f"limit kept from an earlier start: {option} {value} ({option} {default:g} {what})"


def notes(run: Run, checked: Result, limits: Check) -> list[str]:
    """For each limit that the run keeps and that refuses one of its files: how to get rid of it."""
    recipe: Recipe = reopen(run.root)[1]
    if recipe.export.source == "given":  # deploy is not for such runs
        return []
    refused = [row for row in checked.details.get("rows", []) if row.get("passed") is False]
    found = []
    for name, default in _defaults().items():
        value, option = getattr(recipe.check, name), _option(name)
        used = getattr(limits, name) if name in _LATE else checked.recipe.get("check", {}).get(name)
        if value != default and used == value and any(_REFUSES[name](row, value) for row in refused):
            what = "to remove it" if default == 0 else "for the default"
            found.append(
                f"the run keeps {option} {value}; {what}: softedge deploy --out {run.root} {option} {default:g}"
            )
    return found


def _defaults() -> dict[str, float]:
    return {name: getattr(Check(), name) for name in _REFUSES}


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
