"""Before a run: ``data`` looks at images, ``recipes`` at settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from softedge.commands.options import RecipeOption, SetOption

app = typer.Typer()
recipes = typer.Typer(no_args_is_help=True, help="List, show and suggest recipes.")


@app.command("data")
def data_(
    source: Annotated[str, typer.Argument(help="A folder of images or a known name.", show_default=False)],
    recipe: RecipeOption = None,
    set_: SetOption = None,
    shrink: Annotated[
        Path | None, typer.Option("--shrink", help="Write copies here, large photos only as large as training needs.")
    ] = None,
) -> None:
    """What was found in a data set, what is bad, and how it would be split."""
    from softedge.data import describe_text
    from softedge.stages import data

    if shrink is not None:
        typer.echo(data.shrink(source, shrink, recipe, set_ or ()))
        return
    typer.echo(describe_text(data.inspect(source, recipe, set_ or ())))


@recipes.command("list")
def list_() -> None:
    """The recipes that come with softedge."""
    from softedge.commands import tables
    from softedge.stages.recipes import available

    typer.echo(tables.recipes(available()))


@recipes.command()
def show(
    name: Annotated[str, typer.Argument(help="A recipe's name or TOML file.", show_default=False)],
    set_: SetOption = None,
) -> None:
    """A recipe with every default spelled out, ready to be saved and edited."""
    from softedge.stages.recipes import show as resolve

    typer.echo(resolve(name, set_ or ()), nl=False)


@recipes.command()
def suggest(
    data: Annotated[str, typer.Option("--data", help="A folder of images or a known name.", show_default=False)],
    minutes: Annotated[float, typer.Option("--minutes", help="For pretraining, about.", min=1.0)] = 30.0,
    size: Annotated[int, typer.Option("--size", help="Input, pixels; 0: chosen from the images.", min=0)] = 0,
) -> None:
    """Settings that suit a data set, this machine and the time there is."""
    from softedge.stages.recipes import suggest as choose

    typer.echo(choose(data, minutes, size))
