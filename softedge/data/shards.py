"""Tar shards (WebDataset layout): read in place, never unpacked.

Only the headers are listed, and the small members that give classes; an image is one positioned read. Training
shuffles blocks of consecutive images and then within a window of a few blocks, so that reading stays near to sequential
and still follows from (seed, epoch) alone.
"""

from __future__ import annotations

import os
import posixpath
import re
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softedge.data import decoding
from softedge.data.companions import may_have_companions, photos_among
from softedge.data.decoding import BadImage, Uint8
from softedge.data.images import UNLABELLED, EncodedImages, Images
from softedge.data.inventory import EXTENSIONS, SPLITS, Inventory, printable
from softedge.data.layouts import Located
from softedge.data.shard_labels import LONGEST, ShardLabels
from softedge.errors import UserError
from softedge.progress import plural

_UNPACK = {"gz": "gunzip", "tgz": "gunzip", "bz2": "bunzip2", "tbz2": "bunzip2", "xz": "unxz", "txz": "unxz"} | {
    "zst": "unzstd",
    "tzst": "unzstd",
    "lz4": "unlz4",
}
_MAGIC = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zst"}
_LARGEST = 1 << 62  # bytes: where a member can end at most
_TAIL = 1 << 24  # bytes after the last member that are looked at
BLOCK = 256  # consecutive images that stay together when the order is shuffled


class TarImages(EncodedImages):
    """Members of tar files.  names: "shard.tar/member.jpg".  places: int64 (N, 3), shard, offset and size in bytes."""

    def __init__(
        self,
        shards: Sequence[Path],
        names: Sequence[str],
        places: NDArray[np.int64],
        labels: NDArray[np.int64],
    ):
        self.shards, self.names, self.places, self.labels = list(shards), names, places, labels
        self._open: dict[int, int] = {}  # shard -> file descriptor of this process

    @property
    def place(self) -> str:
        return "\n".join(map(str, self.shards))

    def file(self, index: int) -> Path:
        return self.shards[int(self.places[index, 0])]

    def read_source(self, index: int) -> bytes:
        shard, offset, size = self.places[index].tolist()
        if size > decoding.max_bytes():
            raise BadImage(f"{size:,} bytes are more than the limit of {decoding.max_bytes():,}")
        try:
            if shard not in self._open:
                self._open[shard] = os.open(self.shards[shard], os.O_RDONLY)
            data = os.pread(self._open[shard], size, offset)
        except OSError as error:
            raise BadImage(f"{self.shards[shard]} cannot be read ({error.strerror})") from error
        if len(data) < size:
            raise BadImage(f"truncated: {self.shards[shard].name} ends within it")
        return data

    def subset(self, indices: NDArray[np.int64] | Sequence[int]) -> TarImages:
        chosen = np.asarray(indices, np.int64)
        subset = TarImages(self.shards, [self.names[i] for i in chosen], self.places[chosen], self.labels[chosen])
        subset._alike(self, chosen)
        return subset

    @classmethod
    def joined(cls, parts: Sequence[TarImages]) -> TarImages:
        """Subsets of the same shards, one after the other."""
        return cls(
            parts[0].shards,
            [name for part in parts for name in part.names],
            np.concatenate([part.places for part in parts]),
            np.concatenate([part.labels for part in parts]),
        )

    def blocks(self) -> list[NDArray[np.int64]]:
        """Runs of at most 256 images that follow each other in one shard."""
        runs: list[NDArray[np.int64]] = []
        for shard in np.unique(self.places[:, 0]):
            members = np.flatnonzero(self.places[:, 0] == shard)
            runs += [members[start : start + BLOCK] for start in range(0, len(members), BLOCK)]
        return runs

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_open": {}}  # a descriptor means nothing in another process

    def __del__(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)


