"""An exported detector's golden pictures replayed. Needs the runtime and numpy, no torch."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from softedge.detection import contract, formats
from softedge.detection.format import Outputs, Uint8
from softedge.errors import GateFailed, UserError
from softedge.export.metadata import contradictions

REPLAYED = 0.98  # of the detections must come again: fp16 and int8 files round differently on another processor


def agreement(answer: Outputs, reference: Outputs, above: float = 0.05) -> float:
    """Share of the reference's detections with a score above 0.05 that are found: same label, score within 0.01, every
    side within a pixel. Below it lie hundreds of near ties, of which the limit of 100 keeps one or the other.
    """
    reference = {name: value[reference["scores"] > above] for name, value in reference.items()}
    if not len(reference["scores"]):
        return 1.0
    near = (
        (reference["labels"][:, None] == answer["labels"][None])
        & (np.abs(reference["scores"][:, None] - answer["scores"][None]) < 0.01)
        & (np.abs(reference["boxes"][:, None] - answer["boxes"][None]).max(-1, initial=0.0) < 1.0)
    )
    return float(near.any(1).mean())


def verify(folder: Path) -> dict[str, Any]:
    """Replay the golden pictures of an export folder; GateFailed when detections do not come again.

    Returns artifact, target, precision, sha256, n, agreement (the least of the pictures), passed and ``rows``.
    """
    artifact, values = contract.read(folder), contract.describe(folder)
    if lines := contradictions(artifact):
        raise GateFailed(f"{folder}: {lines[0]}")
    run = formats.open_runner(artifact)
    rows: list[dict[str, Any]] = []
    for number, (image, expected) in enumerate(_golden(folder, values)):
        share = agreement(run(image), expected)
        rows.append({"image": str(number), "detections": len(expected["scores"]), "agreement": share})
    least = min((row["agreement"] for row in rows), default=1.0)
    if least < REPLAYED:
        raise GateFailed(
            f"{folder}: only {100 * least:.1f} % of the detections on a golden picture are reproduced (at least "
            f"{100 * REPLAYED:g} %): this machine's runtime does not compute what was exported"
        )
    return {
        "artifact": artifact.name,
        "target": artifact.target,
        "precision": artifact.precision,
        "sha256": artifact.sha256,
        "n": len(rows),
        "agreement": least,
        "passed": True,
        "rows": rows,
    }


def _golden(folder: Path, values: Mapping[str, Any]) -> list[tuple[Uint8, Outputs]]:
    """The golden pictures (H, W, 3) with what was detected at export; UserError when they are damaged."""
    names = [output["name"] for output in values["outputs"]]
    with contract.damage_named(folder):
        path = Path(folder) / values["golden"]["file"]
        count = int(values["golden"]["images"])
        if count < 1:
            raise ValueError(f"golden.images is {count}")
    try:
        with np.load(path, allow_pickle=False) as golden:
            return [(golden[f"{n}.image"], {name: golden[f"{n}.{name}"] for name in names}) for n in range(count)]
    except (OSError, KeyError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged or missing ({error}); export the detector again") from error
