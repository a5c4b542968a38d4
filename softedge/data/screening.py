"""Screening: which images can be read, how large they are, which are identical.

A bad file is set aside with its reason and never stops a run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softedge.data import near_copies
from softedge.data.decoding import BadImage, decode, wide_pixels
from softedge.data.images import ArrayImages, EncodedImages, Images
from softedge.data.ranges import colour_maximum
from softedge.machine.threads import cores
from softedge.progress import track

_CHUNK = 64


@dataclass(frozen=True)
class Look:
    """What one image looks like.

    sha256: of its file (of its pixels, when it lives in memory).  content: of its decoded pixels, the same for every
    copy whatever the file says besides.  longer_side: pixels.  wide: kind and highest value of pixels with more than 8
    bits.  bad: the reason why it cannot be used.  thumbnail: what near-duplicates are found by, uint8 (48, 48); None
    for an image that takes no part.  grey: its channels are the same.
    """

    sha256: str
    longer_side: int
    bad: str = ""
    content: str = ""
    wide: tuple[str, float] | None = None
    thumbnail: near_copies.Uint8 | None = None
    colour: int | None = None  # the highest value, of 16 bits a channel
    grey: bool = False


def screen(images: Images, what: str) -> list[Look]:
    """Decode every image once, in order."""
    chunks = [range(start, min(start + _CHUNK, len(images))) for start in range(0, len(images), _CHUNK)]
    looks: list[Look] = []
    with ThreadPoolExecutor(cores()) as pool:
        for chunk in track(_in_order(pool, images, chunks), what, total=len(chunks)):
            looks += chunk
    return looks


def _in_order(pool: ThreadPoolExecutor, images: Images, chunks: Sequence[range]) -> Iterator[list[Look]]:
    def look(chunk: range) -> list[Look]:
        return [look_at(images, index) for index in chunk]

    yield from pool.map(look, chunks)


def look_at(images: Images, index: int) -> Look:
    """Hash and check one image. The file is read once."""
    if isinstance(images, ArrayImages):
        array = images.array[index]
        digest = hashlib.sha256(array.tobytes()).hexdigest()
        return Look(digest, max(array.shape[:2]), content=digest, grey=_grey(array))
    if not isinstance(images, EncodedImages):
        raise TypeError(f"images of an unknown kind: {type(images).__name__}")
    digest = ""
    try:
        data = images.read(index)
        digest = hashlib.sha256(data).hexdigest()
        image = decode(data)
        wide = wide_pixels(data)
    except BadImage as error:
        return Look(digest, 0, str(error))
    # Wide pixels become 8 bits only when the range of all images is known: they are compared as stored.
    content = wide[1] if wide else hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
    thumbnail = None if wide else near_copies.thumbnail(image)
    kind, highest = wide[0] if wide else None, colour_maximum(data)
    return Look(digest, max(image.shape[:2]), "", content, kind, thumbnail, highest, _grey(image))


def _grey(image: NDArray[np.uint8]) -> bool:
    """Whether a picture (H, W, 3) has no colour: what is stored as grey levels decodes to equal channels, JPEG too."""
    rest = image[::8, ::8]  # of a photo with colour, some of these pixels have it
    return all(bool((part[..., :1] == part[..., 1:]).all()) for part in (rest, image))
