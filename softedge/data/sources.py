"""What DATA can be: a published data set by name, a folder, or tar shards. Finding only: nothing is decoded here."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from softedge.data.images import EncodedImages, Images
from softedge.errors import UserError, did_you_mean

NAMES = ("digits", "cifar10", "cifar100", "stl10", "imagenet")


@dataclass(frozen=True)
class Found:
    """Images as they lie in the source, before screening and splitting.

    splits: "train", "test" and "unlabelled", only those that are there.  labels index ``classes``.
    ignored: why -> how many files were passed over.  notices: what a person should know about the choice made.
    """

    source: str
    classes: tuple[str, ...]
    splits: Mapping[str, Images]
    ignored: Mapping[str, int] = field(default_factory=dict)
    notices: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(len(images) for images in self.splits.values())

    @property
    def in_files(self) -> bool:
        return all(isinstance(images, EncodedImages) for images in self.splits.values())


def local_root() -> Path:
    """Where published data sets are kept: $SOFTEDGE_DATA, else ~/.cache/softedge."""
    return Path(os.environ.get("SOFTEDGE_DATA") or Path.home() / ".cache" / "softedge").expanduser()


def canonical(source: str) -> str:
    """The name of a data set as it is, a folder as its absolute path: what a run remembers."""
    return source if source in NAMES else str(Path(source).expanduser().resolve())


def find(source: str) -> Found:
    """Find the images of a data set name or a folder; UserError says what is wrong with it."""
    from softedge.data import folders, published, shards

    if source in NAMES:
        own = local_root() / source
        if (own / "train").is_dir():  # an unpacked copy with class folders needs no download and no special reader
            return folders.find(own, source, published.readable_classes(own))
        return _read_once(source, local_root())
    path = Path(source).expanduser()
    tars = shards.shards_of(path.resolve()) if path.exists() else {}
    if tars:
        return shards.find(tars, canonical(source))
    if path.is_dir():
        return folders.find(path.resolve(), canonical(source))
    if path.exists():
        raise UserError(f"data '{source}' is a file; give the folder that holds the images, or a .tar file")
    raise UserError(f"data '{source}' is not there{_near(source, path)}")


@functools.lru_cache(maxsize=2)
def _read_once(name: str, root: Path) -> Found:
    """A published data set; it does not change, and reading it takes seconds."""
    from softedge.data import published

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
