"""A few test images for the report: those that int8 gets wrong and fp32 right (without labels: where the two differ),
then some ordinary ones."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from softedge.data.images import UNLABELLED, Uint8
from softedge.eval.measures import PRESENT, Float32, Labels, same_answer
from softedge.records import Output, Precision
from softedge.run import write_bytes


@dataclass(frozen=True)
class Sample:
    """The images a check is made on.  labels: (N,), ``UNLABELLED`` where unknown.  held_out: no training saw them."""

    images: Uint8
    labels: Labels
    names: tuple[str, ...]
    held_out: bool


def examples(
    sample: Sample,
    fp32: Float32,
    files: Mapping[str, Float32],
    labels: tuple[str, ...],
    folder: Path,
    count: int,
    output: Output = "probabilities",
) -> list[dict[str, Any]]:
    """Choose ``count`` images, write them as PNG into ``folder`` and return their predictions.

    fp32: probabilities or scores (N, C) of PyTorch.  files: artifact name -> the same of the file.  At most half of the
    images are lost ones: an int8 file answers otherwise than fp32, and fp32 is right (or no label is known; those of
    scores are not), worst first.
    """
    eight_bit = [p for name, p in files.items() if Precision.named(name.partition("-")[2]).is_int8]
    known = np.full(len(fp32), UNLABELLED) if output == "scores" else sample.labels
    right = (known < 0) | (fp32.argmax(1) == known)
    changed = np.zeros(len(fp32), int)
    distance = np.zeros(len(fp32))
    for outputs in eight_bit:
        changed += ~same_answer(fp32, outputs, output)
        distance = np.maximum(distance, np.abs(outputs - fp32).sum(1))
    lost = np.flatnonzero((changed > 0) & right)
    lost = lost[np.lexsort((-distance[lost], -changed[lost]))][: count // 2]
    ordinary = np.random.default_rng(0).permutation(np.flatnonzero(changed == 0))[: count - len(lost)]
    rows = []
    for index in [*lost.tolist(), *ordinary.tolist()]:
        file = f"{index:05d}.png"
        write_bytes(folder / file, _png(sample.images[index]))
        label = int(known[index])
        rows.append(
            {
                "index": index,
                "name": sample.names[index],
                "file": f"{folder.name}/{file}",
                "label": labels[label] if label >= 0 else None,
                "lost_by_int8": index in set(lost.tolist()),
                "fp32": _prediction(fp32[index], labels, output),
                "predictions": {name: _prediction(outputs[index], labels, output) for name, outputs in files.items()},
            }
        )
    return rows


def _prediction(probabilities: Float32, labels: tuple[str, ...], output: Output) -> dict[str, Any]:
    """The answer in words, with the probability or the score of what is likeliest."""
    best = int(probabilities.argmax())
    if output == "scores":
        present = np.flatnonzero(probabilities >= PRESENT)
        names = ", ".join(labels[i] for i in present) or f"no label (highest: {labels[best]})"
        return {"predicted": names, "probability": float(probabilities[best])}
    return {"predicted": labels[best], "probability": float(probabilities[best])}


def _png(image: Uint8) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
