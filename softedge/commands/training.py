"""``deploy``, the whole chain, and ``pretrain``, its longest stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from softedge.commands.options import (
    AllowMissingOption,
    DataOption,
    DevicesOption,
    ForceOption,
    MaxDropOption,
    MaxMbOption,
    MaxMsOption,
    MaxP90Option,
    MaxSizeOption,
    MinAccuracyOption,
    MinAgreementOption,
    MinutesOption,
    PrecisionsOption,
    RecipeOption,
    SetOption,
    TargetsOption,
    addresses,
    names,
)

app = typer.Typer()


@app.command()
def deploy(
    data: DataOption = None,
    minutes: MinutesOption = None,
    max_ms: MaxMsOption = None,
    max_mb: MaxMbOption = None,
    recipe: RecipeOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="The run folder.", show_default="runs/<data>")] = None,
    targets: TargetsOption = None,
    precisions: PrecisionsOption = None,
    devices: DevicesOption = None,
    max_drop: MaxDropOption = None,
    min_agreement: MinAgreementOption = None,
    max_size: MaxSizeOption = None,
    max_p90: MaxP90Option = None,
    min_accuracy: MinAccuracyOption = None,
    allow_missing: AllowMissingOption = False,
    update: Annotated[
        bool, typer.Option("--update", help="Train again where images have come, gone or changed.")
    ] = False,
    set_: SetOption = None,
    force: ForceOption = False,
) -> None:
    """Train on a folder of images, then export, check, time and report. Without options: the embedded digits.

    A folder is planned first, see: softedge plan. Exit code 1 when a file fails a gate or is missing.
    """
    from softedge.commands import tables
    from softedge.stages.deploy import deploy as make
    from softedge.stages.gate import benched, gate, require_measured

    run = make(
        data,
        recipe,
        out,
        names(targets),
        names(precisions),
        addresses(devices),
        set_ or (),
        force=force,
        max_drop=max_drop,
        min_agreement=min_agreement,
        max_size=max_size,
        max_p90=max_p90,
        minutes=minutes,
        min_accuracy=min_accuracy,
        update=update,
        max_ms=max_ms,
        max_mb=max_mb,
    )
    typer.echo(tables.deployment(run))
    gate(run, allow_missing=allow_missing)
    if not allow_missing:
        require_measured(benched(run))


@app.command()
def pretrain(
    data: DataOption = None,
    recipe: RecipeOption = None,
    out: Annotated[Path, typer.Option("--out", help="The run folder.")] = Path("runs/default"),
    gpus: Annotated[int, typer.Option("--gpus", help="Processes on this machine, one per GPU.", min=1)] = 1,
    nodes: Annotated[int, typer.Option("--nodes", help="Number of machines.", min=1)] = 1,
    set_: SetOption = None,
    force: ForceOption = False,
) -> None:
    """Pretrain a backbone without labels. Resumes automatically if interrupted."""
    from softedge.commands import tables
    from softedge.stages.pretrain import pretrain as train

    typer.echo(tables.stage(train(data, recipe, out, set_ or (), force=force, gpus=gpus, nodes=nodes)))
