"""Activation ranges without waste: the calibration that fits best, cut where the activation behind is constant."""

from __future__ import annotations

import onnx

from softedge.data.images import Uint8
from softedge.eval.int8_candidate import Candidate, Judge
from softedge.export import onnx_ranges
from softedge.export.onnx_ranges import Ranges
from softedge.progress import track

# Where an activation is constant (exactly; sigmoid within 3e-4, SiLU within 0.003): values beyond need no integer.
_ALIVE: dict[frozenset[str], tuple[float, float]] = {
    frozenset({"HardSwish"}): (-3.0, float("inf")),
    frozenset({"HardSigmoid", "Mul"}): (-3.0, float("inf")),  # a hard-swish in two nodes
    frozenset({"HardSigmoid"}): (-3.0, 3.0),
    frozenset({"Relu"}): (0.0, float("inf")),
    frozenset({"Sigmoid"}): (-8.0, 8.0),
    frozenset({"Sigmoid", "Mul"}): (-8.0, float("inf")),
}

METHODS: tuple[tuple[onnx_ranges.Method, float], ...] = (("mean", 0), ("percentile", 99.99), ("minmax", 0))


def cut_dead_parts(graph: onnx.ModelProto, ranges: Ranges) -> Ranges:
    """Narrow the range of each tensor to where the activation behind it is not constant.

    A convolution before a hard-swish may reach -20, but everything below -3 becomes 0: without that part the same 255
    steps are up to twice as fine.  Nothing changes but rounding.
    """
    readers: dict[str, set[str]] = {}
    for node in graph.graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    cut = dict(ranges)
    for name, (low, high) in ranges.items():
        alive = _ALIVE.get(frozenset(readers.get(name, ())))
        if alive is not None:
            narrow = max(low, alive[0]), min(high, alive[1])
            cut[name] = narrow if narrow[0] < narrow[1] else (min(narrow[0], 0.0), max(narrow[1], 1e-3))
    return cut


def best_ranges(candidate: Candidate, calibration: Uint8, judge: Judge) -> tuple[Candidate, dict[str, float]]:
    """Try each calibration, cut, and keep the one nearest to fp32 on the judge's images.

    By decibels, not by agreement: on a few hundred images one changed answer is worth more than the difference.
    Returns it and the median signal-to-noise ratio (dB) of every one tried.
    """
    tried: dict[str, float] = {}
    best: tuple[float, Candidate] | None = None
    for method, percentile in track(METHODS, "int8 calibration"):
        ranges = cut_dead_parts(candidate.graph, onnx_ranges.measure(candidate.graph, calibration, method, percentile))
        name = f"{method} {percentile:g}" if percentile else method
        option = candidate.changed(f"calibration by {name}, ranges cut at the activation", ranges=ranges)
        tried[name] = judge.sqnr(option)
        if best is None or tried[name] > best[0]:
            best = tried[name], option
    assert best is not None
    return best[1], tried
