"""The only place where latency samples become statistics.

After MLPerf Mobile (Reddi et al. 2022, https://arxiv.org/abs/2012.02328): single stream, batch 1, headline p90.  No
sample is removed: a slow one is what a user of the app would have felt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softedge.bench.base import Measurement, TimingPlan
from softedge.records import Latency

DRIFT_LIMIT = 0.10  # assumption: slower changes are the noise of a machine that does other things too
_RESAMPLES = 2000
_FEWEST_ROUNDS = 8  # below, a bootstrap interval is too narrow to be honest


def summarise(measurement: Measurement, plan: TimingPlan) -> Latency:
    """Statistics of a timed measurement; ``valid`` is the preset kept: enough samples and enough measured time."""
    samples = np.asarray(measurement.samples_ms, float)
    if not len(samples):
        raise ValueError(f"{measurement.artifact} has no samples")
    missing = []
    if len(samples) < plan.min_count:
        missing.append(f"{len(samples)} samples, the {plan.preset} preset needs {plan.min_count}")
    seconds = samples.sum() * measurement.runs_per_sample / 1000
    if seconds < plan.min_seconds * 0.999:
        missing.append(f"{seconds:.1f} s measured, the {plan.preset} preset needs {plan.min_seconds:g} s")
    figures = percentiles(samples)
    return Latency(
        p50_ms=figures["p50_ms"],
        p90_ms=figures["p90_ms"],
        p99_ms=figures["p99_ms"],
        mean_ms=figures["mean_ms"],
        min_ms=figures["min_ms"],
        n=len(samples),
        load_ms=_or_nan(measurement.load_ms),
        first_ms=_or_nan(measurement.first_ms),
        valid=not missing,
        why_not_valid="; ".join(missing),
    )


def percentiles(samples_ms: Sequence[float] | NDArray[np.float64]) -> dict[str, float]:
    """p50, p90, p99 (nearest rank: always a value that was measured), mean and min, in milliseconds."""
    samples = np.asarray(samples_ms, float)
    p50, p90, p99 = np.percentile(samples, [50, 90, 99], method="inverted_cdf")
    return {
        "p50_ms": float(p50),
        "p90_ms": float(p90),
        "p99_ms": float(p99),
        "mean_ms": float(samples.mean()),
        "min_ms": float(samples.min()),
    }


@dataclass(frozen=True)
class Drift:
    """Median of the last third of the samples over that of the first: 1.2 is 20% slower at the end (heat, load)."""

    ratio: float
    flagged: bool


def drift(samples_ms: Sequence[float]) -> Drift | None:
    """None when there are too few samples to split into thirds."""
    third = len(samples_ms) // 3
    if third < 5:
        return None
    begin = np.median(samples_ms[:third])
    if not begin:  # nothing but zeros, of a clock that is too coarse
        return None
    ratio = float(np.median(samples_ms[-third:]) / begin)
    return Drift(ratio, abs(ratio - 1) > DRIFT_LIMIT)


@dataclass(frozen=True)
class PairedRatio:
    """Latency of one artifact over another's, from rounds in which both ran, with a 95% interval.

    ratio: geometric mean over the rounds of (median of a / median of b).  different: the interval excludes 1; None when
    there are too few common rounds to say.
    """

    ratio: float
    low: float | None
    high: float | None
    rounds: int
    different: bool | None


def paired_ratio(a: Measurement, b: Measurement, seed: int = 0) -> PairedRatio | None:
    """Compare two artifacts of one run; what slows both in a round cancels.  None without a common round.

    The interval is a percentile bootstrap over rounds (Efron 1979); single samples within a round are not independent.
    """
    medians_a, medians_b = _round_medians(a), _round_medians(b)
    common = sorted(r for r in set(medians_a) & set(medians_b) if medians_a[r] and medians_b[r])
    if not common:
        return None
    logs = np.log([medians_a[r] / medians_b[r] for r in common])
    ratio = float(np.exp(logs.mean()))
    if len(common) < _FEWEST_ROUNDS:
        return PairedRatio(ratio, None, None, len(common), None)
    drawn = np.random.default_rng(seed).integers(0, len(logs), (_RESAMPLES, len(logs)))
    low, high = np.exp(np.percentile(logs[drawn].mean(axis=1), [2.5, 97.5]))
    return PairedRatio(ratio, float(low), float(high), len(common), bool(low > 1 or high < 1))


def _round_medians(measurement: Measurement) -> dict[int, float]:
    rounds, samples = np.asarray(measurement.rounds, int), np.asarray(measurement.samples_ms, float)
    return {int(r): float(np.median(samples[rounds == r])) for r in np.unique(rounds)}


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else float(value)
