"""A scene's picture as pixels, refused when it does not fit its annotation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softedge.data.decoding import BadImage, decode
from softedge.detection.scenes import Scene
from softedge.errors import UserError

Uint8 = NDArray[np.uint8]
_ORIENTATION = 0x0112
_WIDTH, _HEIGHT = 256, 257  # tags of a TIFF
_MARKS = (b"eXIf", b"exif", b"adobe.xmp")  # of metadata in a PNG


def pixels(scene: Scene) -> Uint8:
    """uint8 RGB (H, W, 3), upright; UserError when the file cannot be read or does not fit its annotation."""
    try:
        image = decode(scene.read())
        check_size(scene, image)
    except BadImage as error:
        raise UserError(f"{scene.path}: {error}; fix it, or remove it from the list of images") from error
    return image.copy()  # a decoder may lend memory that PyTorch must not write to


def check_size(scene: Scene, image: Uint8) -> None:
    """``BadImage`` when the picture has another size than its boxes were drawn on."""
    if image.shape[:2] != (scene.height, scene.width):
        raise BadImage(
            f"{image.shape[1]} x {image.shape[0]} pixels, its annotation says {scene.width} x {scene.height}; boxes "
            "would be misplaced"
        )


def planes(scene: Scene) -> Tensor:
    """The same picture as float32 (3, H, W) in 0..1."""
    return torch.from_numpy(pixels(scene)).permute(2, 0, 1).float().div_(255)


def header(path: Path) -> tuple[tuple[int, int], int] | None:
    """(width, height) in the file and Exif's orientation, 1 to 8; None when it cannot be read. Nothing is decoded."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            size = image.size
            if tags := getattr(image, "tag_v2", None):  # of a TIFF, whose size Pillow has turned already
                size = int(tags.get(_WIDTH, size[0])), int(tags.get(_HEIGHT, size[1]))
            # Pillow decodes a whole PNG to look for Exif data behind the pixels.
            if image.format == "PNG" and not any(mark in path.read_bytes() for mark in _MARKS):
                return size, 1
            orientation = image.getexif().get(_ORIENTATION, 1)
            return size, orientation if orientation in range(1, 9) else 1
    except Exception:  # Pillow's readers raise many kinds on damaged files
        return None
