"""Files of another network: they leave ``export/``, and ``deploy`` makes anew those that ``softedge export`` added."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping

from softedge import previous, registry
from softedge.config import Recipe
from softedge.errors import UserError
from softedge.export import contract, listed
from softedge.export.base import Format, open_format
from softedge.progress import say
from softedge.records import SEARCHED, Result
from softedge.run import Run


def outdated(run: Run, network: Mapping[str, str], asked: Collection[str]) -> list[str]:
    """The names of files of another network than ``network`` (path -> sha256), in ``export/`` or set aside before.

    Without those ``asked`` for, which are made anyway, and those that the int8 search writes.
    """
    exported = {name: _network_of(result) for name, result in run.results("export").items()}
    found = [name for name, before in exported.items() if before and before != network]
    found += [name for name in previous.retired(run.root, "export") if not run.folder(f"export/{name}").is_dir()]
    return sorted(
        {name for name in found if name not in asked and not name.endswith(SEARCHED) and _had_file(run, name)}
    )


def formats(recipe: Recipe, names: Collection[str]) -> list[tuple[Format, str]]:
    """The formats and precisions of files, as the recipe sets them; without those that nothing makes here any more."""
    found, wanted = [], recipe.export
    for name in names:
        target, _, precision = name.partition("-")
        try:
            format_ = open_format(target, wanted.batch, wanted.safe, wanted.float_prefix)
        except UserError as error:  # of a package that is not installed any more
            say(f"{name} is not made anew: {error}")
            continue
        found.append((format_, precision))
    return found


def set_aside_others(run: Run, network: Mapping[str, str], made: Collection[str]) -> None:
    """Files of another classifier than ``network`` (path -> sha256) leave ``export/``: what lies there together must
    answer alike.

    made: those that are made anew now.
    """
    for folder, result in run.results("export").items():
        before = _network_of(result)
        if before and before != network:
            kept = previous.retire(run.root, f"export/{folder}")
            listed.remove(run, folder)
            what = f"set aside in {previous.FOLDER}/" if kept else "removed, a mere record that no file was made"
            earlier = "an earlier " if before.keys() == network.keys() else ""
            anew = f"made anew from {'this one' if earlier else ', '.join(network)}" if folder in made else what
            say(f"export/{folder} was made from {earlier}{', '.join(before)}; {anew}")


def forget_impossible(run: Run, asked: Collection[str]) -> None:
    """Remove the records that a format has no such precision, of which nobody asks for a file any more."""
    has = {format_.name: format_.precisions for format_ in registry.formats()}
    for name, result in run.results("export").items():
        target, _, precision = name.partition("-")
        known = precision.removesuffix(SEARCHED) in has.get(target, {precision})
        if "model" in result.skipped and name not in asked and not known and not _had_file(run, name):
            shutil.rmtree(run.folder(f"export/{name}"))


def _network_of(result: Result) -> dict[str, str]:
    """The weights that a file was exported from: path -> sha256."""
    return {name: digest for name, digest in result.inputs.items() if name.endswith(".safetensors")}


def _had_file(run: Run, name: str) -> bool:
    """Whether there is a file of that name, or was: not a mere record that none could be made."""
    stage = f"export/{name}"
    return any((folder / contract.FILE).is_file() for folder in (run.folder(stage), previous.folder(run.root, stage)))
