"""A run folder and its recipe: made, opened again, and held under its lock before anything is written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from softedge import config, previous
from softedge.config import Recipe
from softedge.errors import OtherSettings, UserError, quoted
from softedge.files import expanded, read_bytes
from softedge.run import Run, differences, write_bytes, write_text

# A run is one training: these sections may not change under it. The others belong to single stages, which compare
# their own settings.
IDENTITY = ("seed", "data", "backbone", "augment", "ssl", "optim")
# In them: how fast, and what is written beside. A training resumes with others to the same bits.
_HOW = {"data": ("workers",), "ssl": ("log", "checkpoint_every")}

DEFAULT_RECIPE = {"digits": "digits"}
FOLDER_RECIPE = "small-domain"
PLAN = "plan.json"
ASKED = "asked.json"  # the options that deploy was given
_ASKED = ("recipe.toml", PLAN, ASKED)
_MARKS = (".lock", ".stamps.json", "begun.json")  # of no use without what they were made for


def choose_recipe(
    data: str | None, recipe: str | None, overrides: Sequence[str] = (), out: str | Path | None = None
) -> Recipe:
    """The resolved recipe: the named one, that of the run in ``out`` if it exists, or the one that suits the data.

    ``--set`` values win.
    """
    if recipe is None and data is None and out is not None and (kept := Run(out).root / "recipe.toml").is_file():
        return config.build(config.load(str(kept)).model_dump(mode="json"), overrides)
    if recipe is None:
        recipe = DEFAULT_RECIPE.get(data or "digits", FOLDER_RECIPE)
    values = config.load(recipe).model_dump(mode="json")
    values["data"]["source"] = data or values["data"]["source"]
    chosen = config.build(values, overrides, source=f"{recipe}.toml with --set")
    source = expanded(chosen.data.source)
    if chosen.data.source.strip() and source.is_dir():  # a later command may start elsewhere
        return replaced(chosen, data={"source": str(source.resolve())})
    return chosen


@contextlib.contextmanager
def started(out: str | Path, recipe: Recipe, force: bool = False) -> Iterator[Run]:
    """Create the run folder, or open it again when it was made with the same training recipe; hold it locked.

    The lock comes first: a refused command must not change the recipe of a run that another process is working on.  Nor
    does one that a stage refuses (``OtherSettings``), nor one that fails while the earlier training stands: recipe and
    plan are put back, and the run goes on as before.  A new run that is refused before any work leaves nothing.
    """
    run = Run(out)
    refuse_foreign(run.root)
    with _without_leftovers(run), run.locked():
        path = run.root / "recipe.toml"
        before = config.load(str(path)) if path.exists() else None
        if before is not None:
            changed = differences(identity(before), identity(recipe))
            if changed and not force and has_work(run):
                raise UserError(
                    f"{out} holds a run with another recipe ({'; '.join(changed[:6])}); "
                    "use another --out, or --force to redo what depends on it"
                )
        kept = {name: read_bytes(run.root / name) for name in _ASKED if (run.root / name).is_file()}
        if force and before is not None:
            write_bytes(previous.recipe(run.root), kept[path.name])
        write_text(path, config.to_toml(recipe))
        try:
            yield run
        except BaseException as error:
            stands = before is not None and _edited(run, recipe) and not _edited(run, before)
            for name in _ASKED if stands or isinstance(error, OtherSettings) else ():
                if name in kept:
                    write_bytes(run.root / name, kept[name])
                else:
                    (run.root / name).unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _without_leftovers(run: Run) -> Iterator[None]:
    """Removes recipe, plan and folders of a run that a UserError ends before there is anything else in it."""
    made = [folder for folder in (run.root, *run.root.parents) if not folder.exists()]
    had = (run.root / "recipe.toml").exists()
    try:
        yield
    except UserError:
        there = [path for path in run.root.rglob("*") if not path.is_dir()]
        if not had and all(path.name in (*_ASKED, *_MARKS) for path in there):
            for path in there:
                path.unlink(missing_ok=True)
            for folder in (*sorted(run.root.rglob("*"), reverse=True), *made):
                with contextlib.suppress(OSError):  # somebody else's
                    folder.rmdir()
        raise


def refuse_foreign(out: Path) -> None:
    """UserError for a file, and for a folder that holds something else than a run."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; give a folder that does not exist yet, or an earlier run")
    if out.is_dir() and not (out / "recipe.toml").exists() and any(p.name != ".lock" for p in out.iterdir()):
        raise UserError(f"{out} is not empty and not a softedge run (it has no recipe.toml); use another --out")


def absolute(file: Path) -> str:
    """Where a file is, as a run remembers it."""
    return str(expanded(file).resolve())


