"""A transfer from a run: the function behind ``softedge transfer``."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from softedge import config
from softedge.detection.settings import Transfer
from softedge.records import Result
from softedge.stages.opening import reopened, with_overrides


def transfer(
    run: str | PathLike[str],
    task: str,
    data: str | Path,
    init: str | None = None,
    set: Sequence[str] = (),
    force: bool = False,
    recipe: str | None = None,
) -> Result:
    """Train a detector (and masks on COCO) on the backbone and measure average precision.

    recipe: one whose [transfer] section stands in place of the run's (transfer-voc-c4); ``set`` still wins.
    """
    from softedge.detection.transfer import train

    with reopened(run) as (opened, resolved):
        if recipe is not None:
            resolved = resolved.model_copy(update={"transfer": config.load(recipe).plugin(Transfer)})
        return train(opened, with_overrides(opened, resolved, set), task, data, init=init, force=force)
