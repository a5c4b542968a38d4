"""``report`` and ``doctor``: what was measured, and what this machine can do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="One or more run folders.", show_default=False)],
    compare: Annotated[
        bool, typer.Option("--compare", help="Print what changed between two runs, and write nothing.")
    ] = False,
) -> None:
    """Write report.html, report.json and MODEL_CARD.md; several runs side by side, in the first one's folder."""
    from softedge.commands import tables
    from softedge.stages import report as stage

    if compare:
        typer.echo(stage.compare(runs))
        return
    page = stage.report(*runs)
    typer.echo("\n".join([str(page), "", *tables.verdict(page.parent)]))


@app.command()
def doctor() -> None:
    """Show what this machine can do, and what is missing."""
    from softedge.stages.doctor import text

    typer.echo(text())
