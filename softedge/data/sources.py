"""What DATA can be: a named data set, a folder, or tar shards. Nothing is decoded here."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

from softedge.data import folders, published, shards, tar_files
from softedge.data.inventory import Inventory, local_root
from softedge.data.spelling import bare
from softedge.errors import UserError, did_you_mean

NAMES = ("digits", "cifar10", "cifar100", "stl10", "imagenet")


def canonical(source: str) -> str:
    """The name of a data set as it is, a folder as its absolute path: what a run remembers."""
    return source if source in NAMES else str(Path(source).expanduser().resolve())


def find(source: str) -> Inventory:
    """Find the images of a data set name or a folder; UserError says what is wrong with it."""
    if source in NAMES:
        own = local_root() / source
        if (own / "train").is_dir():  # an unpacked copy with class folders needs no download and no special reader
            return folders.find(own, source, published.readable_classes(own))
        return _read_once(source, local_root())
    if not source.strip():  # of a shell's variable that is not set; Path("") is the folder one is in
        raise UserError("the data set has an empty name; give a folder of images, or . for this one")
    path = Path(source).expanduser()
    tars = tar_files.shards_of(path.resolve()) if path.is_dir() or path.is_file() else {}
    if tars:
        return _with_doubts(shards.find(tars, canonical(source)))
    if path.is_dir():
        return _with_doubts(folders.find(path.resolve(), canonical(source)))
    if path.exists():
        raise UserError(f"data '{source}' is a file; give the folder that holds the images, or a .tar file")
    raise UserError(f"data '{source}' does not exist{_near(source, path)}")


def _with_doubts(inventory: Inventory) -> Inventory:
    """With a notice where two classes differ in capitals, spaces or leading zeros alone: they may be one."""
    spelt: dict[str, list[str]] = {}
    for name in inventory.classes:
        spelt.setdefault(bare(name), []).append(name)
    alike = [" and ".join(map(repr, names)) for names in spelt.values() if len(names) > 1]
    if not alike:
        return inventory
    line = f"classes that differ in spelling alone, and are learned as different ones: {'; '.join(alike[:3])}"
    return replace(inventory, notices=(*inventory.notices, line))


@functools.lru_cache(maxsize=2)
def _read_once(name: str, root: Path) -> Inventory:
    """A published data set; it does not change, and reading it takes seconds."""
    return published.LOADERS[name]()


def _near(source: str, path: Path) -> str:
    """What the user may have meant: a data set name, or a folder that is beside."""
    beside: list[str] = []
    if path.parent.is_dir():
        beside = [str(p) for p in path.parent.iterdir() if p.is_dir() and not p.name.startswith(".")]
    suggestion = did_you_mean(source, [*NAMES, *beside])
    if "did you mean" in suggestion:
        return suggestion
    return f"; give a folder of images or a known name: {', '.join(NAMES)}"
