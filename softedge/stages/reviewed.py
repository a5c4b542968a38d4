"""What a review works on: a run, or a folder of images that becomes one with the weights that there are."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path

from softedge import registry
from softedge.config import Recipe
from softedge.data import sources
from softedge.data.images import Data, FileImages
from softedge.data.naming import text_of
from softedge.errors import UserError, quoted
from softedge.progress import say
from softedge.run import Run, sha256
from softedge.stages import pretrain
from softedge.stages.base import INDEX
from softedge.stages.data import changed, opened
from softedge.stages.opening import choose_recipe, reopened, replaced, started
from softedge.weights import starting

RECIPE = "photos"  # starting weights, no pretraining


@contextlib.contextmanager
def opened_for_review(
    source: str | PathLike[str],
    out: str | Path | None = None,
    set: Sequence[str] = (),
    ready: Callable[[Data], None] = lambda data: None,
) -> Iterator[tuple[Run, Recipe, Data]]:
    """A run with its images, held locked.

    source: a run, or images: a folder or a known name.  Of images the run ``out`` is made (runs/NAME-review by
    default), which keeps the starting weights; where images or labels have changed since, it follows them.
    ready: raises UserError where there is nothing to do; of images no run is left then.
    """
    if (Run(source).root / "recipe.toml").is_file():
        if out is not None:
            raise UserError(f"{source} is a run, and --out is for a folder of images; leave it out")
        if registry.owner(source):
            raise UserError(f"{source} is a detection run, and labels are reviewed of classes only")
        with reopened(source, set) as (run, recipe):
            data = opened(run, recipe, tolerant=True)
            ready(data)
            yield run, recipe, data
        return
    recipe = choose_recipe(text_of(source), RECIPE, set)
    sources.find(recipe.data.source)  # a mistyped name shows before a folder is made
    weights = starting.resolve(recipe.backbone).weights
    if recipe.ssl.epochs == 0 and weights == "random":
        raise UserError(
            f"there are no weights of {recipe.backbone.name} here, and random ones say nothing about images; pretrain "
            f"first: softedge pretrain --data {quoted(source)} --out runs/mine, then give runs/mine"
        )
    recipe = replaced(recipe, backbone={"weights": weights})
    name = Path(recipe.data.source).name
    with started(out or Path("runs") / f"{name}-review", recipe) as run:
        new = not run.folder("data").exists()
        data = opened(run, recipe, changed(run, recipe), tolerant=True)
        try:
            ready(data)
        except UserError:
            if new:
                shutil.rmtree(run.folder("data"))
            raise
        kept = run.result("pretrain")
        outdated = kept is not None and kept.inputs.get(INDEX) != sha256(run.root / INDEX)
        pretrain.stage(run, recipe, data, outdated)
        yield run, recipe, data


def say_what_follows(data: Data, file: Path) -> None:
    """The command that shows the images of ``file`` in its order; of shards and named data there is none."""
    if isinstance(data.pretrain, FileImages) and Path(data.source).is_dir():
        say(f"look through them: softedge review {quoted(data.source)} --order {quoted(file)}")
