"""Test images as inline PNGs, so that the page needs no other file."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softedge.run import Run

LONGEST_SIDE = 112  # pixels in the page


def png(image: NDArray[np.uint8]) -> str:
    """A data URI of a uint8 RGB image (H, W, 3), shrunk to ``LONGEST_SIDE``."""
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(image))
    if max(picture.size) <= LONGEST_SIDE // 2:  # enlarged here without smoothing: these are the pixels the network gets
        factor = LONGEST_SIDE // max(picture.size)
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    elif max(picture.size) > LONGEST_SIDE:
        picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    if all(np.array_equal(image[..., 0], image[..., c]) for c in (1, 2)):
        picture = picture.convert("L")
    elif max(picture.size) > 40:
        picture = picture.quantize(128)  # a third of the bytes, no visible difference at this size
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def of_check(run: Run, examples: list[dict[str, Any]]) -> dict[int, str]:
    """Data URIs of the pictures that the check put aside, by index; those that are gone are left out."""
    from softedge.data.decoding import BadImage, decode

    uris = {}
    for example in examples:
        try:
            uris[int(example["index"])] = png(decode(run.folder("check") / str(example["file"])))
        except (BadImage, KeyError, TypeError, ValueError):
            continue
    return uris


def of_test_images(run: Run, wanted: Iterable[int]) -> tuple[dict[int, str], dict[int, str], str]:
    """Data URIs and names of test images by index (of all that the data stage looked at; no picture of one that is set
    aside), and a reason when they cannot be had (the data may have moved)."""
    indices = sorted(set(wanted))
    if not indices:
        return {}, {}, ""
    try:
        from softedge.data import load
        from softedge.data.decoding import prepare

        data = load(run, tell=False)
        every = data.test.every
        there = [i for i in indices if str(every.names[i]) not in data.aside]
        if not there:
            return {}, {}, f"the test images cannot be read ({data.aside[str(every.names[indices[0]])]})"
        uris = {i: png(prepare(every.decode(i), data.spec)) for i in there}
        return uris, {i: str(every.names[i]) for i in indices}, ""
    except Exception as error:  # a report must not fail because pictures were moved, whatever reads them raises
        return {}, {}, f"the test images cannot be read ({type(error).__name__}: {error})"
