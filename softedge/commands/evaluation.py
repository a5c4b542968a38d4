"""Commands that measure how good the features are: k-NN, linear, few labels, fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from softedge.commands.options import ForceOption, InitOption, LabelsOption, RunFolder, SetOption

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
    """Measure the weighted k-NN accuracy of the frozen features."""
    from softedge.commands import tables
    from softedge.stages.knn import knn as measure

    typer.echo(tables.stage(measure(run, k, temperature, preset, force=force)))


@app.command()
def probe(
    run: RunFolder,
    labels: LabelsOption = None,
    set_: SetOption = None,
    force: ForceOption = False,
) -> None:
    """Fit a linear classifier on the frozen features and write it for export; measure linear and k-NN accuracy."""
    from softedge.commands import tables
    from softedge.stages.probe import probe as measure

    typer.echo(tables.stage(measure(run, labels, set_ or (), force=force)))


@app.command("map")
def map_(run: RunFolder, set_: SetOption = None, force: ForceOption = False) -> None:
    """Lay out the images by their features, for the report."""
    from softedge.commands import tables
    from softedge.stages.map import map as lay_out

    typer.echo(tables.stage(lay_out(run, set_ or (), force=force)))


@app.command()
def linear(
    run: RunFolder,
    protocol: Annotated[
        str | None, typer.Option("--protocol", help="simsiam or ang-2022", show_default="the recipe's")
    ] = None,
    set_: SetOption = None,
    force: ForceOption = False,
) -> None:
    """Measure linear accuracy by a paper's full protocol, with augmentation."""
    from softedge.commands import tables
    from softedge.stages.linear import linear as measure

    typer.echo(tables.stage(measure(run, protocol, set_ or (), force=force)))


@app.command()
def finetune(
    run: RunFolder,
    init: InitOption = None,
    labels: LabelsOption = None,
    set_: SetOption = None,
    force: ForceOption = False,
) -> None:
    """Train the whole network on the labels. Then softedge export RUN takes it, unless an earlier one is better."""
    from softedge.commands import tables
    from softedge.stages.finetune import finetune as train

    typer.echo(tables.stage(train(run, init, labels, set_ or (), force=force)))


@app.command()
def scratch(run: RunFolder, set_: SetOption = None, force: ForceOption = False) -> None:
    """Train the same network on the labels alone, for as long, and compare."""
    from softedge.commands import tables
    from softedge.stages.scratch import scratch as train

    typer.echo(tables.stage(train(run, set_ or (), force=force)))


@app.command()
def distill(
    run: RunFolder,
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher",
            help="auto, best, probe, finetune, spread, ensemble, a run, a classifier file or a timm network",
            show_default="the recipe's",
        ),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option("--backbone", help="The timm network to teach.", show_default="the run's")
    ] = None,
    size: Annotated[int | None, typer.Option("--size", help="Its pixels.", show_default="the run's", min=32)] = None,
    set_: SetOption = None,
    force: ForceOption = False,
) -> None:
    """Teach a network with soft labels of all training images, with labels and without. Resumes if interrupted."""
    from softedge.commands import tables
    from softedge.stages.distill import distill as teach

    typer.echo(tables.stage(teach(run, teacher, backbone, size, set_ or (), force=force)))


@app.command()
def baselines(run: RunFolder, set_: SetOption = None, force: ForceOption = False) -> None:
    """Measure cheap classifiers beside the run's: majority class, SVMs on colour histogram and HOG, in seconds."""
    from softedge.commands import tables
    from softedge.stages.baselines import baselines as measure

    typer.echo(tables.stage(measure(run, set_ or (), force=force)))


@app.command()
def labels(run: RunFolder, set_: SetOption = None, force: ForceOption = False) -> None:
    """Measure what pretraining is worth: accuracy at 1 %, 10 % and 100 % of the labels, with and without it."""
    from softedge.commands import tables
    from softedge.stages.labels import labels as measure

    typer.echo(tables.stage(measure(run, set_ or (), force=force)))


@app.command()
def backbone(
    run: RunFolder,
    framework: Annotated[str, typer.Option("--for", help="timm, torchvision, detectron2 or mmdetection")] = "timm",
    out: Annotated[
        Path | None, typer.Option("--out", help="The file.", show_default="RUN/hooks/<framework>.pth")
    ] = None,
) -> None:
    """Write the pretrained backbone as a checkpoint for another framework."""
    from softedge.stages.backbone import backbone as write

    typer.echo(write(run, framework, out))
