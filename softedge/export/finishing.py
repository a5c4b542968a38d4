"""What an app does with a file that ends in logits: the softmax or the sigmoids, which other files hold inside."""

from __future__ import annotations

import numpy as np

from softedge.export.base import Float32


def finish(values: Float32, output: str) -> Float32:
    """Logits (N, C) -> probabilities or scores (N, C), as ``output`` says; features stay as they are."""
    if output == "scores":
        return (1 / (1 + np.exp(-values))).astype(np.float32)
    if output != "probabilities":
        return values
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
