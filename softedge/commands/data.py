"""``data`` and ``recipes``: what can be looked at before a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from softedge.commands.options import MaxMbOption, MaxMsOption, RecipeOption, SetOption, existing_data

app = typer.Typer()
recipes = typer.Typer(no_args_is_help=True, help="List, show and suggest recipes.")


@app.command("data")
def data_(
    source: Annotated[
        str, typer.Argument(help="A folder of images or a known name.", show_default=False, callback=existing_data)
    ],
    recipe: RecipeOption = None,
    set_: SetOption = None,
    shrink: Annotated[
        Path | None,
        typer.Option("--shrink", help="Write a copy of the images here, large photos shrunk to what training needs."),
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option("--pairs", help="Write all pairs of near-duplicates to this CSV file."),
    ] = None,
) -> None:
    """Show what a data set holds, what is unreadable, and how it would be split."""
    from softedge.data import describe_text
    from softedge.errors import UserError
    from softedge.stages import data

    if shrink is not None and pairs is not None:
        raise UserError("--shrink and --pairs are two tasks; give one at a time")
    if shrink is not None:
        typer.echo(data.shrink(source, shrink, recipe, set_ or ()))
        return
    typer.echo(describe_text(data.inspect(source, recipe, set_ or (), pairs)))


@app.command()
def review(
    data: Annotated[Path, typer.Argument(help="A folder of images.", show_default=False)],
    order: Annotated[
        Path | None,
        typer.Option(
            "--order",
            help="A CSV file with image names, e.g. near_copies.csv: these, in this order.",
            show_default=False,
        ),
    ] = None,
    https: Annotated[bool, typer.Option("--https", help="With a certificate made here.")] = False,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; 0.0.0.0 lets phones in this network in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port to listen on.", show_default="any free one")] = 0,
) -> None:
    """Label images in a browser; writes labels.csv beside them."""
    from softedge.progress import plural
    from softedge.stages.review import review as serve

    count, file = serve(data, order, https=https, host=host, port=port)
    typer.echo(f"{plural(count, 'decision')}, in {file}" if count else "nothing was decided")


@app.command()
def plan(
    data: Annotated[
        str, typer.Option("--data", help="A folder of images.", show_default=False, callback=existing_data)
    ],
    minutes: Annotated[float, typer.Option("--minutes", help="About this long in all.", min=0.01)] = 15.0,
    max_ms: MaxMsOption = None,
    max_mb: MaxMbOption = None,
    device: Annotated[str, typer.Option("--device", help="Where --max-ms is measured.")] = "local",
    set_: SetOption = None,
) -> None:
    """What deploy would do: network, pixels, stages and minutes, measured on this machine. Trains nothing."""
    from softedge.stages.plan import plan as make

    typer.echo(make(data, minutes, set_ or (), max_ms, max_mb, device).text())


@recipes.command("list")
def list_() -> None:
    """List the recipes that come with softedge."""
    from softedge.commands import tables
    from softedge.stages.recipes import available

    typer.echo(tables.recipes(available()))


@recipes.command()
def show(
    name: Annotated[str, typer.Argument(help="A recipe's name or TOML file.", show_default=False)],
    set_: SetOption = None,
) -> None:
    """Print a recipe with every setting, ready to save and edit."""
    from softedge.stages.recipes import show as resolve

    typer.echo(resolve(name, set_ or ()), nl=False)


@recipes.command()
def suggest(
    data: Annotated[
        str,
        typer.Option("--data", help="A folder of images or a known name.", show_default=False, callback=existing_data),
    ],
    minutes: Annotated[float, typer.Option("--minutes", help="Approximate time for pretraining.", min=1.0)] = 30.0,
    size: Annotated[int, typer.Option("--size", help="Input size in pixels; 0: chosen from the images.", min=0)] = 0,
) -> None:
    """Suggest settings for a data set, this machine and the time available."""
    from softedge.stages.recipes import suggest as choose

    typer.echo(choose(data, minutes, size))
