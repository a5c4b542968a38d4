"""What a source was found to hold, before screening and splitting; and the names that folders and files go by."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from softedge.data.images import UNLABELLED, EncodedImages, Images

_FORMATS = "jpg|jpeg|jpe|jfif|png|bmp|gif|webp|tif|tiff|ppm|pgm|pbm|pnm|avif|heic|heif|jp2|tga"
EXTENSIONS = frozenset(f".{extension}" for extension in _FORMATS.split("|"))
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("unlabeled", "unlabelled"), "unlabelled"),
}


@dataclass(frozen=True)
class Inventory:
    """Images as they are in the source.

    splits: "train", "test" and "unlabelled", only those that are there.  labels index ``classes``.
    ignored: why -> how many files were ignored.  notices: what a person should know about the choice made.
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


def with_classes(inventory: Inventory, classes: Sequence[str]) -> Inventory:
    """The same images with labels that index ``classes``, in place of the source's own; () leaves them as they are.

    Images of a class that is not among them, or of a name that two of them have, have no label.
    """
    if not classes or tuple(classes) == inventory.classes:
        return inventory
    place = {name: number for number, name in enumerate(classes)}
    for name in (repeated := [name for name, count in Counter(classes).items() if count > 1]):
        del place[name]  # ImageNet has two classes called crane: nobody knows which of them a folder is
    number = np.array([place.get(name, UNLABELLED) for name in inventory.classes] + [UNLABELLED], np.int64)
    splits = {}
    for split, images in inventory.splits.items():
        splits[split] = images.subset(np.arange(len(images)))
        splits[split].labels = number[images.labels]  # UNLABELLED is -1, the last
    kinds = {
        "are not classes of the network": [name for name in inventory.classes if name not in (*place, *repeated)],
        "have the name of several of its classes": [name for name in inventory.classes if name in repeated],
    }
    lines = [
        f"{len(names)} of {len(inventory.classes)} folders {what} ({', '.join(names[:3])}"
        f"{', ...' if len(names) > 3 else ''}): no labels"
        for what, names in kinds.items()
        if names
    ]
    return replace(inventory, classes=tuple(classes), splits=splits, notices=(*inventory.notices, *lines))


def local_root() -> Path:
    """Where published data sets are kept: $SOFTEDGE_DATA, else ~/.cache/softedge."""
    return Path(os.environ.get("SOFTEDGE_DATA") or Path.home() / ".cache" / "softedge").expanduser()


def printable(name: str) -> str:
    r"""A file's name as text that any file can hold: bytes that are not UTF-8 become ``\xff``.

    ``FileImages.path`` finds the file by it.
    """
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
