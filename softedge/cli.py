"""The ``softedge`` command: parse, call one function of the pipeline, print one result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from softedge import registry
from softedge.commands.evaluation import app as evaluation_app
from softedge.commands.files import app as files_app
from softedge.commands.options import (
    DataOption,
    DevicesOption,
    ForceOption,
    PrecisionsOption,
    RecipeOption,
    RunFolder,
    SetOption,
    TargetsOption,
    addresses,
    names,
)

app = typer.Typer(
    name="softedge",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="From unlabelled images to a checked, timed classifier for phones and IoT boards.",
)
recipes_app = typer.Typer(no_args_is_help=True, help="List, show and suggest recipes.")
app.add_typer(recipes_app, name="recipes")
app.add_typer(evaluation_app)  # its commands stand beside the others
app.add_typer(files_app)
for plugin in registry.plugins():
    app.add_typer(plugin.commands())


@app.command()
def deploy(
    data: DataOption = None,
    recipe: RecipeOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="The run folder.", show_default="runs/<data>")] = None,
    targets: TargetsOption = None,
    precisions: PrecisionsOption = None,
    devices: DevicesOption = None,
    set_: SetOption = None,
    force: ForceOption = False,
) -> None:
    """Images in, checked and timed models and a report out. Without options: the embedded digits, on this CPU."""
    from softedge.commands import tables as summary
    from softedge.stages import pipeline

    run = pipeline.deploy(
        data, recipe, out, names(targets), names(precisions), addresses(devices), set_ or (), force=force
    )
    typer.echo(summary.deployment(run))
    pipeline.gate(run)


@app.command()
def pretrain(
    data: DataOption = None,
    recipe: RecipeOption = None,
    out: Annotated[Path, typer.Option("--out", help="The run folder.")] = Path("runs/default"),
    gpus: Annotated[int, typer.Option("--gpus", help="Processes on this machine, one per GPU.", min=1)] = 1,
    nodes: Annotated[int, typer.Option("--nodes", help="Machines that take part.", min=1)] = 1,
    set_: SetOption = None,
    force: ForceOption = False,
) -> None:
    """Pretrain a backbone without labels; a killed run goes on where it was."""
    from softedge.commands import tables as summary
    from softedge.stages import pipeline

    typer.echo(summary.stage(pipeline.pretrain(data, recipe, out, set_ or (), force=force, gpus=gpus, nodes=nodes)))


@app.command()
def export(
    run: RunFolder,
    targets: TargetsOption = None,
    precisions: PrecisionsOption = None,
    output: Annotated[
        str | None, typer.Option("--output", help="probabilities or features", show_default=False)
    ] = None,
    set_: SetOption = None,
    force: ForceOption = False,
) -> None:
    """Write self-contained model files: uint8 image in, probabilities out, labels and golden images beside."""
    from softedge.commands import tables as summary
    from softedge.stages import pipeline

    results = pipeline.export(run, names(targets), names(precisions), output, set_ or (), force=force)
    typer.echo(summary.stages(results))


@app.command()
def check(
    run: RunFolder,
    max_drop: Annotated[float | None, typer.Option("--max-drop", help="Allowed loss of top-1, e.g. 0.01.")] = None,
    min_agreement: Annotated[float | None, typer.Option("--min-agreement", help="Same answers as fp32.")] = None,
    max_size: Annotated[int | None, typer.Option("--max-size", help="Bytes of an int8 file.")] = None,
    max_p90: Annotated[float | None, typer.Option("--max-p90", help="Milliseconds of an int8 file.")] = None,
    against: Annotated[str | None, typer.Option("--against", help="An earlier run to compare with.")] = None,
    set_: SetOption = None,
    force: ForceOption = False,
) -> None:
    """Compare every exported file, read back from disk, with PyTorch on real images. Exit code 1 when a gate fails."""
    from softedge.commands import tables as summary
    from softedge.stages import pipeline

    checked = pipeline.check(run, max_drop, min_agreement, set_ or (), force, max_size, max_p90, against)
    typer.echo(summary.checks(checked))
    pipeline.gate(run)


@app.command()
def bench(
    run: RunFolder,
    devices: DevicesOption = None,
    preset: Annotated[str | None, typer.Option("--preset", help="quick, standard or submission")] = None,
    set_: SetOption = None,
    force: ForceOption = False,
) -> None:
    """Latency and accuracy of the exported files on the devices."""
    from softedge.commands import tables as summary
    from softedge.stages import pipeline

    typer.echo(summary.stages(pipeline.bench(run, addresses(devices), preset, set_ or (), force=force)))


@app.command("import")
def bring_in(
    run: RunFolder,
    file: Annotated[Path, typer.Argument(help="What benchmark_app, perf_test, benchmark_model or Xcode gave.")],
    artifact: Annotated[str, typer.Option("--artifact", help="The exported file it is about: coreml-fp16.")],
    device: Annotated[str, typer.Option("--device", help="Where it was measured: 'iPhone 15 Pro'.")],
    force: ForceOption = False,
) -> None:
    """Take latency measured by another tool into the table, marked as such."""
    from softedge.commands import tables as summary
    from softedge.stages import pipeline

    typer.echo(summary.stages([pipeline.bring_in(run, file, artifact, device, force=force)]))


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="One or more run folders.", show_default=False)],
    compare: Annotated[bool, typer.Option("--compare", help="Only print what changed between two runs.")] = False,
) -> None:
    """Write report.html, report.json and MODEL_CARD.md; several runs stand side by side."""
    from softedge.report import compare_folders
    from softedge.stages import pipeline

    typer.echo(compare_folders(runs) if compare else pipeline.report(*runs))


@app.command()
def verify(folder: Annotated[Path, typer.Argument(help="An export folder, e.g. runs/mine/export/onnx-int8.")]) -> None:
    """Replay the golden images of an exported model with this machine's runtime. Exit code 1 on a difference."""
    from softedge.commands import tables as summary
    from softedge.stages import pipeline

    typer.echo(summary.verified(pipeline.verify(folder)))


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
    from softedge.stages import pipeline

    if shrink is not None:
        typer.echo(pipeline.shrink(source, shrink, recipe, set_ or ()))
        return
    typer.echo(describe_text(pipeline.inspect(source, recipe, set_ or ())))


