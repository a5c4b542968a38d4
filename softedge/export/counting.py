"""The names under which a format counts the arithmetic of its layers, from the file itself (``integer_operations``)."""

from __future__ import annotations

from collections import Counter


def entry(kind: str, weights: bool, activations: bool) -> str:
    """kind: "conv" or "linear".  weights, activations: whether they are of 8 bits."""
    return kind if weights and activations else f"{kind}_weights" if weights else f"{kind}_float"


def in_order(counts: Counter[str]) -> dict[str, int]:
    """Counts by name, sorted."""
    return dict(sorted(counts.items()))
