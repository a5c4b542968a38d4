"""The commands as functions: each opens the run, does one stage (or finds it done) and returns what it measured.

``deploy`` is the chain: data -> pretrain -> probe -> export -> check -> bench -> report.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softedge import config, registry
from softedge.config import Recipe
from softedge.errors import GateFailed, UserError
from softedge.progress import say
from softedge.records import Result
from softedge.run import Run, differences, write_text

if TYPE_CHECKING:
    from softedge.data.images import Data

# A run is one training: these sections may not change under it. The others belong to single stages, which compare
# their own settings.
IDENTITY = ("seed", "data", "backbone", "augment", "ssl", "optim")

DEFAULT_RECIPE = {"digits": "digits"}
FOLDER_RECIPE = "small-domain"


def choose_recipe(
    data: str | None, recipe: str | None, overrides: Sequence[str] = (), out: str | Path | None = None
) -> Recipe:
    """The resolved recipe: the named one, that of the run that is gone on with, or the one that suits the data.

    ``--set`` values win.
    """
    if recipe is None and data is None and out is not None and (Path(out) / "recipe.toml").is_file():
        return config.build(config.load(str(Path(out) / "recipe.toml")).model_dump(mode="json"), overrides)
    if recipe is None:
        recipe = DEFAULT_RECIPE.get(data or "digits", FOLDER_RECIPE)
    chosen = config.load(recipe)
    source = data or chosen.data.source
    if Path(source).expanduser().is_dir():
        source = str(Path(source).expanduser().resolve())  # a later command may start elsewhere
    values = chosen.model_dump(mode="json")
    values["data"]["source"] = source
    return config.build(values, overrides, source=f"{recipe}.toml with --set")


def start(out: str | Path, recipe: Recipe, force: bool = False) -> Run:
    """Create the run folder, or open it again when it was made with the same training recipe."""
    run, path = Run(out), Path(out) / "recipe.toml"
    if Path(out).exists() and not Path(out).is_dir():
        raise UserError(f"--out {out} is a file; give a folder that does not exist yet, or an earlier run")
    if path.exists():
        before = config.load(str(path))
        changed = differences(before.section(*IDENTITY), recipe.section(*IDENTITY))
        if changed and not force and _has_work(run):
            raise UserError(
                f"{out} holds a run of another recipe ({'; '.join(changed[:6])}); "
                "use another --out, or --force to redo what depends on it"
            )
    elif Path(out).exists() and any(p.name != ".lock" for p in Path(out).iterdir()):
        raise UserError(f"{out} is not empty and not a softedge run (it has no recipe.toml); use another --out")
    write_text(path, config.to_toml(recipe))
    return run


def _has_work(run: Run) -> bool:
    """Whether anything would be lost or mixed: a mistyped --data leaves a recipe and nothing else."""
    return run.folder("pretrain").exists() or any(run.root.rglob("result.json"))


def reopen(run: str | Path, overrides: Sequence[str] = ()) -> tuple[Run, Recipe]:
    """An existing run and its recipe, with ``--set`` values applied for this command."""
    path = Path(run) / "recipe.toml"
    if not path.is_file():
        raise UserError(
            f"{run} is not a softedge run (it has no recipe.toml); make one with: softedge deploy --out {run}"
        )
    return Run(run), with_overrides(Run(run), config.load(str(path)), overrides)


def with_overrides(run: Run, recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """``--set`` values applied to the recipe of an existing run; refused where they would change its training."""
    if not overrides:
        return recipe
    changed = config.build(recipe.model_dump(mode="json"), overrides, source="recipe.toml with --set")
    if touched := differences(recipe.section(*IDENTITY), changed.section(*IDENTITY)):
        raise UserError(
            f"--set would change what {run.root} was trained with ({'; '.join(touched[:4])}); "
            "start another run with softedge pretrain --out"
        )
    return changed


def data_of(run: Run, recipe: Recipe, force: bool = False) -> Data:
    from softedge.data import load, prepare

    prepare(run, recipe, recipe.data.source, force=force)
    return load(run)


def replaced(recipe: Recipe, **sections: dict[str, Any]) -> Recipe:
    """A copy of the recipe with some values of some sections replaced (None: left as it is), validated."""
    values = recipe.model_dump(mode="json")
    for section, changes in sections.items():
        values[section] |= {key: value for key, value in changes.items() if value is not None}
    return config.build(values, source="the command line")


def inspect(data: str, recipe: str | None = None, set: Sequence[str] = ()) -> dict[str, Any]:
    """What is in a data set: images, classes, bad files, and how it would be split. Writes nothing."""
    from softedge.data import describe

    return describe(data, choose_recipe(data, recipe, set))


def shrink(data: str, out: str | Path, recipe: str | None = None, set: Sequence[str] = ()) -> str:
    """Copy a folder with its large photos made as small as the recipe allows; what was done, as text."""
    from softedge.data.shrinking import shrink as copy

    return copy(data, Path(out), choose_recipe(data, recipe, set)).text()


def pretrain(
    data: str | None = None,
    recipe: str | None = None,
    out: str | Path = "runs/default",
    set: Sequence[str] = (),
    force: bool = False,
    gpus: int = 1,
    nodes: int = 1,
) -> Result:
    """Pretrain a backbone without labels into the run folder ``out``; goes on where an earlier start was killed."""
    resolved = choose_recipe(data, recipe, set, out)
    if max(gpus, nodes) > 1 or "WORLD_SIZE" in os.environ or "SLURM_PROCID" in os.environ:
        from softedge.ssl import ranks

        if ranks.wanted(gpus, nodes):
            # The others must not find a folder that rank 0 has half made.
            run = start(out, resolved, force) if ranks.first() else Run(out)
            command = ranks.command(data, recipe, out, set, force)
            return ranks.train(run, resolved, force, gpus, nodes, command)
    run = start(out, resolved, force)
    with run.locked():
        return _pretrain(run, resolved, data_of(run, resolved, force), force)


def _pretrain(run: Run, recipe: Recipe, data: Data, force: bool) -> Result:
    from softedge.ssl.train import pretrain as train

    return train(run, recipe, data, force=force)


def export(
    run: str | Path,
    targets: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
    output: str | None = None,
    set: Sequence[str] = (),
    force: bool = False,
) -> list[Result]:
    """Export to the targets in the precisions asked for (the recipe's by default).

    run: a run, or a transfer folder in it (RUN/transfer/voc): then its detector is exported.
    """
    from softedge.stages.export import export as write

    if (plugin := registry.owner(run)) is not None:
        return plugin.export(run, targets=targets, precisions=precisions, set=set, force=force)
    opened, recipe = reopen(run, set)
    recipe = replaced(recipe, export={"targets": targets, "precisions": precisions, "output": output})
    _known_targets(recipe)
    with opened.locked():
        return write(
            opened, recipe, data_of(opened, recipe), recipe.export.targets, recipe.export.precisions, force=force
        )


def check(
    run: str | Path,
    max_drop: float | None = None,
    min_agreement: float | None = None,
    set: Sequence[str] = (),
    force: bool = False,
    max_size: int | None = None,
    max_p90: float | None = None,
    against: str | Path | None = None,
) -> Result:
    """Read every exported file back and compare it with PyTorch; ``gate`` then raises for those that lost too much.

    max_size (bytes) and max_p90 (ms) are for the int8 files.  against: an earlier run to compare with.
    """
    from softedge.stages.check import check as measure

    if (plugin := registry.owner(run)) is not None:
        gates = {"max_drop": max_drop, "min_agreement": min_agreement, "max_size": max_size}
        return plugin.check(run, gates=gates, set=set, force=force)
    opened, recipe = reopen(run, set)
    gates = {"max_drop": max_drop, "min_agreement": min_agreement, "max_size": max_size, "max_p90": max_p90}
    recipe = replaced(recipe, check={**gates, "against": str(against) if against else None})
    with opened.locked():
        return measure(opened, recipe, data_of(opened, recipe), force=force)


def gate(run: str | Path | Run) -> None:
    """GateFailed when a file of the run failed its check, naming each and the reason."""
    if (plugin := registry.owner(run)) is not None:
        return plugin.gate(run)
    opened = run if isinstance(run, Run) else reopen(run)[0]
    checked = opened.result("check")
    failed = checked.details.get("failed", []) if checked else []
    if failed:
        raise GateFailed("; ".join(failed))


def bench(
    run: str | Path,
    devices: Sequence[str] | None = None,
    preset: str | None = None,
    set: Sequence[str] = (),
    force: bool = False,
) -> list[Result]:
    """Latency and accuracy of the exported files on the devices."""
    from softedge.stages.bench import bench as measure

    if (plugin := registry.owner(run)) is not None:
        return plugin.bench(run, devices=devices, preset=preset, set=set, force=force)
    opened, recipe = reopen(run, set)
    recipe = replaced(recipe, bench={"devices": devices, "preset": preset})
    with opened.locked():
        data = data_of(opened, recipe)
        return measure(opened, recipe, data, recipe.bench.devices, recipe.bench.preset, force=force)


def bring_in(run: str | Path, file: str | Path, artifact: str, device: str, force: bool = False) -> Result:
    """Take another tool's latency numbers for an exported file into the run, marked "measured elsewhere"."""
    from softedge.bench.imported import bring_in as read_in

    opened, _ = reopen(run)
    with opened.locked():
        return read_in(opened, Path(file), artifact, device, force=force)


def report(*runs: str | Path) -> Path:
    """Write report.html, report.json and MODEL_CARD.md of the first run; further runs stand beside it."""
    from softedge.report import report as write

    return write([reopen(run)[0] for run in runs])


def verify(folder: str | Path) -> dict[str, Any]:
    """Replay the golden images of an export folder with this machine's runtime; GateFailed on a difference."""
    from softedge.export.verify import verify as replay

    return replay(Path(folder))


def deploy(
    data: str | None = None,
    recipe: str | None = None,
    out: str | Path | None = None,
    targets: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
    devices: Sequence[str] | None = None,
    set: Sequence[str] = (),
    force: bool = False,
) -> Run:
    """From images to a checked, timed model and its report; ``gate(run)`` then says whether every file passed.

    Every stage that is done is skipped, so calling it again goes on where the last call was stopped.
    """
    resolved = choose_recipe(data, recipe, set, out)
    resolved = replaced(resolved, export={"targets": targets, "precisions": precisions}, bench={"devices": devices})
    _known_targets(resolved)
    run = start(out or f"runs/{Path(resolved.data.source).name}", resolved, force)
    with run.locked():
        _chain(run, resolved, force)
    return run


def _chain(run: Run, recipe: Recipe, force: bool) -> None:
    """All stages of a deployment."""
    from softedge.eval.probe import probe as measure_features
    from softedge.stages.bench import bench as measure_latency
    from softedge.stages.check import check as compare
    from softedge.stages.export import export as write_models

    images = data_of(run, recipe, force)
    _pretrain(run, recipe, images, force)
    if len(images.train):
        measure_features(run, recipe, images, force=force)
    elif recipe.export.output == "probabilities":
        say("no labelled images: the exported models give features; label a few images to get a classifier")
        recipe = replaced(recipe, export={"output": "features"})
    write_models(run, recipe, images, recipe.export.targets, recipe.export.precisions, force=force)
    compare(run, recipe, images, force=force)
    measure_latency(run, recipe, images, recipe.bench.devices, recipe.bench.preset, force=force)
    report(run.root)


def _known_targets(recipe: Recipe) -> None:
    """Refuse an unknown target or device before hours of training, not after."""
    from softedge.bench.base import open_device

    for device in recipe.bench.devices:
        open_device(device)  # nothing is connected yet
    for target in recipe.export.targets:
        registry.load(registry.TARGETS, target, "target")
    if not recipe.export.targets or not recipe.export.precisions:
        raise UserError("nothing to export: give at least one of --targets and one of --precisions")
