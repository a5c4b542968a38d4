"""Small copies that programs keep of photos: of a test image, they would be trained on; in one folder, be a class."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from softedge.data.inventory import printable
from softedge.data.layouts import Located
from softedge.progress import plural

_FOLDERS = frozenset(["thumbs", "thumbnails", "thumbnail", "_thumbs", "_thumbnails", "thumbnails_cache"]) | frozenset(
    ["preview", "previews", "_preview", "_previews", "cache", "_cache", "imagecache", "image_cache"]
)
_PERHAPS = frozenset(["thumb", "tn", "small"])  # where the names are those of images in the folder around it
_NAME = re.compile(r"(?i)^(?:thumb(?:nail)?[-_. ])?(.*?)(?:[-_. ](?:thumb(?:nail)?|preview))?$")


def without_thumbnails(images: list[Located], notices: list[str]) -> list[Located]:
    """Leave out images in folders of thumbnails, and ``x_thumb.jpg`` beside ``x.jpg``; says how many and where."""
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
    if aside:
        shown = list(dict.fromkeys(printable(where) for where in aside.values()))
        notices.append(
            f"{plural(len(aside), 'image is', 'images are')} taken for thumbnails and left out ({', '.join(shown[:3])}"
            f"{', ...' if len(shown) > 3 else ''}); rename what is none"
        )
    return [image for image in images if image not in aside]


def _stem(image: Located) -> str:
    return PurePosixPath(image.at[-1]).stem
