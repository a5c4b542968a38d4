"""Picture files to upright uint8 RGB, and the one preprocessing that a deployed model expects.

Ordinary JPEG goes to libjpeg-turbo directly where ``simplejpeg`` is installed; everything else, and everything unusual,
through Pillow. Both follow libjpeg-turbo's defaults and give the same bits.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import struct
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from softedge.data.ranges import guessed_white, signed_bytes, to_eight_bits
from softedge.errors import UserError, first_line
from softedge.records import InputSpec

Uint8 = NDArray[np.uint8]

MAX_PIXELS = 178_956_970  # Pillow's own limit for an error: beyond it a small file may fill the memory
_MAX_BYTES, _MAX_PIXELS = "SOFTEDGE_MAX_BYTES", "SOFTEDGE_MAX_PIXELS"
_EXIF_ORIENTATION = 0x0112
_PHOTOMETRIC = 262
_NUMPY_UPRIGHT = {  # Exif orientation -> what makes the array upright
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}
_RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_BELOW = 0.05  # of the highest value: as far below 0 resampling may go
_LONGEST_STRIP = 8  # times the shorter side; beyond it only the middle of the picture is resized


class BadImage(Exception):
    """A file that cannot be turned into pixels; the message is the reason, for a person."""


White = Mapping[str, float]  # "I" (more than 8 bits) and "F" (floats): the value that is white


def decode(source: str | Path | bytes, at_least: int = 0, white: White | None = None) -> Uint8:
    """Decode a picture to uint8 RGB (H, W, 3), contiguous, upright by its Exif orientation.

    source: a path, or the bytes of a file.  Transparency is laid on white, 16 bits become 8, of an animation the first
    frame is taken, greyscale, palette and CMYK become RGB.
    white: the range of wide pixels, one for a whole data set (``ranges.py``); None guesses from this picture alone.
    at_least: when positive, a JPEG may come at n/8 of its size, n <= 4, as long as both sides keep this many pixels.
    Raises ``BadImage`` with the reason.
    """
    data = source if isinstance(source, bytes) else read(Path(source))
    if not data:
        raise BadImage("the file is empty")
    if data[:3] == b"\xff\xd8\xff":
        image = _decode_jpeg(data, at_least)
        if image is not None:
            return image
    return _decode_with_pillow(data, white)


def decode_smaller(data: bytes, side: int, white: White | None = None) -> Uint8:
    """``decode``, and the shorter side shrunk to ``side`` pixels where it is longer: the mean of the pixels that each
    new one covers. Never enlarged.
    """
    image = decode(data, side, white)
    height, width = image.shape[:2]
    factor = side / min(height, width)
    if factor >= 1:
        return image
    return cv2.resize(image, (round(width * factor), round(height * factor)), interpolation=cv2.INTER_AREA)


def read(path: Path) -> bytes:
    """The bytes of a regular file; ``BadImage`` when it is none, cannot be opened, or is too large."""
    try:
        # Unbuffered: one copy less of a file that is read at once. Not blocking: a pipe without a writer would hang.
        with open(path, "rb", buffering=0, opener=_not_blocking) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BadImage("is not a regular file")
            if status.st_size > max_bytes():
                raise BadImage(
                    f"{status.st_size:,} bytes are more than the limit of {max_bytes():,} ({_MAX_BYTES} sets it)"
                )
            return file.readall()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise BadImage(f"cannot be opened ({getattr(error, 'strerror', None) or error})") from error


def _not_blocking(path: str, flags: int) -> int:
    """Open a file; a pipe without a writer would else be waited for without end."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


@cache
def max_bytes() -> int:
    """The largest file that is read: ``SOFTEDGE_MAX_BYTES``, else 512 MB."""
    return _limit(_MAX_BYTES, 512_000_000)


@cache
def max_pixels() -> int:
    """The largest picture that is decoded: ``SOFTEDGE_MAX_PIXELS``, else Pillow's own limit."""
    return _limit(_MAX_PIXELS, MAX_PIXELS)


