"""One range for all pixels with more than 8 bits: what is white must not depend on the picture."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from softedge.progress import plural

Uint8 = NDArray[np.uint8]

_BITS = (255.0, 1023.0, 4095.0, 16383.0, 65535.0)  # 8, 10, 12, 14 and 16 bits
_BITS_PER_SAMPLE, _SAMPLE_FORMAT = 258, 339  # tags of a TIFF
_OVERSHOOT = 2.0  # floats meant as 0 to 1 exceed 1 a little after resampling or sharpening


def white_of(maxima: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The value that is white, by kind, from the kind ("I" integers, "F" floats) and highest value of each picture."""
    highest: dict[str, float] = {}
    for kind, value in maxima:
        highest[kind] = max(highest.get(kind, 0.0), value)
    white = {}
    if "I" in highest:
        white["I"] = next((bits for bits in _BITS if highest["I"] <= bits), highest["I"])
    if "F" in highest:
        top = highest["F"]
        white["F"] = 1.0 if top <= _OVERSHOOT else next((bits for bits in (255.0, 65535.0) if top <= bits), top)
    return white


def colour_maximum(data: bytes) -> int | None:
    """The highest value of a PNG or TIFF in colour with 16 bits a channel, of which Pillow keeps the upper 8; None for
    any other picture.
    """
    if not _sixteen_bits_of_colour(data):  # seen from the header: decoding is for those that are
        return None
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3:
        return None
    return int(pixels[..., :3].max())


def _sixteen_bits_of_colour(data: bytes) -> bool:
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return data[24:26] in (b"\x10\x02", b"\x10\x06")  # bit depth; RGB, RGBA
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data)) as image:
            bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, ())
    return len(bits) >= 3 and bits[0] == 16


def colour_notice(maxima: Sequence[int]) -> str | None:
    """What to do about 16 bits in colour whose upper bits no picture uses; None where they are used."""
    if not maxima or (highest := max(maxima)) > _BITS[3]:
        return None
    pictures = plural(len(maxima), "picture in colour has", "pictures in colour have")
    return (
        f"{pictures} 16 bits a channel, of which they use {max(highest, 1).bit_length()}: "
        "the upper 8 are kept, which is nearly black; multiply the values to fill 16 bits"
    )


def notice(white: dict[str, float], count: int) -> str:
    """What was decided, for a person."""
    ranges = " and ".join(f"{top:g} {'in integers' if kind == 'I' else 'in floats'}" for kind, top in white.items())
    unused = white.get("I", 65535.0)
    bits = f"; the upper bits of 16 are not used: {int(unused).bit_length()} are" if unused < 65535 else ""
    pictures = plural(count, "picture has", "pictures have")
    return f"{pictures} more than 8 bits a channel: in all of them 0 is black, and white is {ranges}{bits}"


def guessed_white(values: NDArray[Any], mode: str) -> float:
    """65535 of 16 bits; of wider integers and floats the next of 1, 255 and 65535 above their values."""
    if mode.startswith("I;16"):
        return 65535.0
    highest = next((m for m in (1.0, 255.0) if np.nanmax(values) <= m), 65535.0)
    return 255.0 if mode == "I" and highest == 1.0 else highest


def to_eight_bits(values: NDArray[Any], white: float) -> Uint8:
    """0 to ``white`` becomes 0 to 255; some rows at a time, or a large picture would take ten times its own memory."""
    grey = np.empty(values.shape, np.uint8)
    rows = max(1, (1 << 20) // max(1, values.shape[1]))
    for top in range(0, len(values), rows):
        part = np.nan_to_num(values[top : top + rows].astype(np.float64))
        grey[top : top + rows] = np.clip(np.round(part * (255.0 / white)), 0, 255)
    return grey


def signed_bytes(image: Image.Image) -> bool:
    """Whether a TIFF's 8-bit values are signed (tag 339 is 2); Pillow reads them as unsigned, so that -1 is white."""
    formats = (getattr(image, "tag_v2", None) or {}).get(_SAMPLE_FORMAT, ())
    return image.mode in ("L", "RGB") and 2 in (formats if isinstance(formats, tuple) else (formats,))
