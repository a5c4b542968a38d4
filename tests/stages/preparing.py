"""Runs whose data stage is done: what its tests share."""

from __future__ import annotations

from pathlib import Path

from softedge import config
from softedge.data import load
from softedge.data.images import Data
from softedge.run import Run
from softedge.stages.data import prepare


def recipe(**data: object) -> config.Recipe:
    return config.build({"data": {"size": 32, **data}})


def prepared(tmp_path: Path, source: Path | str, **data: object) -> Data:
    run = Run(tmp_path / "run")
    prepare(run, recipe(**data), str(source), force=True)
    return load(run)


def contents(images: object) -> set[bytes]:
    return {images.path(i).read_bytes() for i in range(len(images))}  # type: ignore[attr-defined]
