"""COCO's segmentations as run-length codes and as bitmaps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from softedge.detection.scenes import Segmentation


def to_rle(mask: Segmentation, height: int, width: int) -> dict[str, Any]:
    """Any COCO segmentation as one compressed run-length code."""
    from faster_coco_eval import mask as codec

    if isinstance(mask, dict):
        return codec.frPyObjects(mask, height, width) if isinstance(mask["counts"], list) else mask
    if not mask:
        return encode(np.zeros((height, width), np.uint8))
    return codec.merge(codec.frPyObjects(mask, height, width))


def encode(bitmap: NDArray[np.uint8]) -> dict[str, Any]:
    """uint8 (height, width), 1 inside -> a compressed run-length code."""
    from faster_coco_eval import mask as codec

    code: dict[str, Any] = codec.encode(np.asfortranarray(bitmap))
    return code


def decode(mask: Segmentation, height: int, width: int) -> NDArray[np.uint8]:
    """Any COCO segmentation -> uint8 (height, width), 1 inside."""
    from faster_coco_eval import mask as codec

    return np.asarray(codec.decode(to_rle(mask, height, width)), np.uint8)
