"""What a run that is deployed again keeps of the options of earlier starts, in words for a terminal."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from softedge.bench.base import split_specs
from softedge.config import Check, Recipe
from softedge.errors import UserError, quoted
from softedge.records import Result
from softedge.run import Run, read_json, write_json
from softedge.stages.fitting import Limits
from softedge.stages.opening import ASKED, PLAN, reopen

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


def deployed(run: Run) -> bool:
    """Whether there was an earlier start."""
    return (run.root / ASKED).is_file()


def keep(run: Run, options: Mapping[str, str]) -> None:
    """Leave the options for the next start."""
    write_json(run.root / ASKED, dict(options))


def carried(run: Run, set: Sequence[str], limits: Limits, given: Mapping[str, str]) -> tuple[list[str], Limits]:
    """``set`` and ``limits`` for a new plan of a run, with what earlier starts were given and this one was not.

    given: the options of this start, as of ``asked``.
    """
    more = {option: value for option, value in before(run).items() if option not in given}
    sets = [f"{option.removeprefix('--set ')}={value}" for option, value in more.items() if option.startswith("--set ")]
    lists = {name: more[f"--{name}"].split(",") for name in ("targets", "precisions") if f"--{name}" in more}
    sets += [f"export.{name}={json.dumps(values)}" for name, values in lists.items()]
    max_ms, max_mb = (float(more[option]) if option in more else None for option in _SIZING.values())
    limits = replace(limits, max_ms=limits.max_ms or max_ms, max_mb=limits.max_mb or max_mb)
    if "--devices" in more:
        devices = split_specs(more["--devices"])
        sets.append(f"bench.devices={json.dumps(devices)}")
        limits = replace(limits, device=devices[0])
    check, planned = reopen(run.root)[1].check, {"max_p90": limits.max_ms, "max_size": limits.max_mb}
    for name, default in _defaults().items():
        value = getattr(check, name)
        if value != default and planned.get(name) is None and f"--set check.{name}" not in more:
            sets.append(f"check.{name}={value}")
    if "--set check.optional" not in more:
        sets.append(f"check.optional={json.dumps(check.optional)}")
    return [*sets, *set], limits


def lines(run: Run, check: Check, given: Mapping[str, str], anew: bool = False) -> Iterator[str]:
    """What is kept though it was not given now.  given: the options and limits of this start, as of ``asked``.

    anew: the run is planned anew.
    """
    below = {f"--set check.{name}" for name in _REFUSES}  # limits have lines of their own
    others = {option: value for option, value in before(run).items() if option not in {*given, *below}}
    if others:
        words = ", ".join(f"{o}={v}" if o.startswith("--set ") else f"{o} {v}" for o, v in others.items())
        how = "is planned anew" if anew else "resumes as it was begun"
        yield f"{run.root} {how}, with {words}; to start {'without' if anew else 'anew'}, give another --out"
    for name, default in _defaults().items():
        value, option = getattr(check, name), _option(name)
        if value != default and given.keys().isdisjoint((option, f"--set check.{name}", _SIZING.get(name, option))):
            what = "removes it" if default == 0 else "is the default"
            yield f"limit kept from an earlier start: {option} {value} ({option} {default:g} {what})"


def repeated(run: Run, recipe: Recipe) -> Iterator[str]:
    """A line for a run whose plan ``--force`` repeats: what it says, and how to get another."""
    minutes = read_json(run.root / PLAN).get("minutes") if (run.root / PLAN).is_file() else None
    if isinstance(minutes, int | float):
        epochs = {name: getattr(recipe, name).epochs for name in ("ssl", "finetune")}
        trained = " and ".join(f"{name}.epochs={count}" for name, count in epochs.items() if count)
        yield (
            f"--force repeats the plan of {run.root}: {recipe.backbone.name} at {recipe.data.size} pixels"
            f"{f', {trained}' if trained else ''}; to plan anew, add --minutes {minutes:g}"
        )


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
                f"the run keeps {option} {value}; {what}: softedge deploy --out {quoted(run.root)} {option} {default:g}"
            )
    return found


def _defaults() -> dict[str, float]:
    return {name: getattr(Check(), name) for name in _REFUSES}


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
