"""``label-issues`` and ``label-next``: which labels are probably wrong, and which images to label."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from softedge.commands.options import ForceOption, SetOption

app = typer.Typer()

SourceArgument = Annotated[
    str, typer.Argument(help="A run folder, or a folder of images.", show_default=False, metavar="RUN|DATA")
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="The run that is made of a folder of images.", show_default="runs/<data>-review"),
]


@app.command("label-issues")
def label_issues(
    source: SourceArgument, out: OutOption = None, set_: SetOption = None, force: ForceOption = False
) -> None:
    """List labels that are probably wrong, the worst first.

    Changes no image and no label. Of a folder of images a run is made, which keeps what was computed.
    """
    from softedge.commands import tables
    from softedge.stages.label_issues import doubts
    from softedge.stages.label_issues import label_issues as find

    found = find(source, out, set_ or (), force=force)
    typer.echo("\n".join([tables.label_issues(found), *doubts(source, found)]))


@app.command("label-next")
def label_next(
    source: SourceArgument,
    number: Annotated[int, typer.Option("--number", help="How many images you will label.", min=1)] = 50,
    out: OutOption = None,
    set_: SetOption = None,
    force: ForceOption = False,
) -> None:
    """List which unlabelled images to label next.

    Typical ones first, later those that a classifier is unsure of. Also works without labels.
    """
    from softedge.commands import tables
    from softedge.stages.label_next import label_next as choose

    typer.echo(tables.label_next(choose(source, number, out, set_ or (), force=force)))
