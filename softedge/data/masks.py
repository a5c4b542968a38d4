"""Masks and maps among the photos: pictures of segmentations, depths and the like, which belong to no class.

Masks are known by their names and their pixels: beside or below a photo ``x.jpg`` as ``x.png``, ``x_mask.png`` or
``masks/x.png``, with few different colours.  Maps have as many values as photos and are known by their names alone:
``x_depth.png`` or ``depth/x.png``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

import numpy as np

from softedge.data.decoding import Uint8
from softedge.data.layouts import PHOTOS, Located, Parts, is_unlabelled
from softedge.progress import plural

Look = Callable[[Parts], Uint8 | None]
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
_MAP = r"depth|depths|depth_?maps?|disparity|disparities|normals|optical_?flow|lidar|heatmaps?|saliency"
_MAP_FOLDER, _MAP_SUFFIX = re.compile(f"(?i)({_MAP})"), re.compile(rf"(?i)[-_. ]({_MAP})([-_. ]?\d+)?$")
COLOURS = 32  # a drawn mask has a few colours, a photo hundreds
_LEVELS = 4  # colours of a mask in a JPEG file, whose edges blur, when each channel has 8 levels
_SHARE = 0.01  # of the pixels, below which such a colour is an edge
_LOOKED_AT = 8  # files that are decoded to find out
_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")


def colours(image: Uint8, jpeg: bool) -> int:
    """How many different colours a picture has, uint8 (H, W, 3).

    Of a JPEG file more than ``COLOURS`` unless nearly all its pixels have a few colours, roughly.
    """
    pixels = image.astype(np.int32)
    if jpeg:
        pixels = (pixels + 18) // 37  # 0 to 7, with black and white in the middle of a level
        counts = np.unique(pixels[..., 0] << 6 | pixels[..., 1] << 3 | pixels[..., 2], return_counts=True)[1]
        clear = int((counts >= _SHARE * counts.sum()).sum())
        return clear if clear <= _LEVELS else COLOURS + clear
    return len(np.unique(pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]))


def without_masks(images: list[Located], look: Look, notices: list[str]) -> list[Located]:
    """Leave out masks: in a folder that is called so beside one of photos, or under the name of a photo.

    look: a file's pixels, uint8 (H, W, 3); None when it cannot be read.
    """
    folders = _folders(images)
    beside = _holding_photos(folders)
    masks = {folder for folder in folders if folder[-1].lower() in _FOLDERS and folder[:-1] in beside}
    kept = [i for i in images if not any(i.path[:depth] in masks for depth in range(1, len(i.path)))]
    if masks:
        shown = ", ".join(sorted("/".join(folder) for folder in masks)[:3])
        notices.append(
            f"{plural(len(images) - len(kept), 'file')} in {shown} taken for masks of the photos and left out"
        )
    kept = _without_drawn_folders(kept, look, notices)
    return _without_masks_of_one_name(_without_named_masks(kept, look, notices), look, notices)


def _folders(images: Sequence[Located]) -> set[Parts]:
    return {image.path[:depth] for image in images for depth in range(1, len(image.path))}


def _holding_photos(folders: set[Parts]) -> set[Parts]:
    """The folders with one below that is called as photos are."""
    return {folder[:-1] for folder in folders if folder[-1].lower() in PHOTOS}


def _without_drawn_folders(images: list[Located], look: Look, notices: list[str]) -> list[Located]:
    """Leave out folders with a mask's word in their name (``train_masks``, ``gtFine``) and drawings in them, where the
    other pictures are none."""
    held: dict[Parts, list[Located]] = {}
    rest = []
    for image in images:
        depth = next((n for n, name in enumerate(image.path[:-1], 1) if _says_masks(name)), 0)
        if depth:
            held.setdefault(image.path[:depth], []).append(image)
        else:
            rest.append(image)
    if not held or not rest or _drawn(rest, look):
        return images
    out: set[Located] = set()
    for folder, files in sorted(held.items()):
        if _drawn(files, look):
            out.update(files)
            count = plural(len(files), "file", "files")
            notices.append(
                f"{count} in {'/'.join(folder)}: called and drawn like masks of photos, and left out; rename the "
                "folder if it is a class"
            )
    return [image for image in images if image not in out]


def _says_masks(folder: str) -> bool:
    words = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", folder)}
    return bool(words & _FOLDERS) and not is_unlabelled(folder)


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


def _without_named_masks(images: list[Located], look: Look, notices: list[str]) -> list[Located]:
    photos = {(*image.path[:-1], PurePosixPath(image.path[-1]).stem): image for image in images}
    named = [(i, photos[photo]) for i in images if (photo := _photo_of(i.path)) in photos]
    if not named:
        return images
    first = f"{'/'.join(named[0][0].path)} of {named[0][1].path[-1]}"
    files = plural(len(named), "file is", "files are")
    if _drawn([mask for mask, _ in named], look):
        notices.append(f"{files} named and drawn like masks of photos ({first}): left out")
        out = {mask for mask, _ in named}
        return [image for image in images if image not in out]
    notices.append(f"{files} named like masks of photos ({first}), with as many colours as photos: taken as photos")
    return images


def _drawn(files: Sequence[Located], look: Look) -> bool:
    """Whether most of these pictures have few colours, by a sample of those that can be read."""
    looked = [(file.path, look(file.path)) for file in sample(files)]
    few = sum(image is not None and colours(image, _suffix(path) in _JPEG) <= COLOURS for path, image in looked)
    return few * 2 > len(looked)


def sample(files: Sequence[Located]) -> Sequence[Located]:
    """A few of many files, spread evenly."""
    return files[:: max(1, len(files) // _LOOKED_AT)][:_LOOKED_AT]


def _suffix(path: Parts) -> str:
    return PurePosixPath(path[-1]).suffix.lower()


def _without_masks_of_one_name(images: list[Located], look: Look, notices: list[str]) -> list[Located]:
    types: dict[str, list[Located]] = {}  # path without its suffix -> files
    for image in images:
        types.setdefault(str(PurePosixPath(*image.path).with_suffix("")), []).append(image)
    pairs = [files for files in types.values() if len(files) > 1]
    if not pairs:
        return images
    lossless = [i for files in pairs for i in files if _suffix(i.path) not in _JPEG[:2]]
    first = " and ".join(image.path[-1] for image in pairs[0][:2])
    if len(lossless) >= len(pairs) and _drawn(lossless, look):
        notices.append(f"{plural(len(lossless), 'mask')} under the names of photos ({first}) left out")
        out = set(lossless)
        return [image for image in images if image not in out]
    kinds = Counter(tuple(sorted(_suffix(i.path) for i in files)) for files in pairs)
    shown = ", ".join(" and ".join(kind) for kind in list(kinds)[:2])
    lie = plural(len(pairs), "picture lies", "pictures lie")
    notices.append(f"{lie} there under one name with two types ({shown}; {first}): both files stay in one split")
    return images


def without_maps(images: list[Located], look: Look, notices: list[str]) -> list[Located]:
    """Leave out ``x_depth.png`` beside ``x.png``, and ``depth/x.png`` below it or beside a folder of photos."""
    beside = _holding_photos(_folders(images))
    there = {(*image.path[:-1], PurePosixPath(image.path[-1]).stem) for image in images}
    out: set[Located] = set()
    for image in images:
        *above, stem = (*image.path[:-1], PurePosixPath(image.path[-1]).stem)
        bare = _MAP_SUFFIX.sub("", stem)
        named = bare != stem and (*above, bare) in there
        inside = bool(above) and _MAP_FOLDER.fullmatch(above[-1]) is not None
        if named or (inside and (tuple(above[:-1]) in beside or (*above[:-1], stem) in there)):
            out.add(image)
    if out:
        first = "/".join(next(image for image in images if image in out).path)
        files = plural(len(out), "file is", "files are")
        notices.append(f"{files} named like maps of photos, of depth and the like ({first}): left out")
    return [image for image in images if image not in out]
