"""Which tar files a path stands for, and which of them can be read in place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from softedge.data.inventory import EXTENSIONS, SPLITS
from softedge.errors import UserError

_UNPACK = {"gz": "gunzip", "tgz": "gunzip", "bz2": "bunzip2", "tbz2": "bunzip2", "xz": "unxz", "txz": "unxz"} | {
    "zst": "unzstd",
    "tzst": "unzstd",
    "lz4": "unlz4",
}
_MAGIC = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zst"}


def shards_of(path: Path) -> dict[str, list[Path]]:
    """The tar files that ``path`` stands for, by split; {} when it is something else.

    A tar file, a folder that holds nothing else, or train/ val/ test/ unlabeled/ that each do. In one folder the files
    may be named after splits, as imagenet1k-train-000.tar and val-000.tar are: all of them, or UserError.
    """
    if path.is_file():
        refuse_compressed(path)
        return {"train": [path]} if path.suffix.lower() == ".tar" else {}
    if tars := _only_tars(path):
        return _by_name(tars)
    folders = [p for p in sorted(path.iterdir()) if p.is_dir() and not p.name.startswith(".")]
    by_split: dict[str, list[Path]] = {}
    for folder in folders:
        if folder.name.lower() not in SPLITS or not (tars := _only_tars(folder)):
            return {}
        by_split.setdefault(SPLITS[folder.name.lower()], []).extend(tars)
    return by_split


def is_tar(name: str) -> bool:
    """Whether a file is called like a tar file, compressed ones included."""
    return name.lower().endswith(".tar") or bool(compression(Path(name)))


def refuse_compressed(path: Path) -> None:
    """UserError for a compressed tar file, by its name or its first bytes: an image in it has no place to read from."""
    kind = compression(path)
    if not kind and path.suffix.lower() == ".tar":
        with open(path, "rb") as file:
            head = file.read(8)
        kind = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "")
    if kind:
        raise UserError(
            f"{path} is a compressed tar file, and shards are read in place; unpack its compression first: "
            f"{_UNPACK[kind]} {path if compression(path) else f'{path.stem}.{kind}, after naming it so'}"
        )


def compression(path: Path) -> str:
    """ "gz" of "x.tar.gz", "tgz" of "x.tgz"; "" for other names."""
    parts = path.name.lower().split(".")
    last = parts[-1]
    return last if last in _UNPACK and (last.startswith("t") or parts[-2:-1] == ["tar"]) else ""


def _by_name(tars: Sequence[Path]) -> dict[str, list[Path]]:
    """Shards by the split in their names; all are for training where no name says another split."""
    named = {tar: {SPLITS[word] for word in re.findall(r"[a-z]+", tar.stem.lower()) if word in SPLITS} for tar in tars}
    if not {split for splits in named.values() for split in splits} - {"train"}:
        return {"train": list(tars)}
    by_split: dict[str, list[Path]] = {}
    for tar, splits in named.items():
        if len(splits) > 1:
            raise UserError(f"{tar} is named after several splits ({', '.join(sorted(splits))}); name it after one")
        if not splits:
            other = next(tar for tar, splits in named.items() if splits - {"train"})
            raise UserError(
                f"{other} is named after a split and {tar.name} beside it is not; name all of them, or none"
            )
        by_split.setdefault(next(iter(splits)), []).append(tar)
    return by_split


def _only_tars(folder: Path) -> list[Path]:
    files = [p for p in sorted(folder.iterdir()) if not p.name.startswith(".")]
    tars = [p for p in files if p.is_file() and p.suffix.lower() == ".tar"]
    compressed = [p for p in files if p.is_file() and compression(p)]
    others = [p for p in files if p.is_dir() or p.suffix.lower() in EXTENSIONS]
    if others:
        return []
    for path in (*compressed, *tars):
        refuse_compressed(path)
    return tars
