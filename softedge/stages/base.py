"""What a stage is, and the one way in which a command runs it on a run.

A command names a run folder and options. ``on_run`` opens the run under its lock, puts ``--set`` and the options into
the recipe, reads the data back and calls the stage. A stage is called with (run, recipe, data, force), by ``on_run``
and by ``deploy`` alike. Most are a ``Stage``: a declaration of what the result depends on, and the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from softedge.config import Recipe
from softedge.errors import ADD_FORCE, UserError
from softedge.records import Outcome, Result
from softedge.run import Run, perform, read_json, sha256, sha256_of, write_json
from softedge.stages.opening import reopened

if TYPE_CHECKING:
    from softedge.data.images import Data

R = TypeVar("R", covariant=True)

INDEX = "data/index.json"  # every image of the run, its hash, label and split
BACKBONE = "pretrain/backbone.safetensors"
_ASIDE = "set-aside.json"  # what was set aside when unfinished work was begun


class Performs(Protocol[R]):
    """How every stage is called."""

    def __call__(self, run: Run, recipe: Recipe, data: Data, force: bool = False) -> R: ...


@dataclass(frozen=True)
class Stage:
    """A stage with one result, done once (``run.perform``): skipped when done, refused when done with other settings.

    name: its folder in the run.
    settings: the values of the recipe that its result depends on.
    reads: the files it reads (a str lies in the run, a Path anywhere); their hashes are the inputs of its result.
    work: (run, recipe, data, folder) -> Outcome; writes into the folder.
    needs: the splits of the data of which enough must be left (``data.late``) for the work to be done.
    ready: raises UserError where the work cannot be done, before anything is hashed or written.
    after: stages that must be finished before.
    renew: done again where the files it reads have changed and its settings have not.
    resumable: the work resumes in a folder that was left half-finished.
    """

    name: str | Callable[[Recipe], str]
    settings: Callable[[Recipe], Mapping[str, Any]]
    reads: Callable[[Run, Recipe], Iterable[str | Path]]
    work: Callable[[Run, Recipe, Data, Path], Outcome]
    ready: Callable[[Run, Recipe, Data], None] | None = None
    after: Callable[[Recipe], Iterable[str]] | tuple[str, ...] = ()
    resumable: bool = False
    renew: bool = False
    needs: tuple[str, ...] = ("train", "test")

    def __call__(self, run: Run, recipe: Recipe, data: Data, force: bool = False) -> Result:
        for before in self.after(recipe) if callable(self.after) else self.after:
            run.need(before, before)
        if self.ready is not None:
            self.ready(run, recipe, data)
        from softedge.data import late

        name = self.name if isinstance(self.name, str) else self.name(recipe)
        result = perform(
            run,
            name,
            lambda folder: self._counted(run, recipe, data, folder),
            recipe=self.settings(recipe),
            inputs=hashes(run, self.reads(run, recipe)),
            force=force,
            resumable=self.resumable,
            renew=self.renew,
        )
        late.tell_change(name, result, data)
        return result

    def _counted(self, run: Run, recipe: Recipe, data: Data, folder: Path) -> Outcome:
        """The work, and how many images were set aside before it."""
        from softedge.data import late

        late.require(data, *self.needs)
        aside = late.record(data)
        if not self.resumable:
            return late.recorded(self.work(run, recipe, data, folder), aside)
        mark = folder / _ASIDE
        if (aside or mark.exists()) and _begun_on_others(folder, aside):
            raise UserError(
                f"{folder} holds unfinished work on other images: some were set aside, or brought back, since; "
                f"{ADD_FORCE} to start over"
            )
        if aside:
            write_json(mark, aside)
        try:
            outcome = self.work(run, recipe, data, folder)
        finally:
            if {path.name for path in folder.iterdir()} <= {_ASIDE, "begun.json"}:  # nothing to resume from
                mark.unlink(missing_ok=True)
        mark.unlink(missing_ok=True)
        return late.recorded(outcome, aside)


def _begun_on_others(folder: Path, aside: Mapping[str, Any]) -> bool:
    """Whether a folder holds half a training on other images: it would be resumed in other batches."""
    if {path.name for path in folder.iterdir()} <= {_ASIDE, "begun.json"}:
        return False
    return bool((read_json(folder / _ASIDE) if (folder / _ASIDE).exists() else {}) != aside)


def on_run(
    stage: Performs[R],
    run: str | PathLike[str],
    set: Sequence[str] = (),
    force: bool = False,
    **sections: dict[str, Any],
) -> R:
    """Run a stage on an existing run. ``sections``: the options of the command, as values of the recipe's sections.

    set: values for the recipe ("probe.few_labels=5"), for this command only; refused where they would change what the
    run was trained with.
    """
    from softedge.stages.data import opened

    with reopened(run, set, **sections) as (opened_run, recipe):
        return stage(opened_run, recipe, opened(opened_run, recipe), force)


def hashes(run: Run, files: Iterable[str | Path]) -> dict[str, str]:
    """name -> sha256. A str is a file of the run, a Path can be anywhere; "absent" for those that are not there.

    UserError for weights of the run that are no longer those that their stage made.
    """

    def of(file: str | Path) -> str:
        if isinstance(file, str):
            return sha256_of(run, file)
        return sha256(file) if file.is_file() else "absent"

    return {str(file): of(file) for file in files}


def network(recipe: Recipe) -> dict[str, Any]:
    """The network that the recipe asks for, whatever its weights start from."""
    return {key: value for key, value in recipe.section("backbone")["backbone"].items() if key != "weights"}


def start_files(inits: Iterable[str]) -> list[str | Path]:
    """The files of the weights that a training starts from: "ssl", "random", "imagenet" or a weights file each."""
    files: list[str | Path] = []
    for init in inits:
        if init == "ssl":
            files.append(BACKBONE)
        elif init not in ("random", "imagenet"):
            if not Path(init).is_file():
                raise UserError(f"initial weights '{init}': not a file; use ssl, random, imagenet or a weights file")
            files.append(Path(init))
    return files


def begun_from(run: Run, recipe: Recipe, init: str) -> str:
    """What "ssl", "random", "imagenet" or a weights file is in this run, in words: "ssl" need not have been trained."""
    if init == "random":
        return "random weights"
    if init != "ssl":
        return "ImageNet weights" if init == "imagenet" else Path(init).name
    from softedge.weights import starting

    done = run.result("pretrain")
    if recipe.ssl.epochs == 0 or (done is not None and done.details.get("kept") == "start"):
        return starting.in_words(recipe.backbone)
    return f"the network pretrained with {recipe.ssl.method}"


def need_labels(run: Run, data: Data, what_for: str) -> None:
    """UserError where a classifier cannot be trained, or nothing could say how good it is."""
    if not len(data.train.every):
        raise UserError(f"{run.root} has no labelled images {what_for}; add class folders to the data")
    if not len(data.test.every):
        raise UserError(f"{run.root} has no labelled test images to measure on; add a test split with labels")
