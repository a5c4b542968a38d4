"""The images of ``softedge quantize FILE``: without near-duplicates, split three ways; and what few of them show."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from softedge.errors import UserError
from softedge.export.base import Float32, Uint8
from softedge.progress import plural, say
from softedge.quantize.selection import CHOSEN
from softedge.records import InputSpec
from softedge.stages.export_file import readable

CALIBRATION = 300  # images that set ranges, at most
TEST = 1000  # images that the written file is tested on, at most
_FEWEST = 8  # images below which nothing can be split
_ONE_SIDED = 0.95  # of the test images with one answer, from which on the others are hardly tested


@dataclass(frozen=True)
class Split:
    """uint8 (N, S, S, 3) each; none is a near-duplicate of another."""

    calibration: Uint8
    selection: Uint8
    test: Uint8


def split(root: Path, spec: InputSpec, seed: int) -> Split:
    """UserError where there are too few images, or too few different ones."""
    images = readable(root, 2 * TEST, seed)
    if len(images) < _FEWEST:
        raise UserError(f"{root} has {len(images)} readable images; give at least {_FEWEST}, better 500")
    pixels = distinct(images.prepared(spec))
    if len(pixels) < len(images):
        copies = plural(len(images) - len(pixels), "image is a near-duplicate", "images are near-duplicates")
        if len(pixels) < _FEWEST:
            raise UserError(f"{root}: {copies} of the other {len(pixels)}; give at least {_FEWEST} different ones")
        say(f"{copies} of others and left out: of each picture one is kept")
    test, rest = np.split(pixels, [min(TEST, len(pixels) // 2)])
    calibration, selection = np.split(rest, [min(CALIBRATION, len(rest) // 2)])
    return Split(calibration, selection[:CHOSEN], test)


def distinct(pixels: Uint8) -> Uint8:
    """The first of each group of near-duplicates (N, S, S, 3), copies with equal pixels at any size."""
    from softedge.data.near_copies import pairs_among, thumbnail

    later = {pair.second for pair in pairs_among([thumbnail(image) for image in pixels])}
    seen: set[bytes] = set()
    for index, image in enumerate(pixels):
        if (content := hashlib.sha256(image).digest()) in seen:
            later.add(index)
        seen.add(content)
    return pixels if not later else np.delete(pixels, sorted(later), axis=0)


def cautions(answers: Float32, measures: Mapping[str, float | int], output: str) -> list[str]:
    """What the test images cannot show, a line each.  answers: of the given file to them, (N, C)."""
    from softedge.report.few import FEW_IMAGES, interval

    lines, count = [], len(answers)
    if count < FEW_IMAGES and "agreement" in measures:
        low, _ = interval(float(measures["agreement"]), count)
        lines.append(
            f"{count} test images show little: of others as few as {100 * low:.0f} % may keep their answer "
            "(95 % interval); give more with --images"
        )
    if output == "probabilities":
        most = int(np.bincount(answers.argmax(1)).max())
        if most >= _ONE_SIDED * count:
            lines.append(
                f"{most} of {count} test images have the same answer, so other classes are hardly tested; give images "
                "of all classes"
            )
    return lines
