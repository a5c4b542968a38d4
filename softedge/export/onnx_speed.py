"""Which part of an int8 ONNX file is worth computing in integers, by measured time on this machine.

The first layers of mobile networks are large and narrow: an integer stem of 3 channels takes 3 times as long as the
float one. How far the float part should reach differs between networks (none at all for a ResNet), so it is measured.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from softedge.export.contract import INPUT
from softedge.export.onnx_int8 import Scheme, quantize
from softedge.export.onnx_ranges import Ranges, session
from softedge.export.target import Uint8

CUTS = 6  # places tried for the end of the float part
DEEPEST = 0.25  # of the convolutions at most stay in float: the file is to be an int8 file
WORTH = 0.02  # a longer float part must gain this much; less is noise
SECONDS = 6.0  # for the whole comparison, warm-up not counted


@dataclass(frozen=True)
class Choice:
    """scheme: what to quantize.  ratios: time of each candidate over the float graph's.  ratio: of the chosen one."""

    scheme: Scheme
    cut: str
    ratio: float
    ratios: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        return {"float_until": self.cut, "time_over_fp32": self.ratio, "tried": self.ratios}


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
    fp32: onnx.ModelProto, graph: onnx.ModelProto, ranges: Ranges, image: Uint8, seconds: float = SECONDS
) -> Choice:
    """The fastest scheme among float parts of different length.

    fp32: the float file it has to beat.  graph, ranges: what is quantized (``onnx_rewrite``).  image: (1, H, W, 3).
    """
    schemes = {name: Scheme(float_nodes=names) for name, names in prefixes(graph).items()}
    models = {name: quantize(graph, ranges, scheme) for name, scheme in schemes.items()}
    times = race({"fp32": fp32, **models}, image, seconds)
    base = times.pop("fp32")
    best = min(times, key=times.__getitem__)
    for name in schemes:  # the shortest float part that is as good as the best
        if times[name] <= times[best] * (1 + WORTH):
            best = name
            break
    ratios = {name: round(value / base, 3) for name, value in times.items()}
    return Choice(schemes[best], best, ratios[best], ratios)
