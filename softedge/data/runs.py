"""Runs of softedge where images are expected: they hold copies of the images, which belong to no class."""

from __future__ import annotations

import tomllib
from pathlib import Path

from softedge.errors import UserError


def is_run(folder: Path) -> bool:
    """Whether softedge keeps a run there, finished or just begun."""
    kept = (".lock", "data/index.json")
    return (folder / "recipe.toml").is_file() and any((folder / name).is_file() for name in kept)


def refuse(folder: Path) -> None:
    """UserError for a run, naming where its images come from; folders within it, such as ``corrections/``, are none."""
    if not is_run(folder):
        return
    source = _source(folder)
    origin = f"; its images come from {source}: give that" if source else "; give the folder its images come from"
    raise UserError(f"{folder} is a softedge run, not a folder of images{origin}")


def _source(run: Path) -> str:
    """What the run's recipe says its images are; "" where it is damaged."""
    try:
        recipe = tomllib.loads((run / "recipe.toml").read_text())
    except (OSError, ValueError):
        return ""
    data = recipe.get("data")
    return str(data.get("source") or "") if isinstance(data, dict) else ""
