"""Latency: ``bench`` measures it, ``import`` takes what another tool measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from softedge.commands.options import DevicesOption, ForceOption, RunFolder, SetOption, addresses

app = typer.Typer()


@app.command()
def bench(
    run: RunFolder,
    devices: DevicesOption = None,
    preset: Annotated[str | None, typer.Option("--preset", help="quick, standard or submission")] = None,
    set_: SetOption = None,
    force: ForceOption = False,
) -> None:
    """Latency and accuracy of the exported files on the devices."""
    from softedge.commands import tables
    from softedge.stages.bench import bench as measure

    typer.echo(tables.stages(measure(run, addresses(devices), preset, set_ or (), force=force)))


@app.command("import")
def bring_in(
    run: RunFolder,
    file: Annotated[Path, typer.Argument(help="What benchmark_app, perf_test, benchmark_model or Xcode gave.")],
    artifact: Annotated[str, typer.Option("--artifact", help="The exported file it is about: coreml-fp16.")],
    device: Annotated[str, typer.Option("--device", help="Where it was measured: 'iPhone 15 Pro'.")],
    force: ForceOption = False,
) -> None:
    """Take latency measured by another tool into the table, marked as such."""
    from softedge.commands import tables
    from softedge.stages.bring_in import bring_in as read

    typer.echo(tables.stages([read(run, file, artifact, device, force=force)]))
