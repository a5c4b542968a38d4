"""The images of a benchmark on the device: rows of a .npy file, and photos that an app would decode and resize.

Travels to boards beside ``worker.py``: Python 3.8, NumPy, and Pillow or OpenCV for the photos.
"""

from __future__ import annotations

import io
from typing import Any, Callable  # noqa: UP035  (Python 3.8 on boards)

import numpy as np


class RowReader:
    """Rows of a .npy file read one by one: mapping it would count as this process's memory."""

    def __init__(self, path: str):
        array = np.load(path, mmap_mode="r")
        self.shape, self.start = array.shape, array.offset
        self.size = int(np.prod(self.shape[1:]))
        self.file = open(path, "rb")  # noqa: SIM115  (lives as long as the process)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> Any:
        self.file.seek(self.start + index * self.size)
        row = bytearray(self.size)  # OpenVINO shares the memory and needs it writeable
        self.file.readinto(row)
        return np.frombuffer(row, np.uint8).reshape((1, *self.shape[1:]))


def preparation(spec: dict[str, Any]) -> tuple[Callable[[bytes], Any], Callable[[Any], Any], str]:
    """How a file becomes an input here: decode (bytes -> image), resize (image -> uint8 (1, size, size, 3)), with what.

    Pillow gives the very pixels of ``softedge.data.decoding.prepare``; failing that OpenCV, whose area filter is near
    enough for timing.
    """
    size, short = spec["size"], spec["resize"]

    def crop(array: Any) -> Any:
        top, left = round((array.shape[0] - size) / 2), round((array.shape[1] - size) / 2)
        return np.array(array[None, top : top + size, left : left + size], order="C")  # writeable, whatever the crop

    def target(width: int, height: int) -> tuple[int, int]:
        long = int(short * max(width, height) / min(width, height))
        return (short, long) if width <= height else (long, short)

    try:
        from PIL import Image, __version__
    except ImportError:
        import cv2

        def decode_cv2(encoded: bytes) -> Any:
            image: Any = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
            return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

        def resize_cv2(image: Any) -> Any:
            return crop(cv2.resize(image, target(image.shape[1], image.shape[0]), interpolation=cv2.INTER_AREA))

        return decode_cv2, resize_cv2, "OpenCV " + cv2.__version__
    smooth = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[spec["interpolation"]]

    def resize_pillow(image: Any) -> Any:
        wanted = target(*image.size)
        return crop(np.asarray(image if image.size == wanted else image.resize(wanted, smooth)))

    return lambda encoded: Image.open(io.BytesIO(encoded)).convert("RGB"), resize_pillow, "Pillow " + __version__
