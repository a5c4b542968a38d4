"""Stage "data": find the images, set the bad ones aside, split, measure, and write down what was decided.

Also the command ``softedge data``, which only looks, and its ``--shrink``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from softedge.config import Recipe
from softedge.data import load
from softedge.data.examining import examine, input_spec, preprocessing_origin
from softedge.data.images import Data
from softedge.data.index import announce, fingerprint, index_lines, root_of, summary
from softedge.data.sources import canonical, find
from softedge.progress import say
from softedge.records import Outcome, Result
from softedge.run import Run, perform, write_text
from softedge.stages.opening import choose_recipe
from softedge.weights import starting


def prepare(run: Run, recipe: Recipe, source: str, force: bool = False) -> Result:
    """Write data/index.json and data/result.json; skipped when the same images were prepared before."""
    images = find(source)
    settings = {**recipe.section("data")["data"], "source": canonical(source), "seed": recipe.seed}
    settings.pop("workers")  # how fast, not what
    if recipe.backbone.weights != "random":  # their preprocessing becomes that of the data
        settings["weights"] = starting.resolve(recipe.backbone).weights

    def work(folder: Path) -> Outcome:
        examined = examine(source, recipe)
        announce(examined)
        spec = input_spec(examined, recipe)
        origin = preprocessing_origin(recipe)
        if recipe.backbone.weights != "random":
            say(f"data: {origin}")
        write_text(folder / "index.json", "".join(index_lines(examined, spec)))
        details = {**summary(examined, spec), "preprocessing": origin, "root": root_of(images)}
        return Outcome(metrics=dict(examined.counts()), details=details)

    inputs = {"images": fingerprint(images), **starting.inputs(recipe.backbone)}
    return perform(run, "data", work, recipe=settings, inputs=inputs, force=force)


def opened(run: Run, recipe: Recipe, force: bool = False) -> Data:
    """The images of a run, prepared where that was not done yet."""
    prepare(run, recipe, recipe.data.source, force=force)
    return load(run)


def inspect(data: str, recipe: str | None = None, set: Sequence[str] = ()) -> dict[str, Any]:
    """What is in a data set: images, classes, bad files, and how it would be split. Writes nothing."""
    from softedge.data import describe

    return describe(data, choose_recipe(data, recipe, set))


def shrink(data: str, out: str | Path, recipe: str | None = None, set: Sequence[str] = ()) -> str:
    """Copy a folder with its large photos made as small as the recipe allows; what was done, as text."""
    from softedge.data.shrinking import shrink as copy

    return copy(data, Path(out), choose_recipe(data, recipe, set)).text()
