"""Exported files: ``export``, ``quantize``, ``check``, ``verify``, ``export-file``; ``setup`` for formats."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from softedge.commands.options import (
    AllowMissingOption,
    BgrOption,
    CropOption,
    DevicesOption,
    ForceOption,
    InterpolationOption,
    MaxDropOption,
    MaxP90Option,
    MaxSizeOption,
    MeanOption,
    MinAgreementOption,
    PrecisionsOption,
    RunFolder,
    SetOption,
    SizeOption,
    StdOption,
    TargetsOption,
    addresses,
    names,
    refuse_options,
)

app = typer.Typer()


@app.command()
def export(
    run: RunFolder,
    targets: TargetsOption = None,
    precisions: PrecisionsOption = None,
    output: Annotated[
        str | None, typer.Option("--output", help="probabilities or features", show_default=False)
    ] = None,
    allow_missing: AllowMissingOption = False,
    set_: SetOption = None,
    force: ForceOption = False,
) -> None:
    """Export self-contained model files: uint8 image in, probabilities out, with labels and golden images."""
    from softedge.commands import tables
    from softedge.stages.export import export as write
    from softedge.stages.gate import require, require_close

    results = write(run, names(targets), names(precisions), output, set_ or (), force=force)
    typer.echo(tables.stages(results))
    require(run, [] if allow_missing else results, precisions is not None)
    require_close(run, results)


@app.command()
def quantize(
    run: Annotated[
        Path, typer.Argument(help="A run folder, or a float .onnx, .xml or .tflite classifier.", show_default=False)
    ],
    images: Annotated[
        Path | None, typer.Option("--images", help="For a file: a folder of real images.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="For a file: where the int8 file is written.", show_default="runs/quantized"),
    ] = None,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    interpolation: InterpolationOption = None,
    crop: CropOption = None,
    activation: Annotated[
        str | None,
        typer.Option(
            "--activation",
            help="For a file: softmax, or sigmoid if it gives logits of a multi-label classifier.",
            show_default="the network's, else softmax",
        ),
    ] = None,
    bgr: BgrOption = False,
    min_agreement: MinAgreementOption = None,
    set_: SetOption = None,
    force: ForceOption = False,
) -> None:
    """Search for better int8 files of a run where they may not pass the gates; or quantize a float model file."""
    from softedge.commands import tables
    from softedge.stages.quantize import quantize as search
    from softedge.stages.quantize_file import is_model, quantize_file

    for_files = {"images": images, "out": out, "size": size, "mean": mean, "std": std, "crop": crop}
    for_files |= {"interpolation": interpolation, "activation": activation, "min-agreement": min_agreement}
    for_files["bgr"] = bgr or None
    if not is_model(run):
        refuse_options(for_files if run.is_dir() else {}, f"{run} is a folder: this is for model files alone")
        typer.echo(tables.stages(search(run, set_ or (), force=force)))
        return
    refuse_options({"set": set_}, f"{run} is a model file: this is for runs alone")
    from softedge.export.given import preprocessing
    from softedge.stages.gate import require_passed

    asked = {**dataclasses.asdict(preprocessing(size, mean, std, interpolation, crop)), "activation": activation}
    asked["bgr"] = bgr or None
    folder = out or Path("runs/quantized")
    result = quantize_file(run, images, folder, asked, min_agreement, force=force)
    typer.echo(tables.candidates(result, folder))
    require_passed(result)


@app.command()
def check(
    run: RunFolder,
    max_drop: MaxDropOption = None,
    min_agreement: MinAgreementOption = None,
    max_size: MaxSizeOption = None,
    max_p90: MaxP90Option = None,
    against: Annotated[
        str | None, typer.Option("--against", help="Compare with an earlier run.", show_default=False)
    ] = None,
    set_: SetOption = None,
    force: ForceOption = False,
) -> None:
    """Compare every exported file with PyTorch. Exit code 1 if a gate fails."""
    from softedge.commands import tables
    from softedge.stages.check import check as compare
    from softedge.stages.gate import gate

    typer.echo(tables.checks(compare(run, max_drop, min_agreement, set_ or (), force, max_size, max_p90, against)))
    limits = (max_drop, min_agreement, max_size, max_p90)
    strict = any(limit is not None for limit in limits) or any(item.startswith("check.m") for item in set_ or ())
    gate(run, max_p90, allow_missing=True, strict=strict, set=set_ or ())


@app.command()
def verify(folder: Annotated[Path, typer.Argument(help="An export folder, e.g. runs/mine/export/onnx-int8.")]) -> None:
    """Replay the golden images of an exported model on this machine. Exit code 1 if the outputs differ."""
    from softedge.commands import tables
    from softedge.stages.verify import verify as replay

    typer.echo(tables.verified(replay(folder)))


@app.command("export-file")
def export_file(
    weights: Annotated[Path, typer.Argument(help="A .safetensors or .pth file.", show_default=False)],
    images: Annotated[Path, typer.Option("--images", help="A folder of real images.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="Where export/ is written.")] = Path("runs/exported"),
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone",
            help="timm's name of the architecture, with the tag of its weights; not needed for softedge's files.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", help="A text file with the class names, one on each line.", show_default=False),
    ] = None,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    interpolation: InterpolationOption = None,
    crop: CropOption = None,
    bgr: BgrOption = False,
    output: Annotated[str, typer.Option("--output", help="probabilities or features")] = "probabilities",
    activation: Annotated[
        str, typer.Option("--activation", help="softmax, or sigmoid for a head trained with binary cross-entropy")
    ] = "softmax",
    head: Annotated[
        str | None,
        typer.Option(
            "--head",
            help="Activation between the layers of a classifier of several: relu, gelu, ...",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[str, typer.Option("--batch", help="dynamic or one")] = "dynamic",
    targets: TargetsOption = None,
    precisions: PrecisionsOption = None,
    devices: DevicesOption = None,
    allow_missing: AllowMissingOption = False,
    set_: SetOption = None,
    force: ForceOption = False,
) -> None:
    """Make a run of any timm network: export, int8 search, check, report. Exit code 1 if a gate fails."""
    from softedge.commands import tables
    from softedge.export.given import preprocessing
    from softedge.stages.export_file import export_file as write
    from softedge.stages.export_file import judge
    from softedge.stages.gate import gate

    asked, on = {"targets": names(targets), "precisions": names(precisions)}, addresses(devices) or ()
    given: dict[str, Any] = {key: value for key, value in asked.items() if value is not None}
    given["preprocessing"] = preprocessing(size, mean, std, interpolation, crop, bgr)
    given |= {"output": output, "activation": activation, "head": head, "batch": batch, "set": set_ or ()}
    write(weights, out, images, backbone, labels, force=force, **given)
    typer.echo(tables.deployment(judge(out, on, force)))
    gate(out, allow_missing=allow_missing)


@app.command()
def setup(
    name: Annotated[
        str | None, typer.Argument(metavar="[FORMAT]", help="Without it: which formats need one.", show_default=False)
    ] = None,
) -> None:
    """Create the environment of its own that an export format needs; most need none."""
    from softedge.stages import setup as stage

    typer.echo(stage.text() if name is None else stage.setup(name))