def shards_of(path: Path) -> dict[str, list[Path]]:
    """The tar files that ``path`` stands for, by split; {} when it is something else.

    A tar file, a folder that holds nothing else, or train/ val/ test/ unlabeled/ that each do. In one folder the files
    may be named after splits, as WebDataset's train-000.tar and val-000.tar are: all of them, or UserError.
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
    """Shards by the split that their names begin with; all are for training where no name says another split."""
    named = {tar: SPLITS.get(re.split(r"[^a-z]", tar.stem.lower())[0], "") for tar in tars}
    if not {*named.values()} - {"", "train"}:
        return {"train": list(tars)}
    by_split: dict[str, list[Path]] = {}
    for tar, split in named.items():
        if not split:
            other = next(tar for tar, split in named.items() if split not in ("", "train"))
            raise UserError(
                f"{other} is named after a split and {tar.name} beside it is not; name all of them, or none"
            )
        by_split.setdefault(split, []).append(tar)
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


@dataclass(frozen=True)
class _Member:
    """A member of a shard.  name: with the shard before it.  place: shard, offset and size in bytes."""

    name: str
    place: tuple[int, int, int]
    split: str


def find(by_split: Mapping[str, Sequence[Path]], source: str) -> Inventory:
    """List the images in the shards; one that cannot be read to its end is used as far as it goes, with a notice.

    An image's class is what its ``.cls``, ``.json`` or ``.txt`` member says, a number or a name; without one it is
    unlabelled. UserError when a shard has two members of one name, or an image two labels.
    """
    shards = [(split, shard) for split, tars in by_split.items() for shard in tars]
    members: list[_Member] = []
    labels = ShardLabels()
    ignored: Counter[str] = Counter()
    notices: list[str] = []
    for number, (split, shard) in enumerate(shards):
        prefix = f"{shard.name}/" if len(by_split) == 1 else f"{shard.parent.name}/{shard.name}/"
        seen: dict[str, tarfile.TarInfo] = {}
        try:
            with tarfile.open(shard, "r:") as archive:
                for entry in archive:
                    path, member = PurePosixPath(entry.name), _behind(entry, seen)
                    if member is None:
                        ignored["links to nothing before them"] += 1
                        continue
                    if not member.isfile() or path.name.startswith("."):
                        ignored["not images"] += member.isfile()
                        continue
                    if member.issparse() or member.size < 0 or member.offset_data + member.size > _LARGEST:
                        ignored["sparse members"] += 1
                        continue
                    if str(path) in seen:
                        raise UserError(
                            f"{shard} holds {printable(entry.name)} twice (appended with tar -r?); only one can be "
                            "right; write the shard again"
                        )
                    seen[str(path)] = member
                    name = prefix + printable(str(path))
                    if path.suffix.lower() in EXTENSIONS:
                        members.append(_Member(name, (number, member.offset_data, member.size), split))
                    elif member.size <= LONGEST.get(path.suffix.lower(), -1):
                        file = archive.extractfile(member)
                        labels.add(name, file.read() if file else b"")
                    else:
                        ignored["not images"] += 1
                if why := _not_ended(shard, archive.offset):
                    notices.append(f"{shard.name} {why}; what comes before is used")
        except UserError:
            raise
        except Exception as error:  # tarfile raises ValueError, OverflowError and others on odd headers
            notices.append(f"{shard.name} is damaged ({error}); what comes before the damage is used")
    if not members:
        why = f" ({'; '.join(notices)})" if notices else ""
        raise UserError(f"no images in the {len(shards)} tar files of {source}{why}; give shards of images")
    members = _photos(members, [shard for _, shard in shards], ignored, notices)
    classes = labels.by_image((member.name for member in members), notices)
    if labels.unused:
        ignored["not images"] += labels.unused
    if ignored["not images"] and not any(classes.values()):
        notices.append(
            "labels in tar shards are read from .cls, .json and .txt members, of which none holds one: no labels"
        )
    folders = sorted({parts[-2] for member in members if len(parts := member.name.split("/")) > 2})
    if len(folders) > 1 and not any(classes.values()):
        notices.append(
            f"folders in tar shards ({', '.join(map(printable, folders[:3]))}) are not read as classes: unpack the "
            "shards if they are"
        )
    return _inventory(source, [shard for _, shard in shards], members, classes, dict(ignored), notices)


def _photos(members: list[_Member], shards: Sequence[Path], ignored: Counter[str], notices: list[str]) -> list[_Member]:
    """The members without thumbnails, masks and maps of others, which are counted."""
    if not may_have_companions([member.name for member in members]):
        return members
    located = {Located(path, path): member for member in members for path in [tuple(member.name.split("/"))]}
    place = {image.path: member.place for image, member in located.items()}

    def look(path: tuple[str, ...]) -> Uint8 | None:
        shard, offset, size = place[path]
        if size > decoding.max_bytes():
            return None
        try:
            with open(shards[shard], "rb") as file:
                file.seek(offset)
                return decoding.decode(file.read(size))
        except (OSError, BadImage):
            return None

    photos, left_out = photos_among(list(located), look, notices)
    ignored.update(left_out)
    if not photos:
        raise UserError(f"all {len(members)} images in the shards are taken for thumbnails ({notices[-1]})")
    return [located[photo] for photo in photos]


def _behind(entry: tarfile.TarInfo, seen: Mapping[str, tarfile.TarInfo]) -> tarfile.TarInfo | None:
    """The member itself, or the earlier one that a link names; None where there is none."""
    if entry.islnk():
        return seen.get(str(PurePosixPath(entry.linkname)))
    if entry.issym():
        return seen.get(posixpath.normpath(PurePosixPath(entry.name).parent / entry.linkname))
    return entry


def _not_ended(shard: Path, offset: int) -> str:
    """What is wrong with the end of a shard whose last header was read at ``offset``; "" for nothing.

    ``tarfile`` ends quietly at a damaged header, at the first of two archives that were joined, and where the file was
    cut between two members.
    """
    with open(shard, "rb") as file:
        file.seek(offset)
        tail = file.read(_TAIL)
    if len(tail) < tarfile.BLOCKSIZE:
        return "has no end mark: it was cut"
    if tail.strip(b"\0"):
        left = shard.stat().st_size - offset
        return f"is damaged, or another archive was appended to it: {left:,} bytes at its end are not members"
    return ""


def _inventory(
    source: str,
    shards: list[Path],
    members: list[_Member],
    classes: Mapping[str, str],
    ignored: Mapping[str, int],
    notices: list[str],
) -> Inventory:
    """Number the classes and sort the images into splits."""
    names = sorted({classes[m.name] for m in members if classes[m.name]}, key=_numbers_first)
    if len(names) == 1:
        notices.append(f"all labels in the shards are '{names[0]}': the images are taken as unlabelled")
        names = []
    number = {name: i for i, name in enumerate(names)}
    labels = np.array([number.get(classes[m.name], UNLABELLED) for m in members], np.int64)
    images = TarImages(shards, [m.name for m in members], np.array([m.place for m in members], np.int64), labels)
    asked = {"test"} if any(m.split == "test" for m in members) else {"val"}
    tested = np.array([m.split in asked for m in members]) & (labels != UNLABELLED)
    seen = np.array([m.split in ("train", "unlabelled") for m in members])
    if out := len(members) - int((tested | seen).sum()):
        notices.append(
            f"{plural(out, 'image')} of the test and validation shards: left out, no label or a split too many"
        )
    train = seen & (labels != UNLABELLED)
    splits = {"train": train, "test": tested, "unlabelled": seen & ~train}
    if not seen.any():
        raise UserError(f"{source} has a test split but neither train/ nor unlabeled/; add one of them")
    present: dict[str, Images] = {
        split: images.subset(np.flatnonzero(mask)) for split, mask in splits.items() if mask.any()
    }
    return Inventory(source, tuple(names), present, ignored, tuple(notices))


def _numbers_first(name: str) -> tuple[bool, int, str]:
    return (False, int(name), "") if name.isdecimal() else (True, 0, name)
