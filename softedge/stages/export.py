"""``softedge export``: a folder for each format and precision, complete with its contract, or the reason why not."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from softedge import __version__, backbones, config, previous, registry
from softedge.backbones import Backbone, Classifier
from softedge.data import late
from softedge.data.images import Data, EncodedImages, Images
from softedge.errors import Refused, UserError, first_line, need_lists
from softedge.export import calibration, contract, given, listed
from softedge.export.base import Format, combinations, open_format
from softedge.export.deployed import Deployed
from softedge.export.metadata import contradictions
from softedge.files import refuse_full
from softedge.progress import say
from softedge.records import Outcome, Result
from softedge.run import Run, differences, perform, read_result, sha256_of
from softedge.stages import added, classifier, integers
from softedge.stages.artifact import Source, write
from softedge.stages.base import INDEX, hashes, on_run
from softedge.stages.opening import reopen, replaced

PARITY_IMAGES = 32  # beyond the golden ones; the int8 files get their full test in `softedge check`


def export(
    run: str | PathLike[str],
    targets: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
    output: str | None = None,
    set: Sequence[str] = (),
    force: bool = False,
) -> list[Result]:
    """Export to the targets in the precisions asked for (the recipe's by default).

    run: a run, or a folder of a plug-in (RUN/transfer/voc): then its detector is exported.
    """
    need_lists(targets=targets, precisions=precisions, set=set)
    if plugin := registry.owner(run):
        done: list[Result] = plugin.export(run=run, targets=targets, precisions=precisions, set=set, force=force)
        return done
    asked = {"targets": targets, "precisions": precisions, "output": output}
    known_names(replaced(reopen(run, set)[1], export=asked))

    def work(run: Run, recipe: config.Recipe, data: Data, force: bool = False) -> list[Result]:
        return stage(run, recipe if output else for_labels(recipe, data, run), data, force)

    return on_run(work, run, set, force, export=asked)


def for_labels(recipe: config.Recipe, data: Data, run: Run | None = None) -> config.Recipe:
    """The recipe for images without labels: its files give features, unless ``run`` has a classifier all the same."""
    if len(data.train.every) or recipe.export.output != "probabilities" or recipe.export.source == "given":
        return recipe
    if run is not None and classifier.trained(run):
        return recipe
    say("no labelled images: the exported models return features; label a few images to get a classifier")
    return replaced(recipe, export={"output": "features"})


def stage(run: Run, recipe: config.Recipe, data: Data, force: bool = False, again: bool = False) -> list[Result]:
    """Write ``export/<target>-<precision>`` for everything that the recipe asks for; each has a result of its own.

    again: files that the recipe does not ask for and that another network was exported to are made anew as well.
    A format that cannot be made is recorded (``result.skipped["model"]`` holds the reason, the folder no contract.json)
    and tried again next time; the others go on.  Raises UserError when there is no network to export yet.
    """
    known_names(recipe)
    checkpoint, output = _checkpoint(run, recipe, data)
    digest = sha256_of(run, checkpoint.relative_to(run.root).as_posix())
    pairs, network = asked(recipe), {checkpoint.relative_to(run.root).as_posix(): digest}
    if again:
        pairs += added.formats(recipe, added.outdated(run, network, file_names(pairs)))
    added.set_aside_others(run, network, file_names(pairs))
    added.forget_impossible(run, file_names(pairs))
    settings = recipe.export.model_dump(mode="json", exclude={"targets", "precisions"})
    settings["source"] = checkpoint.parent.name if output != "features" else "probe"  # "best" is one of them
    settings.pop("strict")  # more files, and no others
    for name in ("safe", "float_prefix"):  # runs made before there was a choice are runs without it
        if not settings[name]:
            settings.pop(name)
    return export_formats(
        run,
        pairs,
        lambda: _source(recipe, data, checkpoint, digest, output),
        recipe={"export": {**settings, "output": output}, "seed": recipe.seed},
        # The images, too: they calibrate, and some of them travel with the file.
        inputs={**network, **hashes(run, [INDEX])},
        force=force,
    )


def asked(recipe: config.Recipe) -> list[tuple[Format, str]]:
    """Every format with every precision that the recipe asks for; UserError for those that do not exist.

    By default, each format with those of fp32, fp16 and int8 that it has.
    """
    wanted = recipe.export
    options, named = (wanted.batch, wanted.safe, wanted.float_prefix), wanted.precisions != config.Export().precisions
    pairs = combinations(wanted.targets, wanted.precisions, *options, named=named)
    if wanted.strict:
        formats = {format_.name: format_ for format_, _ in pairs}.values()
        able = [(format_, format_.strict) for format_ in formats if format_.strict]
        if pairs and not able:
            titles = ", ".join(format_.title for format_ in formats)
            others = ", ".join(name for name in registry.FORMATS if open_format(name).strict)
            raise UserError(f"export.strict: {titles} has no files in integers alone; formats that have: {others}")
        pairs += [entry for entry in able if entry[1] not in wanted.precisions]
    return pairs


def file_names(pairs: Sequence[tuple[Format, str]]) -> list[str]:
    """Of the files of ``asked``: "onnx-int8"."""
    return [f"{format_.name}-{precision}" for format_, precision in pairs]


def known_names(recipe: config.Recipe) -> None:
    """Refuse an unknown format, and nothing to export, before any work."""
    asked(recipe)
    if not recipe.export.targets or not recipe.export.precisions:
        raise UserError("nothing to export: give at least one of --targets and one of --precisions")


def export_formats(
    run: Run,
    asked: list[tuple[Format, str]],
    source: Callable[[], Source],
    *,
    recipe: dict[str, Any],
    inputs: dict[str, str],
    force: bool = False,
) -> list[Result]:
    """One stage for each format; ``source`` is called when the first of them is really due: it takes seconds.

    Raises UserError with the first reason when not one of them could be made, and, with ``force``, when finished ones
    could not be made again: those stay.
    """
    once = functools.cache(source)
    made: dict[tuple[str, str], Result] = {}
    kept: list[str] = []
    for format_, precision in sorted(asked, key=lambda entry: bool(entry[0].integers_from)):
        folder = f"export/{format_.name}-{precision}"
        before = run.result(folder)
        others = integers.others(run, format_, precision, recipe, inputs)
        read = {**inputs, **{f"export/{other.name}": other.sha256 for other in others}}
        if renewed := before is not None and integers.own(before.inputs) == inputs and before.inputs != read:
            changed = ", ".join(other.name for other in others) or "a file that it took integers from"
            say(f"{format_.name}-{precision} is made anew: {changed} is new")
        if before is not None and (damage := _damage(run, folder, before)):
            renewed = True
            say(f"{format_.name}-{precision} is made anew: {damage}")
        last = before or _put_aside(run, folder)  # by a --force that was killed
        if last is not None and integers.own(last.inputs) == inputs and not differences(last.recipe, recipe):
            format_ = format_.as_before(last.details.get("notes", {}))
        made[format_.name, precision] = perform_or_keep(
            kept,
            run,
            folder,
            functools.partial(attempt, integers.reading(format_, others), precision, once),
            recipe=recipe,
            inputs=read,
            force=force or renewed or (before is not None and "model" in before.skipped),
        )
        if "model" not in made[format_.name, precision].skipped:
            listed.add(run, f"{format_.name}-{precision}")
    results = [made[format_.name, precision] for format_, precision in asked]
    if kept:
        raise UserError(f"{'; '.join(kept)}; what was finished before stays")
    if results and all("model" in result.skipped for result in results):
        raise UserError(f"none of the formats asked for could be exported; {results[0].skipped['model']}")
    return results


def _put_aside(run: Run, stage: str) -> Result | None:
    """The version of a stage that ``run.perform`` keeps while it is done again; None where it cannot be read."""
    with contextlib.suppress(UserError):
        return read_result(previous.folder(run.root, stage) / previous.RESULT)
    return None


def _damage(run: Run, stage: str, done: Result) -> str:
    """Why the files of a finished export are not those that it made; "" where they are, or it made none."""
    if "model" in done.skipped:
        return ""
    try:
        artifact = contract.read(run.folder(stage))
    except UserError as error:
        return str(error)
    digest = artifact.sha256
    made = done.details.get("sha256", digest)
    if digest != made:
        return f"{run.folder(stage)} holds another file (sha256 {digest[:12]}, made {made[:12]})"
    return next(iter(contradictions(artifact)), "")


def perform_or_keep(
    kept: list[str],
    run: Run,
    stage: str,
    work: Callable[[Path], Outcome],
    *,
    recipe: Mapping[str, Any],
    inputs: Mapping[str, str],
    force: bool,
) -> Result:
    """``perform``; but finished files of these settings and inputs outlast a ``force`` that fails.

    kept: gets the line that says why.
    """
    before = run.result(stage)
    good = before is not None and "model" not in before.skipped
    if before is None or not good or before.inputs != inputs or differences(before.recipe, recipe):
        return perform(run, stage, work, recipe=recipe, inputs=inputs, force=force)

    def again(folder: Path) -> Outcome:
        outcome = work(folder)
        if "model" in outcome.skipped:
            raise UserError(f"{stage} was not made again: {outcome.skipped['model']}")
        return outcome

    try:
        return perform(run, stage, again, recipe=recipe, inputs=inputs, force=force)
    except UserError as error:
        kept.append(str(error))
        return before


def _checkpoint(run: Run, recipe: config.Recipe, data: Data) -> tuple[Path, str]:
    if recipe.export.source == "given":
        run.need("network", "export-file")
        return run.folder("network") / "network.safetensors", recipe.export.output
    if recipe.export.output == "features":
        run.need("pretrain", "pretrain")
        return run.folder("pretrain") / "backbone.safetensors", "features"
    if recipe.export.output == "scores":
        raise UserError(
            "export.output is scores, and the classifiers of this run were trained with a softmax over their classes; "
            "sigmoid scores are for networks from elsewhere: softedge export-file --activation sigmoid"
        )
    if not len(data.train.every) and not classifier.trained(run):
        raise UserError(f"{run.root} has no labelled images, and so no classifier to export; give --output features")
    source = classifier.source(run, recipe)
    if recipe.export.source == "best":
        say(classifier.why(run, source))
    return run.folder(source) / "classifier.safetensors", "probabilities"


def _source(recipe: config.Recipe, data: Data, checkpoint: Path, digest: str, output: str) -> Source:
    if recipe.export.source == "given":
        deployed = given.load(checkpoint)
    else:
        model: Backbone | Classifier
        model = backbones.load(checkpoint) if output == "features" else backbones.load_classifier(checkpoint)
        deployed = Deployed(model, model.spec if isinstance(model, Classifier) else data.spec)
        backbone = model.backbone if isinstance(model, Classifier) else model
        deployed.about = origin(digest, backbone.settings.name)
    data = dataclasses.replace(data, spec=deployed.spec)  # a network that was taught may see other pixels than its run

    @functools.cache
    def chosen() -> calibration.Calibration:
        calibrated = calibration.choose(data, recipe.export.calibration_images, recipe.seed)
        for line in calibrated.warnings:
            say(f"warning: {line}")
        return calibrated

    return prepare(deployed, checkpoint, chosen, _comparison(data), recipe.export.golden_images, recipe.seed)


def _comparison(data: Data) -> Images:
    late.require(data, "test")
    return next((images for images in (data.test, data.train, data.pretrain) if len(images.every)), data.pretrain)


def prepare(
    deployed: Deployed,
    checkpoint: Path,
    chosen: Callable[[], calibration.Calibration],
    images: Images,
    golden: int,
    seed: int,
) -> Source:
    """Put together what is exported, with a seeded sample of ``images`` to compare on (the golden ones first)."""
    picked = np.random.default_rng(seed + 1).permutation(len(images.every))[: golden + PARITY_IMAGES]
    compared = images.subset(images.left(picked))
    names = tuple(str(name) for name in compared.names)
    white = compared.white or {} if isinstance(compared, EncodedImages) else {}
    return Source(deployed, checkpoint, chosen, compared.prepared(deployed.spec), names, golden, white)


def origin(digest: str, backbone: str) -> dict[str, str]:
    """Where the weights come from, for the file's metadata."""
    return {
        "checkpoint_sha256": digest,
        "backbone": backbone,
        "softedge": __version__,  # also where it runs without having been installed
        "torch": version("torch"),
    }


def attempt(format_: Format, precision: str, source: Callable[[], Source], folder: Path) -> Outcome:
    """Export into ``folder``; a failure empties it and becomes the outcome's ``skipped["model"]``."""

    def make() -> Outcome:
        if (why := format_.missing()) is not None:
            raise UserError(why)
        return write(format_, precision, source(), folder)

    return export_or_skip(f"{format_.name}-{precision}", make, folder)


def export_or_skip(name: str, make: Callable[[], Outcome], folder: Path) -> Outcome:
    """What ``make`` writes into ``folder``, or an empty folder and the reason in ``skipped["model"]``."""
    try:
        return make()
    except (KeyboardInterrupt, MemoryError):
        _empty(folder)
        raise
    except Exception as error:  # converters raise every kind; one failing format must not take the others down
        _empty(folder)
        if isinstance(error, OSError) and error.errno is not None:
            raise
        if not isinstance(error, UserError):
            refuse_full(folder)
        first = first_line(error, at_most=300)
        reason = first if isinstance(error, UserError) else f"{type(error).__name__}: {first}"
        say(f"{name} was not exported: {reason}")
        return Outcome(details={"refused": True} if isinstance(error, Refused) else {}, skipped={"model": reason})


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
