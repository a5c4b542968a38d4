"""Images with labels, from arrays in memory or files on disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from softedge.data import decoding
from softedge.data.decoding import BadImage, White, prepare
from softedge.errors import UserError
from softedge.records import InputSpec

Uint8 = NDArray[np.uint8]
UNLABELLED = -1


class DamagedCopy(BadImage):
    """A picture that the run keeps is not the file that was looked at, and its source does not help; the message says
    which file and what to do."""


class Images(ABC):
    """Images by index.  labels: int64 (N,), ``UNLABELLED`` (-1) where unknown.  names: one a person can find again.

    whole: all that the data stage looked at, where some of them have been set aside since.  rows: int64 (N,), where
    these are in it.
    """

    labels: NDArray[np.int64]
    names: Sequence[str]
    whole: Images | None = None
    rows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def decode(self, index: int) -> Uint8:
        """The whole image as uint8 RGB (H, W, 3), upright."""

    @abstractmethod
    def subset(self, indices: NDArray[np.int64] | Sequence[int]) -> Images:
        """The images at ``indices``, in that order."""

    @property
    def every(self) -> Images:
        """These and those that have been set aside since.

        Whatever divides images into parts or draws some of them does it here, and then takes what is ``left``: no image
        moves from one part to another because some image is damaged.
        """
        return self if self.whole is None else self.whole

    def without(self, rows: NDArray[np.int64] | Sequence[int]) -> Images:
        """``every`` image but those of these rows."""
        every = self.every
        if not len(rows):
            return every
        kept = np.setdiff1d(np.arange(len(every)), np.asarray(rows, np.int64))
        left = every.subset(kept)
        left.whole, left.rows = every, kept
        return left

    def left(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of ``every`` as indices of these images, in the same order; those that are set aside are left out."""
        if self.rows is None:
            return np.asarray(rows, np.int64)
        place = np.full(len(self.every), -1)
        place[self.rows] = np.arange(len(self.rows))
        found = place[np.asarray(rows, np.int64)]
        return np.asarray(found[found >= 0], np.int64)

    def rows_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Indices of these images as rows of ``every``."""
        return np.asarray(indices if self.rows is None else self.rows[indices], np.int64)

    def needed(self, index: int) -> Uint8:
        """As ``decode``; UserError for an image that can no longer be read, where nothing may stand in its place."""
        try:
            return self.decode(index)
        except DamagedCopy as error:
            raise UserError(str(error)) from error
        except BadImage as error:  # it could be when the images were looked at
            raise UserError(
                f"{self.names[index]} cannot be read any more ({error}); bring it back, or make a run without it: "
                "softedge deploy --update --out RUN"
            ) from error

    def prepared(self, spec: InputSpec) -> Uint8:
        """All images as the model gets them, uint8 (N, size, size, 3): shorter side to ``resize``, centre crop.

        UserError for an image that can no longer be read: nothing is measured on anything else in its place.
        """
        batch = np.empty((len(self), spec.size, spec.size, 3), np.uint8)
        for index in range(len(self)):
            batch[index] = prepare(self.needed(index), spec)
        return batch


class ArrayImages(Images):
    """Images of one size that live in memory, uint8 (N, H, W, 3)."""

    def __init__(self, array: Uint8, labels: NDArray[np.int64], names: Sequence[str]):
        self.array, self.labels, self.names = array, np.asarray(labels, np.int64), names

    def decode(self, index: int) -> Uint8:
        return self.array[index]

    def subset(self, indices: NDArray[np.int64] | Sequence[int]) -> ArrayImages:
        chosen = np.asarray(indices, np.int64)
        return ArrayImages(self.array[chosen], self.labels[chosen], [self.names[i] for i in chosen])


class EncodedImages(Images):
    """Images as the bytes of files, wherever these are.

    hashes: the sha256 of each file when it was looked at, in hexadecimal; empty where nothing looked yet.
    white: the range of pixels with more than 8 bits.  kept: a folder with copies of some of the files, named by hash.
    """

    hashes: Sequence[str] = ()
    white: White | None = None
    kept: Path | None = None

    @property
    @abstractmethod
    def place(self) -> str:
        """Where they are, the same text for every subset."""

    @abstractmethod
    def file(self, index: int) -> Path:
        """The file on the disk that holds the image, alone or among others."""

    def source_file(self, index: int) -> Path:
        """The file in which it was found, alone or among others; never a kept copy."""
        return self.file(index)

    @abstractmethod
    def read_source(self, index: int) -> bytes:
        """The bytes of the file where it was found; ``decoding.BadImage`` when they cannot be had."""

    def read(self, index: int) -> bytes:
        """The bytes of the file, of a kept copy where there is one; ``decoding.BadImage`` as ``read_source``."""
        copy = self.copy(index)
        return self.read_source(index) if copy is None else decoding.read(copy)

    def read_same(self, index: int) -> bytes:
        """The bytes of the file that was looked at: of the kept copy, else of the source.

        ``BadImage`` when neither is that file any more; ``DamagedCopy`` when there is a copy.
        """
        copy = self.copy(index)
        if copy is None:
            return self._same(index, self.read_source(index))
        with contextlib.suppress(BadImage):
            return self._same(index, decoding.read(copy))
        try:
            return self._same(index, self.read_source(index))
        except BadImage as error:
            raise DamagedCopy(
                f"{copy}, the run's copy of {self.names[index]}, is damaged, and the image itself cannot replace it "
                f"({error}); put either back from a backup, or make the run without the image: softedge deploy "
                "--update --out RUN"
            ) from error

    def _same(self, index: int, data: bytes) -> bytes:
        if self.hashes and hashlib.sha256(data).hexdigest() != self.hashes[index]:
            raise BadImage("it has changed since the run looked at it")
        return data

    def decode(self, index: int) -> Uint8:
        """As in ``Images``; also ``BadImage`` when the file is not the one that was looked at."""
        return decoding.decode(self.read_same(index), white=self.white)

    def decode_smaller(self, index: int, side: int) -> Uint8:
        """With the shorter side shrunk to ``side`` pixels where it is longer."""
        return decoding.decode_smaller(self.read(index), side, self.white)

    def copy(self, index: int) -> Path | None:
        """The kept copy of the file, where there is one."""
        if self.kept is None or not self.hashes:
            return None
        path = self.kept / copy_name(self.hashes[index], self.names[index])
        return path if path.exists() else None

    def _alike(self, other: EncodedImages, chosen: NDArray[np.int64]) -> None:
        """Take over what does not depend on where the files lie, for a subset of ``other``."""
        self.hashes = [other.hashes[i] for i in chosen] if other.hashes else ()
        self.white, self.kept = other.white, other.kept


def copy_name(sha256: str, name: str) -> str:
    """What the copy of a file is called in the run."""
    return sha256 + PurePosixPath(name).suffix.lower()


class FileImages(EncodedImages):
    """Image files below ``root``; ``names`` are their paths relative to it, with forward slashes."""

    def __init__(self, root: Path, names: Sequence[str], labels: NDArray[np.int64]):
        self.root, self.names, self.labels = Path(root), names, np.asarray(labels, np.int64)

    @property
    def place(self) -> str:
        return str(self.root)

    def path(self, index: int) -> Path:
        """Where the file is: a kept copy first, which is sure to be the file that was looked at."""
        return self.copy(index) or self._source(index)

    def _source(self, index: int) -> Path:
        name = self.names[index]
        path = self.root / name
        if "\\x" in name and not path.exists():  # the name has bytes that are not UTF-8: inventory.printable
            raw = re.sub(rb"\\x([89a-f][0-9a-f])", lambda code: bytes.fromhex(code[1].decode()), os.fsencode(name))
            return self.root / os.fsdecode(raw)
        return path

    def file(self, index: int) -> Path:
        return self.path(index)

    def source_file(self, index: int) -> Path:
        return self._source(index)

    def read_source(self, index: int) -> bytes:
        return decoding.read(self._source(index))

    def subset(self, indices: NDArray[np.int64] | Sequence[int]) -> FileImages:
        chosen = np.asarray(indices, np.int64)
        subset = FileImages(self.root, [self.names[i] for i in chosen], self.labels[chosen])
        subset._alike(self, chosen)
        return subset


@dataclass(frozen=True)
class Data:
    """What a run works on. ``pretrain`` holds every image that training may see (labelled training ones included),
    never one of ``test``. ``train``, its first ones, and ``test`` are labelled, and empty where nothing has a label.

    aside: name -> reason, of the images that were set aside after the data stage (``data.late``).
    """

    source: str
    classes: tuple[str, ...]
    spec: InputSpec
    pretrain: Images
    train: Images
    test: Images
    aside: Mapping[str, str] = field(default_factory=dict)
