"""A list of images with labels, whatever they come from: arrays in memory or files on disk."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softedge.data import decoding
from softedge.data.decoding import BadImage, prepare
from softedge.progress import say
from softedge.records import InputSpec

Uint8 = NDArray[np.uint8]
UNLABELLED = -1


class Images(ABC):
    """Images by index.  labels: int64 (N,), ``UNLABELLED`` (-1) where unknown.  names: one a person can find again."""

    labels: NDArray[np.int64]
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def decode(self, index: int) -> Uint8:
        """The whole image as uint8 RGB (H, W, 3), upright."""

    @abstractmethod
    def subset(self, indices: NDArray[np.int64] | Sequence[int]) -> Images:
        """The images at ``indices``, in that order."""

    def prepared(self, spec: InputSpec) -> Uint8:
        """All images as the model gets them, uint8 (N, size, size, 3): shorter side to ``resize``, centre crop."""
        batch = np.empty((len(self), spec.size, spec.size, 3), np.uint8)
        for index in range(len(self)):
            try:
                batch[index] = prepare(self.decode(index), spec)
            except BadImage as error:  # of a large set only the headers were checked; nothing may stop a run
                say(f"data: {self.names[index]} cannot be read and counts as a grey image: {error}")
                batch[index] = 128
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
    """Images as the bytes of files, wherever these lie.

    hashes: the sha256 of each file when it was looked at, in hexadecimal; empty where nothing looked yet.
    """

    hashes: Sequence[str] = ()

    @property
    @abstractmethod
    def place(self) -> str:
        """Where they lie, the same text for every subset."""

    @abstractmethod
    def read(self, index: int) -> bytes:
        """The bytes of the file; ``decoding.BadImage`` when they cannot be had."""

    def decode(self, index: int) -> Uint8:
        return decoding.decode(self.read(index))


class FileImages(EncodedImages):
    """Image files below ``root``; ``names`` are their paths relative to it, with forward slashes."""

    def __init__(self, root: Path, names: Sequence[str], labels: NDArray[np.int64], hashes: Sequence[str] = ()):
        self.root, self.names, self.labels = Path(root), names, np.asarray(labels, np.int64)
        self.hashes = hashes

    @property
    def place(self) -> str:
        return str(self.root)

    def path(self, index: int) -> Path:
        name = self.names[index]
        path = self.root / name
        if "\\x" in name and not path.exists():  # the name has bytes that are not UTF-8: inventory.printable
            raw = re.sub(rb"\\x([89a-f][0-9a-f])", lambda code: bytes.fromhex(code[1].decode()), os.fsencode(name))
            return self.root / os.fsdecode(raw)
        return path

    def read(self, index: int) -> bytes:
        return decoding.read(self.path(index))

    def subset(self, indices: NDArray[np.int64] | Sequence[int]) -> FileImages:
        chosen = np.asarray(indices, np.int64)
        hashes = [self.hashes[i] for i in chosen] if self.hashes else ()
        return FileImages(self.root, [self.names[i] for i in chosen], self.labels[chosen], hashes)


@dataclass(frozen=True)
class Data:
    """What a run works on. ``pretrain`` holds every image that training may see (labelled training ones included),
    never one of ``test``. ``train`` and ``test`` are labelled; both are empty when the data has no labels at all."""

    source: str
    classes: tuple[str, ...]
    spec: InputSpec
    pretrain: Images
    train: Images
    test: Images
