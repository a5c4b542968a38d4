"""``softedge transfer``: parse, call one function, print one result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from softedge.commands.options import ForceOption, InitOption, RunFolder, SetOption

app = typer.Typer()


@app.command()
def transfer(
    run: RunFolder,
    task: Annotated[str, typer.Option("--task", help="voc or coco", show_default=False)],
    data: Annotated[Path, typer.Option("--data", help="The VOC or COCO folder.", show_default=False)],
    init: InitOption = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="Its \\[transfer] section, e.g. transfer-voc-c4.", show_default="the run's"),
    ] = None,
    set_: SetOption = None,
    force: ForceOption = False,
) -> None:
    """Train a detector on the backbone and measure AP; export, check and bench RUN/transfer/TASK like a run."""
    from softedge.commands import tables
    from softedge.detection.start import transfer as train

    typer.echo(tables.stage(train(run, task, data, init, set_ or (), force=force, recipe=recipe)))