def _limit(variable: str, default: int) -> int:
    text = os.environ.get(variable, "")
    if text and not text.isdecimal():
        raise UserError(f"{variable}={text} is not a whole number; give one, or unset it for {default:,}")
    return int(text or default)


class _Budget:
    """At most so many pixels are being decoded at a time by all threads together; a larger picture is decoded alone."""

    def __init__(self, pixels: int):
        self._pixels, self._taken, self._changed = pixels, 0, threading.Condition()

    @contextlib.contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + pixels <= self._pixels)
            self._taken += pixels
        try:
            yield
        finally:
            with self._changed:
                self._taken -= pixels
                self._changed.notify_all()


_BUDGET = _Budget(100_000_000)  # 0.3 GB of RGB, up to 1.2 GB while 16 bits become 8


def _decode_jpeg(data: bytes, at_least: int) -> Uint8 | None:
    """The fast path for ordinary JPEG; None hands over to Pillow."""
    try:
        import simplejpeg
    except ImportError:
        return None
    head = _jpeg_head(data)
    if head is None or head.components not in (1, 3) or head.pixels > max_pixels():
        return None
    smaller = {"min_height": at_least, "min_width": at_least, "min_factor": 2} if at_least > 0 else {}
    try:
        with _BUDGET.take(head.pixels):
            image = simplejpeg.decode_jpeg(data, "RGB", **smaller)
    except ValueError:  # damaged, or only unusual: Pillow decides and knows the reason
        return None
    turn = _NUMPY_UPRIGHT.get(_orientation(data)) if _may_be_turned(data[: head.at]) else None
    return image if turn is None else np.ascontiguousarray(turn(image))


@dataclass(frozen=True)
class _JpegHead:
    pixels: int
    components: int
    at: int  # where it begins: Exif and XMP, if any, are before it


def _jpeg_head(data: bytes) -> _JpegHead | None:
    """Walk the segments up to the frame header; None when there is none (ITU T.81, B.1.1 and B.2.2)."""
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return _JpegHead(height * width, data[at + 9], at)
        at += 2 + length if marker != 0xFF else 1
    return None


def _may_be_turned(header: bytes) -> bool:
    """Whether Exif's entry for the orientation (tag 0x0112, type SHORT, either byte order) or XMP's may be there."""
    return b"\x12\x01\x03\x00" in header or b"\x01\x12\x00\x03" in header or b"rientation" in header


def _orientation(data: bytes) -> int:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # damaged metadata must not cost the picture
        return 1


def _opened(data: bytes) -> Image.Image:
    """Open with Pillow, its warnings silenced and the size checked before anything is allocated."""
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        _register_heif()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(data))
    if image.width * image.height > max_pixels():
        raise BadImage(
            f"{image.width} x {image.height} pixels are more than the limit of {max_pixels():,} ({_MAX_PIXELS} sets it)"
        )
    return image


def _register_heif() -> None:
    try:
        import pillow_heif  # type: ignore[import-not-found]
    except ImportError:
        raise BadImage("HEIC needs another package: pip install pillow-heif, or convert the file to JPEG") from None
    pillow_heif.register_heif_opener()


def _decode_with_pillow(data: bytes, white: White | None = None) -> Uint8:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _opened(data) as image, _BUDGET.take(image.width * image.height):
                image.load()
                if signed_bytes(image):
                    raise BadImage("has signed 8-bit values; save them as unsigned ones")
                rgb = _to_rgb(_upright(image), white)
                return 255 - rgb if _white_is_zero(image) else rgb
    except (BadImage, UserError):
        raise
    except Exception as error:  # Pillow's readers raise OSError, SyntaxError, ValueError, EOFError, struct.error, ...
        raise BadImage(_reason(error)) from error


def _reason(error: Exception) -> str:
    text = first_line(error)
    if isinstance(error, UnidentifiedImageError):
        return "not an image in a known format"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than the limit of {MAX_PIXELS:,} pixels"
    if "truncated" in text or isinstance(error, EOFError | struct.error):
        text = text.removeprefix("image file is truncated").strip(" ()")
        return f"truncated ({text})" if text else "truncated"
    return f"damaged ({text})"


