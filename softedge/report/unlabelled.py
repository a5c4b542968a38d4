"""Runs that were checked on images without labels: the files are compared with fp32, and no file has an accuracy."""

from __future__ import annotations

from typing import Any

from softedge.report import words

Values = dict[str, Any]

NO_LABELS = "no labelled test images"  # as ``bench`` says it


def judged(run: Values) -> bool:
    """Whether any file has an accuracy, from the check or from a device."""
    timings = [timing for row in run["files"] for timing in row["devices"].values()]
    return any(found.get("top1") is not None for found in (*run["files"], *timings))


def unlabelled(run: Values) -> bool:
    return run["check"].get("images", {}).get("labelled") is False and not judged(run)


def lead(run: Values) -> str:
    """What was measured instead of an accuracy; "" where there are labels."""
    if not unlabelled(run):
        return ""
    n = run["check"]["images"].get("n") or 0
    images = f"The {words.plural(n, 'image')} of the check {'has no label' if n == 1 else 'have no labels'}"
    return f"{images}: no accuracy was measured, the files were compared with PyTorch fp32."
