"""Masks among the photos: drawn pictures of segmentations, which are no photos of any class.

Known by their names and their pixels: beside or below a photo ``x.jpg`` as ``x.png``, ``x_mask.png`` or
``masks/x.png``, with few different colours.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from softedge.data.decoding import BadImage, decode
from softedge.data.layouts import PHOTOS, Located, Parts
from softedge.progress import plural

_FOLDERS = frozenset(
    ["mask", "masks", "annotation", "annotations", "label", "labels", "gt", "groundtruth"]
) | frozenset(
    ["ground_truth", "segmentation", "segmentations", "segmentationclass", "segmentationobject", "trimap", "trimaps"]
)
# "dog (3)_mask_1.png" has the photo "dog (3).png"; datasets number the masks of several objects
_SUFFIX = re.compile(
    r"[-_. ](mask|masks|seg|segmentation|label|labels|labelids|gt|groundtruth|ground_truth|trimap|matte|annotation)"
    r"([-_. ]?\d+)?$",
    re.IGNORECASE,
)
COLOURS = 32  # a drawn mask has a few colours, a photo hundreds
_LEVELS = 4  # colours of a mask in a JPEG file, whose edges blur, when each channel has 8 levels
_SHARE = 0.01  # of the pixels, below which such a colour is an edge
_LOOKED_AT = 8  # files that are decoded to find out
_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")


def colours(path: Path) -> int:
    """How many different colours a picture has, uint8 (H, W, 3); 0 when it cannot be read.

    Of a JPEG file more than ``COLOURS`` unless nearly all its pixels have a few colours, roughly.
    """
    try:
        image = decode(path).astype(np.int32)
    except BadImage:
        return 0
    if path.suffix.lower() in _JPEG:
        image = (image + 18) // 37  # 0 to 7, with black and white in the middle of a level
        counts = np.unique(image[..., 0] << 6 | image[..., 1] << 3 | image[..., 2], return_counts=True)[1]
        clear = int((counts >= _SHARE * counts.sum()).sum())
        return clear if clear <= _LEVELS else COLOURS + clear
    return len(np.unique(image[..., 0] << 16 | image[..., 1] << 8 | image[..., 2]))


def without_masks(images: list[Located], colours: Callable[[Parts], int], notices: list[str]) -> list[Located]:
    """Leave out masks: in a folder that is called so beside one of photos, or under the name of a photo.

    colours: how many different colours a file has (0: it cannot be read).
    """
    folders = {image.path[:depth] for image in images for depth in range(1, len(image.path))}
    beside = {folder[:-1] for folder in folders if folder[-1].lower() in PHOTOS}
    masks = {folder for folder in folders if folder[-1].lower() in _FOLDERS and folder[:-1] in beside}
    kept = [i for i in images if not any(i.path[:depth] in masks for depth in range(1, len(i.path)))]
    if masks:
        shown = ", ".join(sorted("/".join(folder) for folder in masks)[:3])
        notices.append(f"{len(images) - len(kept)} files in {shown} are taken for masks of the photos and left out")
    return _without_masks_of_one_name(_without_named_masks(kept, colours, notices), colours, notices)


def _photo_of(path: Parts) -> Parts | None:
    """Where the photo of a mask would lie, without its type: of ``a/x_mask.png`` and ``a/masks/x.png`` it is ``a/x``.

    None for a file that is not named like a mask.
    """
    folder, stem = path[:-1], PurePosixPath(path[-1]).stem
    inside = len(folder) > 1 and folder[-1].lower() in _FOLDERS
    bare = _SUFFIX.sub("", stem)
    if bare == stem and not inside:
        return None
    return (*(folder[:-1] if inside else folder), bare)


def _without_named_masks(images: list[Located], colours: Callable[[Parts], int], notices: list[str]) -> list[Located]:
    photos = {(*image.path[:-1], PurePosixPath(image.path[-1]).stem): image for image in images}
    named = [(i, photos[photo]) for i in images if (photo := _photo_of(i.path)) in photos]
    if not named:
        return images
    first = f"{'/'.join(named[0][0].path)} of {named[0][1].path[-1]}"
    files = plural(len(named), "file is", "files are")
    if _drawn([mask for mask, _ in named], colours):
        notices.append(f"{files} named and drawn like masks of photos ({first}): left out")
        out = {mask for mask, _ in named}
        return [image for image in images if image not in out]
    notices.append(f"{files} named like masks of photos ({first}), with as many colours as photos: taken as photos")
    return images


def _drawn(files: Sequence[Located], colours: Callable[[Parts], int]) -> bool:
    """Whether most of these pictures have few colours, by a sample of those that can be read."""
    looked = [colours(image.path) for image in files[:: max(1, len(files) // _LOOKED_AT)][:_LOOKED_AT]]
    return sum(0 < count <= COLOURS for count in looked) * 2 > len(looked)


def _without_masks_of_one_name(
    images: list[Located], colours: Callable[[Parts], int], notices: list[str]
) -> list[Located]:
    types: dict[str, list[Located]] = {}  # path without its suffix -> files
    for image in images:
        types.setdefault(str(PurePosixPath(*image.path).with_suffix("")), []).append(image)
    pairs = [files for files in types.values() if len(files) > 1]
    if not pairs:
        return images
    lossless = [i for files in pairs for i in files if PurePosixPath(i.path[-1]).suffix.lower() not in _JPEG[:2]]
    first = " and ".join(image.path[-1] for image in pairs[0][:2])
    if len(lossless) >= len(pairs) and _drawn(lossless, colours):
        notices.append(f"{len(lossless)} masks lie under the names of photos ({first}) and are left out")
        out = set(lossless)
        return [image for image in images if image not in out]
    kinds = Counter(tuple(sorted(PurePosixPath(i.path[-1]).suffix.lower() for i in files)) for files in pairs)
    shown = ", ".join(" and ".join(kind) for kind in list(kinds)[:2])
    notices.append(
        f"{len(pairs)} pictures lie there under one name with two types ({shown}; {first}): they stay in one split"
    )
    return images
