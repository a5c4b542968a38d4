"""What a detector says about a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Detections:
    """What a detector says about one scene, at most 100 objects, best first.

    boxes: float32 (n, 4), x1 y1 x2 y2 in pixels of the original picture.  scores: float32 (n,).  labels: int64 (n,)
    into the classes.  masks: n run-length codes of the whole picture, or empty.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    masks: tuple[dict[str, Any], ...] = ()
