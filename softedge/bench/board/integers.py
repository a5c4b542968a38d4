"""The answers of a file in integers alone.

Travels to boards: Python 3.8 and NumPy; no softedge import.  ``export/finishing.py`` is the same where softedge is.
"""

from __future__ import annotations

from typing import Any

import numpy


def finished(integers: Any, scale: float, zero_point: int, output: str) -> Any:
    """Logits or features (N, C) in integers -> the float32 output that other files give.

    output: "probabilities", "scores" or "features".
    """
    values = (integers.astype("float32") - zero_point) * numpy.float32(scale)
    if output == "scores":
        return 1 / (1 + numpy.exp(-values))
    if output != "probabilities":
        return values
    powers = numpy.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
