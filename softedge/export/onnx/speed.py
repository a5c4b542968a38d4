"""Which float beginnings of an int8 ONNX file are fast enough on this machine to be worth a comparison.

The first layers of mobile networks are large and narrow: an integer stem of 3 channels takes 3 times as long as the
float one, and most of the noise of a MobileNetV3-Small comes from its first two layers (with them in float 27 dB
instead of 19, 98.0 instead of 92.3 % of the answers). How far the float part should reach differs between networks
(none at all for a ResNet), so it is measured: in processor time, which other processes do not stretch, in pairs, with
an interval. A float part is preferred to a shorter one only where the interval leaves no doubt.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from softedge.errors import UserError, did_you_mean
from softedge.export.base import Uint8
from softedge.export.contract import INPUT
from softedge.export.onnx.quantizer import Scheme, quantize
from softedge.export.onnx.ranges import Ranges, session

CUTS = 6  # places tried for the end of the float part
DEEPEST = 0.25  # of the convolutions at most stay in float: the file is to be an int8 file
WORTH = 0.02  # a difference in time below it is none
SLACK = 0.05  # of the fastest time may go into a float part that brings the file nearer to fp32
SECONDS = 6.0  # of processor time for the whole comparison, warm-up not counted
ROUNDS = 200  # at most
CHOICE = "float_until"  # in the model file, whose bits are those of any other day that chooses alike
TIMES = "timing.json"  # beside it: the measurement, which no two days have in common
_FEWEST = 9  # rounds, however slow
_NOISY = 0.1  # half width of an interval over its median, beyond which nothing is said or decided by time


@dataclass(frozen=True)
class Ratio:
    """A median of ratios and its 95 % interval."""

    median: float
    low: float
    high: float

    @property
    def sure(self) -> bool:
        """Whether the interval is narrow enough to choose by: processor time is not that of an idle machine either."""
        return self.high - self.low <= 2 * _NOISY * self.median

    def noted(self) -> dict[str, Any]:
        """For the file: the ratio to fp32, or that it was not measured."""
        interval = [round(self.low, 3), round(self.high, 3)]
        if self.sure:
            return {"time_over_fp32": round(self.median, 3), "interval": interval}
        return {"not_measured": f"machine too busy: the ratio to fp32 lies between {interval[0]:g} and {interval[1]:g}"}


@dataclass(frozen=True)
class Race:
    """samples: model -> processor time of one image in each round, ms, (rounds,)."""

    samples: Mapping[str, NDArray[np.float64]]

    def ratio(self, name: str, to: str) -> Ratio:
        """Time of one model over another's, within each round; the interval by order statistics (binomial)."""
        ratios = np.sort(self.samples[name] / self.samples[to])
        n = len(ratios)
        reach = 0.98 * math.sqrt(n)
        low, high = math.floor(n / 2 - reach), math.ceil(n / 2 + reach)
        return Ratio(float(np.median(ratios)), float(ratios[max(low, 0)]), float(ratios[min(high, n - 1)]))

    def fastest(self, names: list[str]) -> str:
        return min(names, key=lambda name: float(np.median(self.samples[name])))

    def fast_enough(self, names: list[str], base: str) -> list[str]:
        """Those within ``SLACK`` of the fastest, but none slower than ``base`` where another is not.

        The first of ``names`` is the default: it is left out only where it is clearly too slow, the others are taken in
        only where they clearly are not, and none is where the measurement says little.
        """
        best = self.fastest(names)
        slack = self._slack(best, base)
        ratios = {name: self.ratio(name, best) for name in names}
        if not ratios[names[0]].sure:
            return names[:1]
        return [name for name in names if (ratios[name].low if name == names[0] else ratios[name].high) <= 1 + slack]

    def _slack(self, best: str, base: str) -> float:
        """``SLACK``, or what is left of it below the time of fp32."""
        return min(SLACK, max(self.ratio(base, best).median - 1, WORTH))


