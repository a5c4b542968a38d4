"""Tar shards (WebDataset layout) as unlabelled images: read in place, never unpacked.

Only the headers are listed; an image is one positioned read. Training shuffles blocks of consecutive images and then
within a window of a few blocks, so that reading stays near to sequential and still follows from (seed, epoch) alone.
"""

from __future__ import annotations

import os
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softedge.data.decoding import BadImage
from softedge.data.folders import EXTENSIONS
from softedge.data.images import UNLABELLED, EncodedImages
from softedge.data.sources import Found
from softedge.errors import UserError

BLOCK = 256  # consecutive images that stay together when the order is shuffled


class TarImages(EncodedImages):
    """Members of tar files.  names: "shard.tar/member.jpg".  places: int64 (N, 3), shard, offset and size in bytes."""

    def __init__(self, shards: Sequence[Path], names: Sequence[str], places: NDArray[np.int64]):
        self.shards, self.names, self.places = list(shards), names, places
        self.labels = np.full(len(places), UNLABELLED, np.int64)
        self._open: dict[int, int] = {}  # shard -> file descriptor of this process

    def read(self, index: int) -> bytes:
        shard, offset, size = self.places[index].tolist()
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
        return TarImages(self.shards, [self.names[i] for i in chosen], self.places[chosen])

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


def shards_of(path: Path) -> list[Path]:
    """The shards that ``path`` stands for: itself, or the tar files of a folder that holds nothing else; else none."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".tar" else []
    files = [p for p in sorted(path.iterdir()) if not p.name.startswith(".")]
    tars = [p for p in files if p.is_file() and p.suffix.lower() == ".tar"]
    others = [p for p in files if p.is_dir() or p.suffix.lower() in EXTENSIONS]
    return tars if not others else []


def find(shards: Sequence[Path], source: str) -> Found:
    """List the images in the shards; one that cannot be read to its end is used as far as it goes, with a notice."""
    names: list[str] = []
    places: list[tuple[int, int, int]] = []
    ignored: Counter[str] = Counter()
    notices: list[str] = []
    for number, shard in enumerate(shards):
        try:
            with tarfile.open(shard, "r:") as archive:
                for member in archive:
                    hidden = Path(member.name).name.startswith(".")
                    if not member.isfile() or hidden or Path(member.name).suffix.lower() not in EXTENSIONS:
                        ignored["not images"] += member.isfile()
                        continue
                    names.append(f"{shard.name}/{member.name}")
                    places.append((number, member.offset_data, member.size))
        except (tarfile.TarError, OSError) as error:
            notices.append(f"{shard.name} is damaged ({error}); what comes before the damage is used")
    if not names:
        why = f" ({'; '.join(notices)})" if notices else ""
        raise UserError(f"no images in the {len(shards)} tar files of {source}{why}; give shards of images")
    if ignored["not images"]:
        notices.append("labels in tar shards are not read: their images are taken as unlabelled")
    images = TarImages(shards, names, np.array(places, np.int64))
    return Found(source, (), {"unlabelled": images}, dict(ignored), tuple(notices))