@recipes_app.command("list")
def recipes_list() -> None:
    """The recipes that come with softedge."""
    from softedge import config
    from softedge.commands import tables as summary

    typer.echo(summary.recipes(config.available()))


@recipes_app.command("show")
def recipes_show(
    name: Annotated[str, typer.Argument(help="A recipe's name or TOML file.", show_default=False)],
    set_: SetOption = None,
) -> None:
    """A recipe with every default spelled out, ready to be saved and edited."""
    from softedge import config

    typer.echo(config.to_toml(config.load(name, set_ or ())), nl=False)


@recipes_app.command("suggest")
def recipes_suggest(
    data: Annotated[str, typer.Option("--data", help="A folder of images or a known name.", show_default=False)],
    minutes: Annotated[float, typer.Option("--minutes", help="For pretraining, about.", min=1.0)] = 30.0,
    size: Annotated[int, typer.Option("--size", help="Input, pixels; 0: chosen from the images.", min=0)] = 0,
) -> None:
    """Settings that suit a data set, this machine and the time there is."""
    from softedge.ssl.suggest import for_data

    typer.echo(for_data(data, minutes, size).text(data))


@app.command()
def doctor() -> None:
    """What this machine can do: versions, processor, targets and devices, and what is missing."""
    from softedge.stages import doctor as examine

    typer.echo(examine.text())


def main(arguments: list[str] | None = None) -> None:
    """Run the command; the one place where expected errors become a line and an exit code."""
    from softedge import threads
    from softedge.errors import exit_code_and_line

    threads.prepare()
    try:
        code = app(arguments, standalone_mode=False)
    except typer.Abort as error:  # how the parser passes Ctrl-C on
        code, line = exit_code_and_line(KeyboardInterrupt()) or (130, str(error))
        typer.echo(line, err=True)
    except typer.Exit as error:
        code = error.exit_code
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # a wrong flag: the parser explains it
            error.show()
            raise SystemExit(error.exit_code) from None
        answer = exit_code_and_line(error)
        if answer is None:
            raise
        code, line = answer
        typer.echo(line, err=True, nl=bool(line))
    raise SystemExit(code if isinstance(code, int) else 0)
