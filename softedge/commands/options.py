"""Options that several commands share, and how their texts are split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from softedge import registry
from softedge.errors import UserError


def _existing_run(run: Path) -> Path:
    """A run folder that is not there is refused before anything is imported for the work."""
    if not run.exists():
        from softedge.stages.opening import reopen

        reopen(run)
    return run


def existing_data(data: str | None) -> str | None:
    """The same for data."""
    if data is not None:
        from softedge.data.naming import refuse_missing

        refuse_missing(data)
    return data


def _default(names: Sequence[str], known: Iterable[str]) -> str:
    """The help of a list: what is taken where it is not given, and what else there is."""
    return f"Default: {','.join(names)}; more: {', '.join(name for name in known if name not in names)}."


RunFolder = Annotated[
    Path, typer.Argument(help="Run folder, e.g. runs/mine.", show_default=False, callback=_existing_run)
]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="A folder of images, or digits, cifar10, cifar100, stl10, imagenet.",
        show_default=False,
        callback=existing_data,
    ),
]
RecipeOption = Annotated[
    str | None,
    typer.Option("--recipe", help="A recipe's name or TOML file; see: softedge recipes.", show_default=False),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a recipe value: finetune.epochs=20. Repeatable.", show_default=False),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Repeat finished work.")]
InitOption = Annotated[
    str | None,
    typer.Option("--init", help="ssl, random, imagenet or a weights file", show_default="the recipe's"),
]
LabelsOption = Annotated[
    float | None, typer.Option("--labels", help="A share of the training labels to use, e.g. 0.1.", show_default="all")
]
MaxDropOption = Annotated[
    float | None,
    typer.Option("--max-drop", help="Gate: largest loss of top-1, e.g. 0.01.", show_default="the recipe's"),
]
MinAgreementOption = Annotated[
    float | None,
    typer.Option(
        "--min-agreement",
        help="Gate: least share of fp32's answers, e.g. 0.98.",
        show_default="the recipe's",
    ),
]
MaxSizeOption = Annotated[
    int | None,
    typer.Option("--max-size", help="Gate: largest int8 file, in bytes.", show_default="the recipe's"),
]
MaxP90Option = Annotated[
    float | None,
    typer.Option("--max-p90", help="Gate: largest p90 of an int8 file, in ms.", show_default="the recipe's"),
]
MinAccuracyOption = Annotated[
    float | None,
    typer.Option(
        "--min-accuracy", help="Gate: least top-1 on the test images, e.g. 0.9.", show_default="the run's, else none"
    ),
]
MinutesOption = Annotated[
    float | None,
    typer.Option("--minutes", help="Total time, for a folder of images.", show_default="15", min=0.01),
]
MaxMsOption = Annotated[
    float | None,
    typer.Option("--max-ms", help="Plan: p90 in ms, sets size and network.", min=0.001),
]
MaxMbOption = Annotated[
    float | None, typer.Option("--max-mb", help="Plan: MB of an int8 file, as --max-ms.", min=0.001)
]
AllowMissingOption = Annotated[
    bool, typer.Option("--allow-missing", help="Exit with 0 where a format could not be made.")
]
TargetsOption = Annotated[
    str | None, typer.Option("--targets", help=_default(registry.DEFAULT_FORMATS, registry.FORMATS.own))
]
PrecisionsOption = Annotated[
    str | None,
    typer.Option("--precisions", help=_default(("fp32", "fp16", "int8"), ("w8a16", "w8a32", "w8a8", "int8-strict"))),
]
DevicesOption = Annotated[
    str | None, typer.Option("--devices", help="local, ssh://user@host, adb://SERIAL, browser: ...", show_default=False)
]

# How the images of starting weights are prepared; None: as timm or the file says.
SizeOption = Annotated[
    int | None, typer.Option("--size", help="Input height = width in pixels.", show_default="the network's")
]
MeanOption = Annotated[
    str | None, typer.Option("--mean", help="Of x / 255, e.g. 0.5,0.5,0.5 or 0.5.", show_default="the network's")
]
StdOption = Annotated[
    str | None, typer.Option("--std", help="Of x / 255, e.g. 0.5,0.5,0.5 or 0.5.", show_default="the network's")
]
InterpolationOption = Annotated[
    str | None, typer.Option("--interpolation", help="bilinear or bicubic", show_default="the network's")
]
BgrOption = Annotated[bool, typer.Option("--bgr", help="The network takes blue first; so do --mean, --std.")]
CropOption = Annotated[
    float | None, typer.Option("--crop", help="Side of the crop / shorter side.", show_default="the network's")
]


def names(text: str | None) -> list[str] | None:
    """Split a comma-separated option; None when it was not given."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def refuse_options(values: Mapping[str, object], why: str) -> None:
    """UserError for options that were given and would have no effect."""
    if given := [f"--{name}" for name, value in values.items() if value is not None]:
        raise UserError(f"{', '.join(given)}: {why}; leave out the {'option' if len(given) == 1 else 'options'}")


def addresses(text: str | None) -> list[str] | None:
    """Split a list of devices, whose own options may hold commas too."""
    from softedge.bench.base import open_device, split_specs

    if text is None:
        return None
    if not (specs := split_specs(text)):
        raise UserError(f"--devices '{text}' names none; give at least one, such as local, or leave it out")
    for spec in specs:
        open_device(spec)  # nothing is connected yet: a mistyped one is refused before any work
    return list(specs)