@dataclass(frozen=True)
class Beginning:
    """A float beginning.  until: the layer where the integers begin.  about: what was measured, for the file."""

    until: str
    scheme: Scheme
    about: dict[str, Any]


def prefixes(graph: onnx.ModelProto, most: int = CUTS) -> dict[str, frozenset[str]]:
    """Names of the nodes before each place where one single tensor goes on into a convolution.

    Keys are the weights of the convolution that comes next; of a linear layer where there is no convolution.  The first
    entry, the preprocessing alone, is always there.
    """
    nodes = list(graph.graph.node)
    kinds = ("Conv",) if any(node.op_type == "Conv" for node in nodes) else ("Gemm", "MatMul")
    last_use = {name: index for index, node in enumerate(nodes) for name in node.input}
    layers = sum(node.op_type in kinds for node in nodes)
    alive: set[str] = set()
    places: dict[str, frozenset[str]] = {}
    passed = 0
    for index, node in enumerate(nodes):
        crossing = {name for name in alive if last_use.get(name, -1) >= index}
        if node.op_type in kinds:
            if passed and (len(places) == most or passed > DEEPEST * layers):
                break
            if len(crossing) <= 1 or not passed:
                name = node.input[1].split(".weight")[0].removeprefix("model.")
                places[name] = frozenset(n.name for n in nodes[:index])
            passed += 1
        alive = crossing | set(node.output)
    return places


def race(models: Mapping[str, onnx.ModelProto], image: Uint8, seconds: float = SECONDS) -> Race:
    """Processor time of each model on one image (1, H, W, 3), one thread, every round in a new order."""
    sessions = {name: session(model, threads=1) for name, model in models.items()}
    runs = {name: partial(one.run, None, {INPUT: image}) for name, one in sessions.items()}
    return raced(runs, seconds, time.thread_time)  # of this thread alone: a session of one computes in its caller's


def raced(runs: Mapping[str, Callable[[], Any]], seconds: float, clock: Callable[[], float]) -> Race:
    """Processor time of each run by ``clock`` (seconds), every round in a new order."""
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        for _ in range(3):
            run()
    order, rng, rounds = list(runs), np.random.default_rng(0), 0
    end = clock() + seconds
    while rounds < ROUNDS and (rounds < _FEWEST or clock() < end):
        for name in rng.permutation(order):
            start = clock()
            runs[name]()
            samples[name].append(1e3 * (clock() - start))
        rounds += 1
    return Race({name: np.maximum(values, 1e-6) for name, values in samples.items()})


def beginnings(
    fp32: onnx.ModelProto, graph: onnx.ModelProto, ranges: Ranges, image: Uint8, seconds: float = SECONDS
) -> list[Beginning]:
    """The float beginnings that are fast enough, shortest first.

    fp32: the float file they have to beat.  graph, ranges: what is quantized (``rewrite``).  image: (1, H, W, 3).
    """
    schemes = {name: Scheme(float_nodes=names) for name, names in prefixes(graph).items()}
    if not schemes:  # no layer with weights
        return [Beginning("", Scheme(), {})]
    models = {name: quantize(graph, ranges, scheme) for name, scheme in schemes.items()}
    measured = race({"fp32": fp32, **models}, image, seconds)
    ratios = {name: measured.ratio(name, "fp32") for name in schemes}
    tried = {name: round(ratio.median, 3) for name, ratio in ratios.items() if ratio.sure}
    return [
        Beginning(
            name,
            schemes[name],
            {CHOICE: name, **ratios[name].noted(), "tried": tried},
        )
        for name in measured.fast_enough(list(schemes), "fp32")
    ]


def fixed(graph: onnx.ModelProto, until: str) -> Beginning:
    """The float beginning that ends at a named layer; UserError when the network has no such place."""
    places = prefixes(graph)
    if until not in places:
        raise UserError(
            f"export.float_prefix is '{until}', no place in this network{did_you_mean(until, list(places))}"
        )
    return Beginning(until, Scheme(float_nodes=places[until]), {CHOICE: until})