def refuse_another(run: Run, stage: str, file: Path, inputs: Mapping[str, str]) -> None:
    """UserError where a finished stage was made of another file (``details["from"]``), with other content.

    inputs: name -> sha256 of ``file``.  The same file may have changed: what is made of it follows.
    """
    done = None
    with contextlib.suppress(UserError):  # damaged: perform says so
        done = run.result(stage)
    if done is None or {*done.inputs.values()} == {*inputs.values()}:
        return
    before = str(done.details.get("from", next(iter(done.inputs), "")))
    if before not in (absolute(file), file.name):
        raise UserError(
            f"{run.folder(stage)} is what was made of {before}; give another --out, or --force to replace it"
        )


def has_work(run: Run) -> bool:
    """Whether anything would be lost or mixed: a command that was stopped early leaves a recipe and nothing else."""
    return run.folder("pretrain").exists() or any(run.root.rglob("result.json"))


def reopen(run: str | PathLike[str], overrides: Sequence[str] = ()) -> tuple[Run, Recipe]:
    """An existing run and its recipe, with ``--set`` values applied for this command."""
    run = Run(run).root
    path = run / "recipe.toml"
    if not path.is_file():
        if run.suffix and not run.exists():  # a mistyped name of a file, or of a run
            raise UserError(f"{run} is not there; give a run folder, e.g. runs/mine, or a file that exists")
        around = next((p for p in run.resolve().parents if (p / "recipe.toml").is_file()), None)
        if run.exists() and around is not None:
            raise UserError(f"{run} is part of the run {around}; give the run's folder")
        if run.is_file():
            raise UserError(f"{run} is a file, not a run; softedge export-file makes a run of trained weights")
        if not run.exists():
            raise UserError(
                f"{run} is not a softedge run (there is no such folder); make one with: "
                f"softedge deploy --data PHOTOS --out {quoted(run)}"
            )
        raise UserError(  # nothing can be made there: deploy refuses a folder that holds something else
            f"{run} is not a softedge run (it has no recipe.toml); give a run folder, e.g. runs/mine. If it holds "
            f"your images, make a run of them with: softedge deploy --data {quoted(run)}"
        )
    return Run(run), with_overrides(Run(run), config.load(str(path)), overrides)


@contextlib.contextmanager
def reopened(
    run: str | PathLike[str], overrides: Sequence[str] = (), **sections: dict[str, Any]
) -> Iterator[tuple[Run, Recipe]]:
    """``reopen`` under the run's lock, with the values of a command's own options replaced (None: not given)."""
    reopen(run)  # a folder that is not a run is refused before a lock file is put into it
    with Run(run).locked():
        opened, recipe = reopen(run, overrides)
        refuse_edited(opened, recipe)
        yield opened, replaced(recipe, **sections)


def refuse_edited(run: Run, recipe: Recipe) -> None:
    """UserError when recipe.toml says something else than what the run was trained with, by the training's own record.

    Compared are the values that both have: a setting that a later version added does not make a trained run useless.
    """
    run.result("pretrain")  # one that is damaged is refused
    if changed := _edited(run, recipe):
        raise UserError(
            f"{run.root / 'recipe.toml'} was changed since the run was trained ({'; '.join(changed[:4])}); "
            "change it back, or train another run with softedge pretrain --out"
        )


def identity(recipe: Recipe) -> dict[str, Any]:
    """What makes the run the training that it is, as plain values."""
    values = recipe.section(*IDENTITY)
    for section, keys in _HOW.items():
        values[section] = {key: value for key, value in values[section].items() if key not in keys}
    return values


def _edited(run: Run, recipe: Recipe) -> list[str]:
    """What the finished training of the run was done with otherwise; nothing where there is none."""
    with contextlib.suppress(UserError):
        if (trained := run.result("pretrain")) is not None:
            now = recipe.section(*IDENTITY)
            return differences(_shared(trained.recipe, now), _shared(now, trained.recipe))
    return []


def _shared(values: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` without the keys that ``others`` has not, one level deep."""
    kept = {key: value for key, value in values.items() if key in others}
    for key, value in kept.items():
        if isinstance(value, Mapping):
            kept[key] = {k: v for k, v in value.items() if k in others[key]}
    return kept


def with_overrides(run: Run, recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """``--set`` values applied to the recipe of an existing run; refused where they would change its training."""
    if not overrides:
        return recipe
    changed = config.build(recipe.model_dump(mode="json"), overrides, source="recipe.toml with --set")
    if touched := differences(identity(recipe), identity(changed)):
        raise UserError(
            f"--set would change what {run.root} was trained with ({'; '.join(touched[:4])}); "
            "start another run with softedge pretrain --out"
        )
    return changed


def replaced(recipe: Recipe, **sections: dict[str, Any]) -> Recipe:
    """A copy of the recipe with some values of some sections replaced (None: left as it is), validated."""
    values = recipe.model_dump(mode="json")
    for section, changes in sections.items():
        values[section] |= {key: value for key, value in changes.items() if value is not None}
    return config.build(values, source="the command line")
