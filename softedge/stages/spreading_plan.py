"""What few labels spread over within the minutes: networks, their pixels, visual words (``stages.spreading``)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from softedge.stages import spreading
from softedge.stages.counts import FORWARD, Counts, Pace, minutes_of
from softedge.weights import packages

# Pixels at which labels spread over the features of starting weights: the first those of the weights (more for larger
# networks), the second where images show as much: of photos of 100 pixels 288 gave less
# (benchmarks/results/few-labels.md).
_SIZES = (224, 288)
_SHOWN = 256  # pixels of the largest image, from which it is the second
_FOUND, _WORDS = 5.0, 0.02  # seconds: to find visual words, and to describe an image of 96 pixels by them
_SHARE = 0.25  # of the minutes, at most, where other networks' features join those of the run's


def spreading_minutes(counts: Counts, given: bool, size: int, pace: Pace) -> float:
    """What labels spread over, of all training images; 0 where they do not.

    given: starting weights are.  size: pixels of the training.
    """
    if not counts.spread:
        return 0.0
    networks = pace.at(counts.spread_at) + pace.at(_SIZES[0]) * sum(_cost(counts, *one) for one in counts.beside)
    seconds = counts.taught * FORWARD * (networks if given else pace.at(size))
    if counts.words and counts.taught:
        share = min(spreading.SIDE, counts.longer_side) / spreading.SIDE
        seconds += _FOUND + counts.taught * _WORDS * share**2
    return minutes_of(seconds)


def _cost(counts: Counts, name: str, cost: float) -> float:
    """Of a network that takes ``cost`` at the pixels of its weights."""
    own = packages.PACKAGES[name].size if name in packages.PACKAGES else _SIZES[0]
    return cost * (counts.spread_at / own) ** 2 if counts.spread_at != _SIZES[0] else cost


def spread_over(counts: Counts, given: bool) -> dict[str, Any]:
    """Settings of ``distill``; {} where it is left out.  given: starting weights are."""
    if not counts.taught:
        return {}
    values: dict[str, Any] = {} if counts.spread else {"distill.teacher": "best"}
    words = (spreading.WORDS,) if counts.words else ()
    values["distill.spread_over"] = (spreading.OWN, *(name for name, _ in counts.beside), *words)
    if given and counts.spread_at != _SIZES[0]:
        values["distill.teacher_size"] = counts.spread_at
    return values


def within(counts: Counts, given: bool, size: int, pace: Pace, minutes: float, larger: bool = False) -> Counts:
    """``counts`` with no more to spread over than takes ``_SHARE`` of the minutes.

    given: starting weights are.  size: pixels of the training, at most.  larger: features may see more pixels.  Pixels
    go first, then the costliest networks, at last the words and the run's own: but few labels always spread.
    """
    sizes = _SIZES[::-1] if larger and counts.longer_side >= _SHOWN else _SIZES[:1]
    beside = sorted(counts.beside, key=lambda one: one[1]) if given else []
    for words in (True, False):
        for kept in range(len(beside) if words else 0, -1, -1):
            for at in sizes if words else _SIZES[:1]:
                fewer = replace(counts, beside=tuple(beside[:kept]), spread_at=at, words=words)
                if spreading_minutes(fewer, given, size, pace) <= _SHARE * minutes:
                    return fewer
    return replace(counts, beside=(), spread_at=_SIZES[0], words=False, spread=counts.few or not given)
