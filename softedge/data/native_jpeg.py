"""The package's own decoder of ordinary JPEG, in C (``jpeg.c``): optional, used where it was measured to be faster.

It decodes only what the crops of an image need, and resizes them on the way. Pixels are those of libjpeg-turbo, crops
those of torch's antialiased resize, bit for bit; what it does not take (progressive, CMYK, damaged, ...) is left to
others.

``SOFTEDGE_NATIVE_JPEG=0`` switches it off; ``=1`` asks for it on processors without AVX2, too, where it is slower.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Uint8 = NDArray[np.uint8]
Box = tuple[int, int, int, int]  # left, top, width, height

SWITCH = "SOFTEDGE_NATIVE_JPEG"
_ABI = 1  # of jpeg.c


@dataclass(frozen=True)
class Head:
    """What a file says about itself, before any rotation by Exif."""

    width: int
    height: int
    at: int  # where the frame header is: Exif and XMP, if any, are before it


class Native:
    """The functions of the library. ctypes gives the interpreter's lock away while one runs.

    plain: without the processor's vector instructions, with the same result.
    """

    def __init__(self, library: ctypes.CDLL, plain: bool = False):
        pointer, integer, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
        self._head, self._decode = library.softedge_jpeg_head, library.softedge_jpeg_decode
        self._crops, self._resize = library.softedge_jpeg_crops, library.softedge_resize
        self._head.argtypes = [ctypes.c_char_p, size, pointer]
        self._decode.argtypes = [ctypes.c_char_p, size, pointer, pointer, integer]
        self._crops.argtypes = [ctypes.c_char_p, size, integer, pointer, pointer, integer, pointer, integer]
        self._resize.argtypes = [pointer, size, integer, integer, integer, integer, pointer, integer]
        self.plain = plain

    def head(self, data: bytes) -> Head | None:
        """The header of a JPEG file; None when it is none that this decoder takes."""
        found = (ctypes.c_int64 * 3)()
        return Head(*found) if self._head(data, len(data), found) else None

    def decode(self, data: bytes, box: Box) -> Uint8 | None:
        """The pixels of ``box`` within the picture, uint8 RGB (height, width, 3); None: it does not take the file."""
        pixels = np.empty((box[3], box[2], 3), np.uint8)
        took = self._decode(data, len(data), (ctypes.c_int32 * 4)(*box), pixels.ctypes.data, self.plain)
        return pixels if took else None

    def crops(self, data: bytes, boxes: Sequence[Box], flips: Sequence[bool], to: Sequence[Uint8]) -> bool:
        """Up to four crops of a file, each resized into its ``to``: uint8 RGB (size, size, 3), contiguous, of one size.

        Returns whether it took the file; if not, ``to`` is undefined.
        """
        count, size = len(boxes), to[0].shape[0]
        assert all(view.shape == (size, size, 3) and view.flags.c_contiguous for view in to)
        where = (ctypes.c_int32 * (4 * count))(*(side for box in boxes for side in box))
        mirrored = (ctypes.c_uint8 * count)(*flips)
        places = (ctypes.c_void_p * count)(*(view.ctypes.data for view in to))
        return bool(self._crops(data, len(data), count, where, mirrored, size, places, self.plain))

    def resize(self, image: Uint8, box: Box, flip: bool, size: int) -> Uint8 | None:
        """A crop of uint8 RGB (H, W, 3) to (size, size, 3); None for an image that is not stored row by row."""
        left, top, width, height = box
        assert 0 <= left <= image.shape[1] - width and 0 <= top <= image.shape[0] - height, (box, image.shape)
        if image.strides[1:] != (3, 1) or image.strides[0] < 3 * image.shape[1]:
            return None
        view, start = np.empty((size, size, 3), np.uint8), image.ctypes.data + top * image.strides[0] + 3 * left
        took = self._resize(start, image.strides[0], width, height, flip, size, view.ctypes.data, self.plain)
        return view if took else None


def load(plain: bool = False) -> Native | str:
    """The decoder, or why there is none."""
    suffixes = (".abi3.so", ".so", ".pyd")
    built = [file for file in sorted(Path(__file__).parent.glob("_jpeg.*")) if file.name.endswith(suffixes)]
    if not built:
        return "was not built: it needs a C compiler (gcc or clang) when softedge is installed"
    try:
        library = ctypes.CDLL(str(built[0]))
        if library.softedge_jpeg_abi() != _ABI:
            return "was built from other sources: install softedge again"
        fast = bool(library.softedge_jpeg_fast())
    except (OSError, AttributeError) as error:
        return f"cannot be loaded ({error})"
    if not fast and not plain and os.environ.get(SWITCH) != "1":
        return f"is slower on processors without AVX2: {SWITCH}=1 uses it nevertheless"
    return Native(library, plain)


@cache
def decoder() -> Native | None:
    """The decoder, where there is one and it is not switched off."""
    found = load() if os.environ.get(SWITCH) != "0" else None
    return found if isinstance(found, Native) else None


def status() -> str:
    """One line for ``softedge doctor``."""
    if os.environ.get(SWITCH) == "0":
        return f"decoder of JPEG files: switched off by {SWITCH}=0, simplejpeg is used"
    found = load()
    return "decoder of JPEG files: " + ("ready" if isinstance(found, Native) else f"{found}; simplejpeg is used")
