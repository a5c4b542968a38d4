"""Stage "data": find the images, set the bad ones aside, split, measure, and write down what was decided.

Also the command ``softedge data``, which only looks, and its ``--shrink``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from softedge.config import Recipe
from softedge.data import keeping, load, near_pairs, sources, stamps
from softedge.data.changes import since
from softedge.data.examining import Examined, examine, input_spec, preprocessing_origin
from softedge.data.images import Data, EncodedImages
from softedge.data.index import announce, fingerprint, images_of, index_lines, root_of, summary
from softedge.data.inventory import with_classes
from softedge.data.naming import text_of
from softedge.data.stamps import content_hashes
from softedge.errors import UserError, quoted
from softedge.export import calibration
from softedge.files import expanded
from softedge.progress import say
from softedge.records import InputSpec, Outcome, Result
from softedge.run import Run, differences, perform, write_text
from softedge.stages.opening import choose_recipe
from softedge.weights import starting


def prepare(
    run: Run, recipe: Recipe, source: str, force: bool = False, tolerant: bool = False, cautioned: bool = False
) -> Result:
    """Stage "data": writes data/index.json and data/result.json; skipped when it was done before.

    Images that came since are named, and the run goes on with those it knows. Images that are gone or have changed are
    refused until the model is trained; then they are also named, and later stages use what the run kept.
    tolerant: as ``examine``; a later call without it refuses what this one let pass.  cautioned: as ``announce``.
    """
    settings = {**recipe.section("data")["data"], "source": sources.canonical(source), "seed": recipe.seed}
    settings.pop("workers")  # how fast, not what
    for name, default in (("classes", []), ("hold_out", "labelled")):  # runs made before there was a choice have none
        if settings[name] == default:
            settings.pop(name)
    if recipe.backbone.weights != "random":  # their preprocessing becomes that of the data
        settings["weights"] = starting.resolve(recipe.backbone).weights
    weights = starting.inputs(recipe.backbone)
    done = None if force else run.result("data")
    trained = run.result("pretrain") is not None
    try:
        inventory = with_classes(sources.find(source), recipe.data.classes)
    except UserError as error:
        if done is None or not trained or differences(done.recipe, settings):
            raise
        say(f"data: {error}; the run goes on with what it kept")
        return done
    hashes = content_hashes(inventory.splits, run.root / stamps.FILE)
    same = done is not None and all(done.inputs.get(name) == content for name, content in weights.items())
    if done is not None and same and not differences(done.recipe, json.loads(json.dumps(settings))):
        again = f"softedge deploy --update --out {quoted(run.root)} trains on them"
        changes = since(run.folder("data") / "index.json", inventory, hashes)
        if changes.of_before and not trained:
            raise UserError(f"the images of {run.root} are not those it was made with: {changes}; {again}")
        if not tolerant and (why := done.details.get("untrainable")):
            raise UserError(str(why))
        say(f"data: {changes} since this run was made; {again}" if changes else "data: already done, skipped")
        return done

    def work(folder: Path) -> Outcome:
        examined = examine(source, recipe, tolerant)
        announce(examined, cautioned)
        spec = input_spec(examined, recipe)
        origin = preprocessing_origin(recipe)
        if recipe.backbone.weights != "random":
            say(f"data: {origin}")
        write_text(folder / "index.json", "".join(index_lines(examined, spec)))
        write_text(folder / near_pairs.FILE, near_pairs.table(examined.near))
        details = {**summary(examined, spec), "preprocessing": origin, "root": root_of(inventory)}
        if examined.untrainable:
            details["untrainable"] = examined.untrainable
        details |= _keep(examined, recipe, spec, folder)
        return Outcome(metrics=dict(examined.counts()), details=details)

    inputs = {"images": fingerprint(inventory, hashes), **weights}
    return perform(run, "data", work, recipe=settings, inputs=inputs, force=force)


def _keep(examined: Examined, recipe: Recipe, spec: InputSpec, folder: Path) -> dict[str, int]:
    """Keep the test images, then those that calibrate int8, as far as there is room; how many of each."""
    splits = {name: [item for item in examined.items if item.split == name] for name in ("test", "train", "unlabelled")}
    pool = splits["train"] + splits["unlabelled"]  # as ``load`` orders them
    drawn = calibration.draw(len(pool), recipe.export.calibration_images, recipe.seed)
    counts, room = {"kept": 0, "kept_calibration": 0}, keeping.LIMIT_BYTES
    for key, items in zip(counts, (splits["test"], [pool[index] for index in drawn])):
        rows = [(item.name, item.sha256, item.label) for item in items]
        images = images_of(examined.inventory, root_of(examined.inventory), rows, spec, examined.white)
        if isinstance(images, EncodedImages):
            counts[key], size = keeping.keep(images, keeping.folder(folder), room)
            room -= size
    return counts


def changed(run: Run, recipe: Recipe) -> bool:
    """Whether images have come, gone or changed since the run was made; False for a new run, or all images gone."""
    index = run.folder("data") / "index.json"
    try:
        inventory = sources.find(recipe.data.source)
    except UserError:
        return False
    return index.is_file() and bool(since(index, inventory, content_hashes(inventory.splits, run.root / stamps.FILE)))


def opened(run: Run, recipe: Recipe, force: bool = False, tolerant: bool = False, cautioned: bool = False) -> Data:
    """The images of a run, prepared where that was not done yet.

    tolerant: of labels too few to train with.  cautioned: as ``announce``.
    """
    prepare(run, recipe, recipe.data.source, force, tolerant, cautioned)
    return load(run)


def inspect(
    data: str | Path, recipe: str | None = None, set: Sequence[str] = (), pairs: str | Path | None = None
) -> dict[str, Any]:
    """What is in a data set: images, classes, bad files, near-duplicates, and how it would be split.

    pairs: a CSV file for all pairs of near-duplicates; nothing else is written.
    """
    from softedge.data import describe

    data = text_of(data)
    planned = recipe is None and not set and expanded(data).is_dir()
    found = describe(data, choose_recipe(data, recipe, set), Path(pairs) if pairs else None)
    return {**found, "planned": planned}


def shrink(data: str | Path, out: str | Path, recipe: str | None = None, set: Sequence[str] = ()) -> str:
    """Copy a folder with its large photos made as small as the recipe allows; what was done, as text."""
    from softedge.data.shrinking import shrink as copy

    data = text_of(data)
    return copy(data, Path(out), choose_recipe(data, recipe, set)).text()
