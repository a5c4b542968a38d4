"""Commands that measure what the features are worth: k-NN, linear, few labels, fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from softedge.commands.options import ForceOption, RunFolder, SetOption

app = typer.Typer()


@app.command()
def knn(
    run: RunFolder,
    k: Annotated[int | None, typer.Option("--k", help="Neighbours.", show_default="the recipe's", min=1)] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", show_default="the recipe's")] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help="light-moco (20-NN) or ang-2022 (200-NN)", show_default=False)
    ] = None,
    force: ForceOption = False,
) -> None:
    """Weighted k-NN accuracy of the frozen features."""
    from softedge.commands import tables as summary
    from softedge.stages import evaluations

    typer.echo(summary.stage(evaluations.knn(run, k, temperature, preset, force=force)))


@app.command()
def probe(
    run: RunFolder,
    labels: Annotated[
        float | None, typer.Option("--labels", help="Fraction of the training labels to use.", show_default="all")
    ] = None,
    set_: SetOption = None,
    force: ForceOption = False,
) -> None:
    """Linear and k-NN accuracy of the frozen features; writes the classifier that is exported."""
    from softedge.commands import tables as summary
    from softedge.stages import evaluations

    typer.echo(summary.stage(evaluations.probe(run, labels, set_ or (), force=force)))


@app.command()
def linear(
    run: RunFolder,
    protocol: Annotated[
        str | None, typer.Option("--protocol", help="simsiam or ang-2022", show_default="the recipe's")
    ] = None,
    set_: SetOption = None,
    force: ForceOption = False,
) -> None:
    """Linear accuracy by the full protocol of a paper, with augmentation, on the frozen network."""
    from softedge.commands import tables as summary
    from softedge.stages import evaluations

    typer.echo(summary.stage(evaluations.linear(run, protocol, set_ or (), force=force)))


@app.command()
def finetune(
    run: RunFolder,
    init: Annotated[
        str | None, typer.Option("--init", help="ssl, random, imagenet or a weights file", show_default="the recipe's")
    ] = None,
    labels: Annotated[
        float | None, typer.Option("--labels", help="Fraction of the training labels to use.", show_default="all")
    ] = None,
    set_: SetOption = None,
    force: ForceOption = False,
) -> None:
    """Train the whole network on the labels; export it with: --set export.source=finetune."""
    from softedge.commands import tables as summary
    from softedge.stages import evaluations

    typer.echo(summary.stage(evaluations.finetune(run, init, labels, set_ or (), force=force)))


@app.command()
def labels(run: RunFolder, set_: SetOption = None, force: ForceOption = False) -> None:
    """Was pretraining worth it? Accuracy at 1 %, 10 % and 100 % of the labels, with and without it."""
    from softedge.commands import tables as summary
    from softedge.stages import evaluations

    typer.echo(summary.stage(evaluations.labels(run, set_ or (), force=force)))


@app.command()
def backbone(
    run: RunFolder,
    framework: Annotated[str, typer.Option("--for", help="timm, torchvision, detectron2 or mmdetection")] = "timm",
    out: Annotated[
        Path | None, typer.Option("--out", help="The file.", show_default="RUN/hooks/<framework>.pth")
    ] = None,
) -> None:
    """Write the pretrained backbone for those who train elsewhere."""
    from softedge.stages import evaluations

    typer.echo(evaluations.backbone(run, framework, out))
