"""Which images set the ranges of int8 activations: unlabelled, prepared as at deployment, never one of the test set."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softedge.data import late
from softedge.data.images import Data, Images
from softedge.errors import UserError
from softedge.export.base import Uint8
from softedge.records import InputSpec

ENOUGH = 16  # from which every fourth can be set aside to judge what was made of the others
FEW = 50  # below it single images decide the ranges (assumption, not measured)
CONSTANT = 2.0  # standard deviation in grey levels below which an image holds next to nothing


@dataclass(frozen=True)
class Calibration:
    """images: uint8 (N, size, size, 3).  warnings: lines a user should see before trusting the int8 file."""

    images: Uint8
    names: tuple[str, ...] = ()
    source: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(np.ascontiguousarray(self.images).tobytes()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        return {
            "images": len(self.images),
            "sha256": self.sha256,
            "source": self.source,
            "warnings": list(self.warnings),
        }


def choose(data: Data, count: int, seed: int) -> Calibration:
    """A seeded sample of ``count`` pretraining images (of the training ones where there are none)."""
    pretrain = bool(len(data.pretrain.every))
    images, source = (data.pretrain, "pretraining images") if pretrain else (data.train, "training images")
    if not len(images.every):
        raise UserError("int8 needs calibration images, the data has none to train on; leave int8 out of --precisions")
    late.require_of(data, images, draw(len(images.every), count, seed), "calibration images")
    return sample(images, data.spec, count, seed, source)


def none(spec: InputSpec) -> Calibration:
    """For files without int8."""
    return Calibration(np.empty((0, spec.size, spec.size, 3), np.uint8))


def sample(images: Images, spec: InputSpec, count: int, seed: int, source: str) -> Calibration:
    """A seeded sample of ``images``, prepared for the network, with what looks wrong about it.

    Nothing stands in for an image of it that is set aside: what calibrates stays apart from what the search chooses on.
    """
    chosen = images.left(draw(len(images.every), count, seed))
    prepared = images.subset(chosen).prepared(spec)
    names = tuple(str(images.names[i]) for i in chosen)
    return Calibration(prepared, names, source, tuple(look(prepared)))


def draw(n: int, count: int, seed: int) -> NDArray[np.int64]:
    """Ascending indices of a seeded sample of at most ``count`` of ``n`` images."""
    return np.sort(np.random.default_rng(seed).permutation(n)[:count])


def spread(count: int, some: int) -> NDArray[np.int64]:
    """Indices of ``some`` of ``count`` images, evenly spaced: images come in the order of their folders, so that the
    first ones are all of one class."""
    return np.linspace(0, count - 1, min(count, some)).round().astype(np.int64)


def set_aside(count: int) -> slice:
    """Which of ``count`` calibration images judge what was made of the others: every fourth, of few every second."""
    return slice(None, None, 4 if count >= ENOUGH else 2)


def look(images: Uint8) -> list[str]:
    """What is wrong with calibration images, one line each: too few, constant, or the same one many times."""
    lines = []
    if len(images) < FEW:
        lines.append(f"only {len(images)} calibration images: int8 ranges may not hold; give at least {FEW}")
    if len(images):
        flat = images.reshape(len(images), -1)
        constant = int((flat.std(axis=1) < CONSTANT).sum())
        if constant * 10 > len(images):
            lines.append(f"{constant} of {len(images)} calibration images hold a single colour; leave them out")
        distinct = len({hashlib.sha256(image.tobytes()).digest() for image in flat})
        if distinct * 2 < len(images):
            lines.append(f"only {distinct} of {len(images)} calibration images are different from each other")
    return lines
