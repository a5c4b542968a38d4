"""Small copies that programs keep of photos: of a test image, they would be trained on; in one folder, be a class."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from softedge.data.inventory import printable
from softedge.data.layouts import Located
from softedge.data.masks import Look, sample
from softedge.progress import plural

_FOLDERS = frozenset(["thumbs", "thumbnails", "thumbnail", "_thumbs", "_thumbnails", "thumbnails_cache"]) | frozenset(
    ["preview", "previews", "_preview", "_previews", "cache", "_cache", "imagecache", "image_cache"]
)
_PERHAPS = frozenset(["thumb", "tn", "small"])  # where the names are those of images in the folder around it
_NAME = re.compile(r"(?i)^(?:thumb(?:nail)?[-_. ])?(.*?)(?:[-_. ](?:thumb(?:nail)?|preview))?$")


def without_thumbnails(images: list[Located], look: Look, notices: list[str]) -> list[Located]:
    """Leave out images in folders of thumbnails, and ``x_thumb.jpg`` beside ``x.jpg``; says how many and where.

    look: a file's pixels, uint8 (H, W, 3); None when it cannot be read.
    """
    there = {(*image.at[:-1], _stem(image)) for image in images}
    aside: dict[Located, str] = {}
    for image in images:
        folders = image.at[:-1]
        known = [folder for folder in folders if folder.lower() in _FOLDERS]
        if known:
            aside[image] = known[0]
        elif folders and folders[-1].lower() in _PERHAPS and (*folders[:-1], _stem(image)) in there:
            aside[image] = folders[-1]
    for image in images:
        bare = _NAME.sub(r"\1", _stem(image))
        if image not in aside and bare and bare != _stem(image) and (*image.at[:-1], bare) in there:
            aside[image] = image.at[-1]
    aside |= _folders_of_copies([image for image in images if image not in aside], look)
    if aside:
        shown = list(dict.fromkeys(printable(where) for where in aside.values()))
        notices.append(
            f"{plural(len(aside), 'image is', 'images are')} taken for thumbnails and left out ({', '.join(shown[:3])}"
            f"{', ...' if len(shown) > 3 else ''}); rename those that are not"
        )
    return [image for image in images if image not in aside]


def _folders_of_copies(images: list[Located], look: Look) -> dict[Located, str]:
    """Images in a folder such as ``thumb`` whose names are all in the folders beside it, where the pictures are larger.

    A class may have such a name, and its images the numbers of others: sizes decide.
    """
    of_folder: dict[tuple[str, ...], list[Located]] = {}
    for image in images:
        of_folder.setdefault(image.at[:-1], []).append(image)
    aside: dict[Located, str] = {}
    for folder, small in of_folder.items():
        if not folder or folder[-1].lower() not in _PERHAPS:
            continue
        beside = [
            i for other, inside in of_folder.items() for i in inside if other != folder and other[:-1] == folder[:-1]
        ]
        larger = {_stem(image): image for image in beside}
        if not all(_stem(image) in larger for image in small):
            continue
        looked = [(look(image.path), look(larger[_stem(image)].path)) for image in sample(small)]
        if all(a is not None and b is not None and 2 * max(a.shape[:2]) <= max(b.shape[:2]) for a, b in looked):
            aside |= dict.fromkeys(small, folder[-1])
    return aside


def _stem(image: Located) -> str:
    return PurePosixPath(image.at[-1]).stem
