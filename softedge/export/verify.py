"""Replay the golden images of an export folder with this machine's runtime. Needs that runtime and numpy, no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from softedge.errors import GateFailed
from softedge.eval.measures import PRESENT, agreement
from softedge.export import contract
from softedge.export.base import open_format
from softedge.export.metadata import contradictions
from softedge.export.parity import difference, one_by_one
from softedge.records import Artifact, Output


def verify(folder: Path) -> dict[str, Any]:
    """Check the hashes, run the golden images, compare with the outputs recorded at export.

    Each image is run in a batch with the others and alone, as an app does: a runtime may have other kernels for one.
    Returns artifact, target, precision, sha256, n, max_abs_diff, tolerance, agreement, passed and ``rows``, one an
    image.  Raises GateFailed when an output differs by more than the contract allows, or labels or
    preprocessing in it from those in the file; UserError when files are missing,
    were edited, or the runtime is not installed.
    """
    folder = Path(folder)
    values = contract.describe(folder)
    artifact, golden = contract.read(folder), contract.read_golden(folder)
    if lines := contradictions(artifact):
        raise GateFailed(f"{folder}: {lines[0]}")
    predict = open_format(artifact.target).load(artifact)
    outputs, alone = predict(golden.images), one_by_one(predict, golden.images)
    if outputs.shape != golden.expected.shape:
        raise GateFailed(f"{folder} gives outputs of shape {outputs.shape}, expected {golden.expected.shape}")
    allowed = float(values["tolerance"]["replay"])
    rows: list[dict[str, Any]] = []
    for index, (together, single, wanted) in enumerate(zip(outputs, alone, golden.expected)):
        gaps = [difference(value[None], wanted[None], artifact.output) for value in (together, single)]
        gap, got = max(gaps), single if gaps[1] > gaps[0] else together
        rows.append(
            {
                "image": golden.names[index] if index < len(golden.names) else str(index),
                "expected": _label(artifact, wanted),
                "found": _label(artifact, got),
                "difference": gap,
                "passed": bool(gap <= allowed and _may_be_same(artifact.output, got, wanted, allowed)),
            }
        )
    largest = max((row["difference"] for row in rows), default=0.0)
    result = {
        "artifact": artifact.name,
        "target": artifact.target,
        "precision": artifact.precision,
        "sha256": artifact.sha256,
        "n": len(rows),
        "max_abs_diff": largest,
        "tolerance": allowed,
        "agreement": agreement(golden.expected, alone, artifact.output),
        "passed": all(row["passed"] for row in rows),
        "rows": rows,
    }
    if not result["passed"]:
        wrong = [row["image"] for row in rows if not row["passed"]]
        raise GateFailed(
            f"{folder}: {len(wrong)} of {len(rows)} golden images differ (largest difference {largest:.2g}, allowed "
            f"{allowed:g}; first {wrong[0]}): this machine's runtime does not compute what was exported"
        )
    return result


def _may_be_same(output: Output, actual: np.ndarray, wanted: np.ndarray, allowed: float) -> bool:
    """Whether outputs (C,) within the tolerance of what was wanted give the same answer, or nearly.

    Two classes closer than the tolerance may change places without anything being wrong.
    """
    if output != "probabilities" or len(wanted) < 2:
        return True
    second, first = np.sort(wanted)[-2:]
    return bool(first - second <= 2 * allowed) or int(actual.argmax()) == int(wanted.argmax())


def _label(artifact: Artifact, outputs: np.ndarray) -> str:
    labels = artifact.labels
    if artifact.output == "scores":
        return ", ".join(labels[i] for i in np.flatnonzero(outputs >= PRESENT)) or "no label"
    index = int(outputs.argmax())
    return labels[index] if index < len(labels) else str(index)
