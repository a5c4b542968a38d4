"""What DATA can be: a named data set, a folder, or tar shards. Nothing is decoded here."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

from softedge.data import folders, published, shards, tar_files
from softedge.data.inventory import Inventory, local_root
from softedge.data.naming import NAMES, refuse_missing
from softedge.data.spelling import bare
from softedge.files import expanded


def canonical(source: str) -> str:
    """The name of a data set as it is, a folder as its absolute path: what a run remembers."""
    return source if source in NAMES else str(expanded(source).resolve())


def find(source: str) -> Inventory:
    """Find the images of a data set name or a folder; UserError says what is wrong with it."""
    if source in NAMES:
        own = local_root() / source
        if (own / "train").is_dir():  # an unpacked copy with class folders needs no download and no special reader
            return folders.find(own, source, published.readable_classes(own))
        return _read_once(source, local_root())
    refuse_missing(source)
    path = expanded(source)
    tars = tar_files.shards_of(path.resolve())
    if tars:
        return _with_doubts(shards.find(tars, canonical(source)))
    return _with_doubts(folders.find(path.resolve(), canonical(source)))


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
