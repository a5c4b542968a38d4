"""The calibration that fits a network best, chosen on images instead of by habit."""

from __future__ import annotations

from softedge.data.images import Uint8
from softedge.export.onnx import ranges as onnx_ranges
from softedge.quantize.candidate import Candidate, Judge


def best_ranges(candidate: Candidate, calibration: Uint8, judge: Judge) -> tuple[Candidate, dict[str, float]]:
    """Try each calibration of ``onnx_ranges`` and keep the one nearest to fp32 on the judge's images.

    By decibels, not by agreement: on a few hundred images one changed answer is worth more than the difference.
    Returns it and the median signal-to-noise ratio (dB) of every one tried.
    """
    tried: dict[str, float] = {}
    best: tuple[float, Candidate] | None = None
    for method, ranges in onnx_ranges.by_method(candidate.graph, calibration).items():
        option = candidate.changed(f"calibration by {method}", ranges=ranges)
        tried[method] = judge.sqnr(option)
        if best is None or tried[method] > best[0]:
            best = tried[method], option
    assert best is not None
    return best[1], tried
