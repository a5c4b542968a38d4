"""A detector's answer as one row of numbers, for the runtimes of the formats that can hold a detector.

Travels to boards: Python 3.8 and NumPy, no softedge import.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def as_row(outputs: dict[str, Any], count: int = 100) -> Any:
    """A detector's answer as one row, float32 (1, 600): x1 y1 x2 y2 score label of each; label -1: none."""
    row = np.zeros((count, 6), np.float32)
    row[:, 5] = -1
    filled = min(len(outputs["scores"]), count)
    row[:filled, :4] = outputs["boxes"][:filled]
    row[:filled, 4], row[:filled, 5] = outputs["scores"][:filled], outputs["labels"][:filled]
    return row.reshape(1, -1)
