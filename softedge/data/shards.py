"""Tar shards (WebDataset layout): read in place, never unpacked.

Only the headers are listed, and the small members that give classes; an image is one positioned read. Training
shuffles blocks of consecutive images and then within a window of a few blocks, so that reading stays near to sequential
and still follows from (seed, epoch) alone.
"""

from __future__ import annotations

import os
import posixpath
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softedge.data import decoding
from softedge.data.companions import may_have_companions, photos_among
from softedge.data.decoding import BadImage, Uint8
from softedge.data.images import UNLABELLED, EncodedImages, Images
from softedge.data.inventory import EXTENSIONS, Inventory, printable
from softedge.data.layouts import Located, is_junk, role
from softedge.data.shard_labels import LONGEST, ShardLabels
from softedge.data.shard_splits import Member, sorted_in
from softedge.errors import UserError
from softedge.progress import plural

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


def find(by_split: Mapping[str, Sequence[Path]], source: str) -> Inventory:
    """List the images in the shards; one that cannot be read to its end is used as far as it goes, with a notice.

    An image's class is what its ``.cls``, ``.json`` or ``.txt`` member says, a number or a name; without one it is
    unlabelled. Folders named after splits are those splits, see ``shard_splits.py``. UserError when a shard has two
    members of one name, or an image two labels.
    """
    shards = [(split, shard) for split, tars in by_split.items() for shard in tars]
    alone = len(by_split) == 1 and len({shard.name for _, shard in shards}) == len(shards)
    members: list[Member] = []
    labels = ShardLabels()
    ignored: Counter[str] = Counter()
    notices: list[str] = []
    for number, (split, shard) in enumerate(shards):
        prefix = f"{shard.name}/" if alone else f"{shard.parent.name}/{shard.name}/"
        seen: dict[str, tarfile.TarInfo] = {}
        try:
            with tarfile.open(shard, "r:") as archive:
                for entry in archive:
                    path, member = PurePosixPath(entry.name), _behind(entry, seen)
                    if member is None:
                        ignored["links to nothing before them"] += 1
                        continue
                    if not member.isfile() or any(is_junk(part) for part in path.parts if part != ".."):
                        if member.isfile():
                            ignored["hidden"] += 1
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
                    inside = printable(str(path))
                    name = prefix + inside
                    if path.suffix.lower() in EXTENSIONS:
                        members.append(Member(name, inside, (number, member.offset_data, member.size), split))
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
        raise UserError(f"no images in the {plural(len(shards), 'tar file')} of {source}{why}; give shards of images")
    members = _photos(members, [shard for _, shard in shards], ignored, notices)
    classes = labels.by_image((member.name for member in members), notices)
    if labels.unused:
        ignored["not images"] += labels.unused
    members, classes = sorted_in(members, classes, source, notices)
    if ignored["not images"] and not any(classes.values()):
        notices.append(
            "labels in tar shards are read from .cls, .json and .txt members, of which none holds one: no labels"
        )
    lowest = {parts[-2] for member in members if len(parts := member.inside.split("/")) > 1}
    folders = sorted(folder for folder in lowest if role(folder) is None)
    if len(folders) > 1 and not any(classes.values()):
        notices.append(
            f"folders in tar shards ({', '.join(map(printable, folders[:3]))}) are not read as classes: unpack the "
            "shards if they are"
        )
    return _inventory(source, [shard for _, shard in shards], members, classes, dict(ignored), notices)


def _photos(members: list[Member], shards: Sequence[Path], ignored: Counter[str], notices: list[str]) -> list[Member]:
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
    members: list[Member],
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