def _to_rgb(image: Image.Image, white: White | None) -> Uint8:
    """Any Pillow mode to uint8 RGB."""
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        _refuse_negative(values)
        highest = white.get(image.mode[0], 0.0) if white else 0.0
        grey = to_eight_bits(values, highest or guessed_white(values, image.mode))
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))  # a copy: torch warns of arrays that it could not write to


def _refuse_negative(values: NDArray[Any]) -> None:
    """BadImage for pixels of which a part is below 0, by more than resampling leaves: black would be a guess."""
    if values.dtype.kind == "u" or not values.size:
        return
    finite = np.where(np.isfinite(values), values, 0)
    lowest, highest = float(finite.min()), float(finite.max())
    if lowest < -_BELOW * max(abs(highest), 1e-12):
        raise BadImage(f"has values from {lowest:g} to {highest:g}; shift them so that black is 0")


def wide_pixels(data: bytes) -> tuple[tuple[str, float], str] | None:
    """("I" or "F", the highest value) of a picture with more than 8 bits a channel, and a hash of its upright pixels,
    the same in every lossless format; None for any other picture.
    """
    if data[:3] == b"\xff\xd8\xff":
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _opened(data) as image:
                if not image.mode.startswith(("I", "F")):
                    return None
                with _BUDGET.take(image.width * image.height):
                    values = np.asarray(_upright(image))
                    kind = image.mode[0]
                    highest = float(np.nanmax(np.where(np.isfinite(values), values, 0)))
                    stored = values.astype("<f4" if kind == "F" else "<i4")
                    said = repr((kind, values.shape, _white_is_zero(image))).encode()
                    return (kind, highest), hashlib.sha256(said + stored.tobytes()).hexdigest()
    except (BadImage, UserError):
        raise
    except Exception as error:
        raise BadImage(_reason(error)) from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged metadata must not cost the picture
        return image


def _white_is_zero(image: Image.Image) -> bool:
    """Whether a TIFF says that 0 is white (tag 262); Pillow turns 8 bits around itself, more bits it does not."""
    tags = getattr(image, "tag_v2", None) or {}
    return image.mode.startswith(("I", "F")) and tags.get(_PHOTOMETRIC) == 0


def prepare(image: Uint8, spec: InputSpec) -> Uint8:
    """What every model gets, in training, evaluation and deployment: uint8 RGB (H, W, 3) -> (size, size, 3).

    The shorter side becomes ``spec.resize`` pixels (the longer one ``int(resize * long / short)``) with Pillow's
    antialiased resampling, then the centre is cropped at ``round((side - size) / 2)``: the same as torchvision's Resize
    and CenterCrop on a Pillow image.
    """
    height, width = image.shape[:2]
    if max(height, width) > _LONGEST_STRIP * min(height, width):
        image = _middle(image)
        height, width = image.shape[:2]
    short, long = min(height, width), max(height, width)
    resized = (spec.resize, int(spec.resize * long / short))
    rows, columns = resized if height <= width else resized[::-1]
    if (rows, columns) != (height, width):
        picture = Image.fromarray(image).resize((columns, rows), _RESAMPLE[spec.interpolation])
        image = np.asarray(picture)
    top, left = round((rows - spec.size) / 2.0), round((columns - spec.size) / 2.0)
    return np.ascontiguousarray(image[top : top + spec.size, left : left + spec.size])


def _middle(image: Uint8) -> Uint8:
    """The middle of a long strip: a 1 x 100,000 picture must not grow to gigabytes before its centre is cropped."""
    height, width = image.shape[:2]
    keep = _LONGEST_STRIP * min(height, width)
    top, left = max(0, (height - keep) // 2), max(0, (width - keep) // 2)
    return image[top : top + min(keep, height), left : left + min(keep, width)]
