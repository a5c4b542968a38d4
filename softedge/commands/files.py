"""Commands around exported files: parse, call one function, print one result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from softedge.commands.options import ForceOption, PrecisionsOption, TargetsOption, names

app = typer.Typer()


@app.command("export-file")
def export_file(
    weights: Annotated[Path, typer.Argument(help="A .safetensors or .pth file.", show_default=False)],
    images: Annotated[Path, typer.Option("--images", help="A folder of real images.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="Where export/ is written.")] = Path("runs/exported"),
    backbone: Annotated[
        str | None,
        typer.Option("--backbone", help="timm's name of the architecture; not for softedge files.", show_default=False),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="A text file, one label on each line.", show_default=False)
    ] = None,
    size: Annotated[
        int | None, typer.Option("--size", help="Input pixels; the architecture's own by default.", show_default=False)
    ] = None,
    output: Annotated[str, typer.Option("--output", help="probabilities or features")] = "probabilities",
    batch: Annotated[str, typer.Option("--batch", help="dynamic or one")] = "dynamic",
    targets: TargetsOption = None,
    precisions: PrecisionsOption = None,
    force: ForceOption = False,
) -> None:
    """Export any timm classifier or backbone from a file: no run, no training, the same contract."""
    from softedge.commands import tables as summary
    from softedge.stages.export_file import export_file as write

    asked = {"targets": names(targets), "precisions": names(precisions)}
    given: dict[str, Any] = {key: value for key, value in asked.items() if value is not None}
    results = write(weights, out, images, backbone, labels, size, output=output, batch=batch, force=force, **given)
    typer.echo(summary.stages(results))


@app.command("litert-setup")
def litert_setup() -> None:
    """Make the environment that exporting to LiteRT (.tflite) needs; SOFTEDGE_LITERT chooses another place."""
    from softedge.export.litert.format import setup

    typer.echo(f"LiteRT's environment is ready in {setup()}; export with: softedge export RUN --targets litert")
