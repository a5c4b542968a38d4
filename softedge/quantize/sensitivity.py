"""Which layers int8 hurts: each layer alone in int8, each alone in float, and the fewest float layers that suffice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from onnx import numpy_helper

from softedge.export.onnx import quantizer as onnx_int8
from softedge.export.onnx.rewrite import constants
from softedge.progress import track
from softedge.quantize.candidate import Candidate, Judge

LARGEST_SHARE = 0.5  # of the layers in float at most: beyond it the file is int8 in name only


@dataclass(frozen=True)
class Layer:
    """alone_db: signal-to-noise ratio of the logits with this layer alone in int8.  float_gain_db: what it gains the
    int8 network when this layer alone stays in float.  low, high: range of its input; widest: of its weights."""

    name: str
    weight: str
    shape: tuple[int, ...]
    alone_db: float
    alone_agreement: float | None
    alone_drop: float | None
    float_gain_db: float
    low: float
    high: float
    widest: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def rank(candidate: Candidate, judge: Judge) -> list[Layer]:
    """Every layer with weights, the most harmful first."""
    names = candidate.layers()
    kept = candidate.scheme.float_nodes
    base = judge.sqnr(candidate)
    known, nodes = constants(candidate.graph), {n.name: n for n in candidate.graph.graph.node}
    others = frozenset(n.name for n in candidate.graph.graph.node if n.op_type in onnx_int8.FOLLOWERS)
    layers = []
    for name in track(names, "int8 sensitivity"):
        alone = judge.measure(candidate.with_float((frozenset(names) - {name}) | others).quantized())
        gain = judge.sqnr(candidate.with_float(kept | {name})) - base if name not in kept else 0.0
        node = nodes[name]
        weight = numpy_helper.to_array(known[node.input[1]])
        low, high = candidate.ranges.get(node.input[0], (float("nan"), float("nan")))
        layers.append(
            Layer(
                name=name,
                weight=node.input[1],
                shape=tuple(weight.shape),
                alone_db=float(alone["sqnr_db"]),
                alone_agreement=_optional(alone.get("agreement")),
                alone_drop=_optional(alone.get("drop")),
                float_gain_db=gain,
                low=low,
                high=high,
                widest=float(np.abs(weight).max()),
            )
        )
    return sorted(layers, key=lambda layer: layer.alone_db)


def _optional(value: float | None) -> float | None:
    return None if value is None else float(value)


def fewest_float(candidate: Candidate, order: list[str], good: Callable[[Candidate], bool]) -> int | None:
    """How many layers of ``order``, most harmful first, in float make ``good`` true; see ``fewest``."""

    def suffices(count: int) -> bool:
        return good(candidate.with_float(candidate.scheme.float_nodes | frozenset(order[:count])))

    return fewest(len(order), suffices)


def fewest(layers: int, suffices: Callable[[int], bool]) -> int | None:
    """The smallest count for which ``suffices`` is true, found by doubling and halving (to about an eighth).

    None when ``LARGEST_SHARE`` of the layers do not suffice.
    """
    most = max(1, int(LARGEST_SHARE * layers))
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
