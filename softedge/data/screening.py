"""Looking at every image once before training: which can be read, how large they are, which are the same.

A bad file is set aside with its reason and never stops a run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from softedge.data.decoding import BadImage, check_header, decode
from softedge.data.images import ArrayImages, EncodedImages, Images
from softedge.progress import track
from softedge.threads import cores

DECODE_AT_MOST = 20_000  # beyond it only headers are checked now; the loader sets aside what fails to decode later
_CHUNK = 64


@dataclass(frozen=True)
class Look:
    """What one image looks like: the sha256 of its file (of its pixels, when it lives in memory), and its longer side
    in pixels; or the reason why it is bad."""

    sha256: str
    longer_side: int
    bad: str = ""


def screen(images: Images, what: str, thorough: bool) -> list[Look]:
    """Look at every image, in order. ``thorough`` decodes each file, else only its header is checked."""
    chunks = [range(start, min(start + _CHUNK, len(images))) for start in range(0, len(images), _CHUNK)]
    looks: list[Look] = []
    with ThreadPoolExecutor(cores()) as pool:
        for chunk in track(_in_order(pool, images, chunks, thorough), what, total=len(chunks)):
            looks += chunk
    return looks


def _in_order(
    pool: ThreadPoolExecutor, images: Images, chunks: Sequence[range], thorough: bool
) -> Iterator[list[Look]]:
    def look(chunk: range) -> list[Look]:
        return [look_at(images, index, thorough) for index in chunk]

    yield from pool.map(look, chunks)


def look_at(images: Images, index: int, thorough: bool) -> Look:
    """Hash and check one image. The file is read once."""
    if isinstance(images, ArrayImages):
        array = images.array[index]
        return Look(hashlib.sha256(array.tobytes()).hexdigest(), max(array.shape[:2]))
    if not isinstance(images, EncodedImages):
        raise TypeError(f"images of an unknown kind: {type(images).__name__}")
    digest = ""
    try:
        data = images.read(index)
        digest = hashlib.sha256(data).hexdigest()
        longer = max(decode(data).shape[:2]) if thorough else max(check_header(data))
    except BadImage as error:
        return Look(digest, 0, str(error))
    return Look(digest, longer)
