"""What a source was found to hold, before screening and splitting; and the names that folders and files go by."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from softedge.data.images import EncodedImages, Images

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


def local_root() -> Path:
    """Where published data sets are kept: $SOFTEDGE_DATA, else ~/.cache/softedge."""
    return Path(os.environ.get("SOFTEDGE_DATA") or Path.home() / ".cache" / "softedge").expanduser()


def printable(name: str) -> str:
    r"""A file's name as text that any file can hold: bytes that are not UTF-8 become ``\xff``.

    ``FileImages.path`` finds the file by it.
    """
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
