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
    """Measure latency and accuracy of the exported files on devices."""
    from softedge.commands import tables
    from softedge.stages.bench import bench as measure
    from softedge.stages.gate import require_measured

    measured = measure(run, addresses(devices), preset, set_ or (), force=force)
    typer.echo("\n".join([tables.timings(measured), *tables.disturbed(measured)]))
    require_measured(measured)


@app.command("import")
def bring_in(
    run: RunFolder,
    file: Annotated[
        Path, typer.Argument(help="Output of benchmark_app, onnxruntime_perf_test, benchmark_model or Xcode.")
    ],
    artifact: Annotated[str, typer.Option("--artifact", help="The exported file that was measured, e.g. coreml-fp16.")],
    device: Annotated[str, typer.Option("--device", help="The device it was measured on, e.g. 'iPhone 15 Pro'.")],
    force: ForceOption = False,
) -> None:
    """Add latency measured by another tool to the report, marked as such."""
    from softedge.commands import tables
    from softedge.stages.bring_in import bring_in as read

    typer.echo(tables.stages([read(run, file, artifact, device, force=force)]))


@app.command("try")
def try_out(
    run: RunFolder,
    file: Annotated[
        str | None,
        typer.Option("--file", help="onnx-int8, onnx-fp16 or onnx-fp32.", show_default="int8 if it passed the gates"),
    ] = None,
    https: Annotated[
        bool, typer.Option("--https", help="With a certificate made here: live picture, threads.")
    ] = False,
    cable: Annotated[bool, typer.Option("--cable", help="An Android phone over USB: live picture, threads.")] = False,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on.", show_default="this computer's in the network")
    ] = "",
    port: Annotated[int, typer.Option("--port", help="Port to listen on.", show_default="any free one")] = 0,
    into: Annotated[
        Path | None,
        typer.Option("--app", help="Write an offline web app into this folder instead.", show_default=False),
    ] = None,
) -> None:
    """Show an exported file live on a phone: scan the QR code."""
    from softedge.stages import try_out as stage

    if into is not None:
        size = stage.write_app(run, into, file)
        typer.echo(f"{into}: {size / 1e6:.1f} MB of static files; put them on any https host")
        return
    count, folder = stage.serve(run, file, https=https, cable=cable, host=host, port=port)
    typer.echo(f"{count} corrected pictures, in {folder}" if count else "no picture was marked as wrong")
