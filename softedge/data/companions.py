"""Pictures that belong to photos and are none: thumbnails, masks, maps of depth. In folders and in tar shards alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import PurePosixPath

from softedge.data.layouts import Located
from softedge.data.masks import Look, without_maps, without_masks
from softedge.data.thumbnails import without_thumbnails

_NAMED = re.compile(
    r"(?i)thumb|preview|cache|mask|seg|label|gt|ground_?truth|trimap|matte|annotation|depth|dispar|normals|flow|lidar"
    r"|heatmap|saliency|\btn\b|\bsmall\b"
)


def photos_among(images: list[Located], look: Look, notices: list[str]) -> tuple[list[Located], dict[str, int]]:
    """The images that are photos, and how many others were left out, by kind; notices name them.

    look: a file's pixels, uint8 (H, W, 3); None when it cannot be read.
    """
    counts = [len(images)]
    for leave_out in (without_thumbnails, without_maps, without_masks):
        images = leave_out(images, look, notices)
        counts.append(len(images))
        if not images:
            break
    left = zip(("thumbnails", "maps", "masks"), pairwise(counts))
    return images, {kind: before - after for kind, (before, after) in left if before > after}


def may_have_companions(names: Sequence[str]) -> bool:
    """Whether any name gives cause to look closer: there may be millions."""
    return any(_NAMED.search(name) for name in names) or len({_bare(name) for name in names}) < len(names)


def _bare(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))
