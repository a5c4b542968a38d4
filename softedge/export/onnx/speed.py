"""Which part of an int8 ONNX file is worth computing in integers, by measured time on this machine and closeness.

The first layers of mobile networks are large and narrow: an integer stem of 3 channels takes 3 times as long as the
float one, and most of the noise of a MobileNetV3-Small comes from its first two layers (with them in float 27 dB
instead of 19, 98.0 instead of 92.3 % of the answers). How far the float part should reach differs between networks
(none at all for a ResNet), so it is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from softedge.export.base import Uint8
from softedge.export.contract import INPUT
from softedge.export.onnx.quantizer import Scheme, quantize
from softedge.export.onnx.ranges import Ranges, session

CUTS = 6  # places tried for the end of the float part
DEEPEST = 0.25  # of the convolutions at most stay in float: the file is to be an int8 file
WORTH = 0.02  # a longer float part must gain this much; less is noise
SLACK = 0.05  # of the fastest time may go into a float part that brings the file nearer to fp32
CLOSER = 1.0  # dB that a longer float part must gain
SECONDS = 6.0  # for the whole comparison, warm-up not counted


@dataclass(frozen=True)
class Choice:
    """scheme: what to quantize.  ratios: time of each candidate over the float graph's.  ratio: of the chosen one.

    closeness: dB of those that were fast enough, where it was asked for.
    """

    scheme: Scheme
    cut: str
    ratio: float
    ratios: dict[str, float]
    closeness: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        found = {"float_until": self.cut, "time_over_fp32": self.ratio, "tried": self.ratios}
        return found | ({"tried_db": self.closeness} if self.closeness else {})


def prefixes(graph: onnx.ModelProto, most: int = CUTS) -> dict[str, frozenset[str]]:
    """Names of the nodes before each place where one single tensor goes on into a convolution.

    Keys are the weights of the convolution that comes next.  The first entry, the preprocessing alone, is always there.
    """
    nodes = list(graph.graph.node)
    last_use = {name: index for index, node in enumerate(nodes) for name in node.input}
    convolutions = sum(node.op_type == "Conv" for node in nodes)
    alive: set[str] = set()
    found: dict[str, frozenset[str]] = {}
    passed = 0
    for index, node in enumerate(nodes):
        crossing = {name for name in alive if last_use.get(name, -1) >= index}
        if node.op_type == "Conv":
            if passed and (len(found) == most or passed > DEEPEST * convolutions):
                break
            if len(crossing) <= 1 or not passed:
                name = node.input[1].split(".weight")[0].removeprefix("model.")
                found[name] = frozenset(n.name for n in nodes[:index])
            passed += 1
        alive = crossing | set(node.output)
    return found


def race(models: dict[str, onnx.ModelProto], image: Uint8, seconds: float = SECONDS) -> dict[str, float]:
    """Milliseconds of each model on one image (1, H, W, 3), one thread, interleaved.

    The fastest twentieth of the samples: another process can only make a run slower, and it does so to all in turn.
    """
    sessions = {name: session(model, threads=1) for name, model in models.items()}
    samples: dict[str, list[float]] = {name: [] for name in sessions}
    for run in sessions.values():
        for _ in range(3):
            run.run(None, {INPUT: image})
    end = time.perf_counter() + seconds
    while (time.perf_counter() < end or len(next(iter(samples.values()))) < 5) and _count(samples) < 200:
        for name, run in sessions.items():
            start = time.perf_counter()
            run.run(None, {INPUT: image})
            samples[name].append(1e3 * (time.perf_counter() - start))
    return {name: float(np.quantile(values, 0.05)) for name, values in samples.items()}


def _count(samples: dict[str, list[float]]) -> int:
    return len(next(iter(samples.values())))


def choose(
    fp32: onnx.ModelProto,
    graph: onnx.ModelProto,
    ranges: Ranges,
    image: Uint8,
    seconds: float = SECONDS,
    closeness: Callable[[Scheme], float] | None = None,
) -> Choice:
    """The shortest float part about as fast as the fastest; with ``closeness`` the one about as near to fp32 as any.

    fp32: the float file it has to beat.  graph, ranges: what is quantized (``onnx_rewrite``).  image: (1, H, W, 3).
    closeness: dB of what a scheme gives.
    """
    schemes = {name: Scheme(float_nodes=names) for name, names in prefixes(graph).items()}
    models = {name: quantize(graph, ranges, scheme) for name, scheme in schemes.items()}
    times = race({"fp32": fp32, **models}, image, seconds)
    base = times.pop("fp32")
    decibels = {}
    if closeness is not None:
        decibels = {name: round(closeness(schemes[name]), 2) for name in fast_enough(times, base)}
    chosen = pick(times, decibels)
    ratios = {name: round(value / base, 3) for name, value in times.items()}
    return Choice(schemes[chosen], chosen, ratios[chosen], ratios, decibels)


def fast_enough(times: dict[str, float], base: float) -> list[str]:
    """Those within ``SLACK`` of the fastest, but none slower than fp32 (``base``) where another is not."""
    best = min(times.values())
    limit = min(best * (1 + SLACK), max(base, best * (1 + WORTH)))
    return [name for name, value in times.items() if value <= limit]


def pick(times: dict[str, float], decibels: dict[str, float]) -> str:
    """The first, which is the shortest float part, that is as good as the best: in dB if they are known, or in time."""
    if decibels:
        return next(name for name, value in decibels.items() if value > max(decibels.values()) - CLOSER)
    return next(name for name, value in times.items() if value <= min(times.values()) * (1 + WORTH))
