"""What an app does with a file that ends in logits: the softmax or the sigmoids, which other files hold inside."""

from __future__ import annotations

from typing import Any

import numpy as np

from softedge.export.base import Float32
from softedge.records import LABELLED


def finish(values: Float32, output: str) -> Float32:
    """Logits (N, C) -> probabilities or scores (N, C), as ``output`` says; features stay as they are."""
    if output == "scores":
        return (1 / (1 + np.exp(-values))).astype(np.float32)
    if output != "probabilities":
        return values
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def finish_integers(values: Float32, scale: float, zero_point: int, output: str) -> Float32:
    """``finish`` for integers (N, C), which stand for scale * (q - zero point)."""
    return finish((values - np.float32(zero_point)) * np.float32(scale), output)


def edges(tensor: str, scale: float, zero_point: int, output: str) -> dict[str, dict[str, Any]]:
    """``Format.integer_edges`` of a file that takes pixels and gives logits or features in uint8.

    tensor: the name of its output.
    """
    answer = {"tensor": tensor, "dtype": "uint8", "scale": scale, "zero_point": zero_point}
    by_app = {"activation_by": "the app"} if output in LABELLED else {}
    return {"input": {"scale": 1.0, "zero_point": 0}, "output": {**answer, **by_app}}
