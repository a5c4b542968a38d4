"""Which layers int8 hurts: each layer alone in int8, each alone in float, and the fewest float layers that suffice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from softedge.export.candidates import Candidates, Option
from softedge.export.nearest import Judge, decibels
from softedge.progress import track

LARGEST_SHARE = 0.5  # of the layers in float at most: beyond it the file is int8 in name only


@dataclass(frozen=True)
class Sensitivity:
    """alone_db: signal-to-noise ratio of the outputs with this layer alone in int8.  float_gain_db: what it gains the
    int8 network when this layer alone stays in float.  details: see ``Candidates.describe``."""

    name: str
    alone_db: float
    alone_agreement: float | None
    float_gain_db: float
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "alone_db": self.alone_db,
            "alone_agreement": self.alone_agreement,
            "float_gain_db": self.float_gain_db,
            **self.details,
        }


def rank(candidates: Candidates, option: Option, judge: Judge) -> list[Sensitivity]:
    """Every layer with weights, the most harmful first; layers that the format cannot put in float are left out."""
    base, kept = judge.decibels(candidates, option), candidates.float_layers(option)
    layers = []
    for name in track(candidates.layers(), "int8 sensitivity"):
        alone = candidates.alone(option, name)
        more = candidates.with_float(option, [name])
        if alone is None or more is None:
            continue
        measures = judge.measure(candidates, alone)
        layers.append(
            Sensitivity(
                name=name,
                alone_db=decibels(measures),
                alone_agreement=float(measures["agreement"]) if "agreement" in measures else None,
                float_gain_db=judge.decibels(candidates, more) - base if name not in kept else 0.0,
                details=candidates.describe(option, name),
            )
        )
    return sorted(layers, key=lambda layer: layer.alone_db)


def fewest(layers: int, suffices: Callable[[int], bool]) -> int | None:
    """The smallest count for which ``suffices`` is true, found by doubling and halving (to about an eighth).

    None when ``LARGEST_SHARE`` of the layers do not suffice.
    """
    most = at_most(layers)
    count, failed = 1, 0
    while not suffices(count):
        if count == most:
            return None
        failed, count = count, min(most, count * 2)
    while count - failed > max(1, count // 8):
        middle = (count + failed) // 2
        if suffices(middle):
            count = middle
        else:
            failed = middle
    return count


def at_most(layers: int) -> int:
    """How many of so many layers may be put in float."""
    return max(1, int(LARGEST_SHARE * layers))
