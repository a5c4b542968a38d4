from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest
from colour_model import SPEC

from softedge.bench import board
from softedge.bench.base import Measurement, TimingPlan
from softedge.bench.latency import drift, paired_ratio, percentiles, summarise


def measurement(samples: object, rounds: object = None, name: str = "a") -> Measurement:
    values = [float(s) for s in samples]  # type: ignore[attr-defined]
    return Measurement(name, "", samples_ms=values, rounds=rounds if rounds is not None else range(len(values)))  # type: ignore[arg-type]


def test_percentiles_are_values_that_were_measured() -> None:
    """Nearest rank, by hand: the smallest value that at least q% of the samples do not exceed."""
    samples = np.random.default_rng(0).gamma(2, 3, 137)
    ordered = sorted(samples)
    for name, q in (("p50_ms", 0.5), ("p90_ms", 0.9), ("p99_ms", 0.99)):
        assert percentiles(samples)[name] == ordered[math.ceil(q * 137) - 1]


def test_no_outlier_is_removed() -> None:
    figures = percentiles([1.0] * 99 + [1000.0])
    assert figures["mean_ms"] == pytest.approx(10.99)
    assert figures["p50_ms"] == figures["p99_ms"] == figures["min_ms"] == 1.0
    assert percentiles([1.0] * 98 + [1000.0] * 2)["p99_ms"] == 1000.0


@pytest.mark.parametrize(
    ("count", "each_ms", "missing"),
    [
        (100, 100.0, ""),
        (10, 1000.0, "10 samples"),
        (100, 1.0, "0.1 s measured"),
        (10, 1.0, "10 samples.*0.0 s"),
    ],
)
def test_a_result_is_valid_only_with_enough_samples_and_enough_time(count: int, each_ms: float, missing: str) -> None:
    plan = TimingPlan("of a test", 64, 6.0, Path("images.npy"), SPEC)
    found = summarise(measurement([each_ms] * count), plan)
    assert found.valid == (missing == "")
    assert re.search(missing, found.why_not_valid)
    assert found.n == count


def test_a_machine_that_gets_hot_is_flagged() -> None:
    steady = drift([1.0] * 30)
    heating = drift([1.0] * 10 + [1.1] * 10 + [1.3] * 10)
    assert steady is not None and not steady.flagged
    assert heating is not None and heating.flagged and heating.ratio == pytest.approx(1.3)
    assert drift([1.0] * 10) is None


def test_paired_ratio_cancels_what_slows_both() -> None:
    rng = np.random.default_rng(1)
    conditions = np.repeat(rng.gamma(3, 1, 40), 5)  # differs by 10 times between rounds
    rounds = np.repeat(np.arange(40), 5)
    a = measurement(2.0 * conditions * rng.normal(1, 0.05, 200), rounds)
    b = measurement(1.9 * conditions * rng.normal(1, 0.05, 200), rounds)
    found = paired_ratio(a, b)
    assert found is not None and found.different and found.rounds == 40
    assert found.low is not None and found.high is not None
    assert found.low < 2.0 / 1.9 < found.high
    assert found.high - found.low < 0.05


def test_paired_ratio_of_the_reverse_is_the_reciprocal() -> None:
    rng = np.random.default_rng(2)
    a, b = measurement(rng.gamma(9, 1, 50)), measurement(rng.gamma(9, 1.3, 50))
    forward, backward = paired_ratio(a, b), paired_ratio(b, a)
    assert forward is not None and backward is not None
    assert forward.ratio == pytest.approx(1 / backward.ratio)
    assert forward.low == pytest.approx(1 / backward.high)  # type: ignore[operator]


def test_equal_artifacts_are_rarely_called_different() -> None:
    """A 95% interval errs 5 times in 100; with 30 rounds the bootstrap is a little narrow, 10 in 100 are allowed."""
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(200):
        found = paired_ratio(measurement(rng.lognormal(0, 0.3, 30)), measurement(rng.lognormal(0, 0.3, 30)))
        assert found is not None
        wrong += bool(found.different)
    assert wrong <= 20


def test_few_common_rounds_give_a_ratio_but_no_verdict() -> None:
    found = paired_ratio(measurement([2.0] * 4), measurement([1.0] * 4))
    assert found is not None and found.ratio == pytest.approx(2.0)
    assert found.different is None and found.low is None
    assert paired_ratio(measurement([1.0], [0]), measurement([1.0], [1])) is None


def test_times_of_zero_from_a_coarse_clock_give_no_drift_and_no_ratio() -> None:
    zeros = measurement([0.0] * 20)
    assert drift(zeros.samples_ms) is None
    assert paired_ratio(zeros, measurement([1.0] * 20, name="b")) is None


def test_the_measured_time_counts_every_run_of_a_sample() -> None:
    """100 samples of 20 runs of 1 ms are 2 s."""
    plan = TimingPlan("quick", 64, 2.0, Path("images.npy"), SPEC)
    assert not summarise(measurement([1.0] * 100), plan).valid
    many = summarise(dataclasses.replace(measurement([1.0] * 100), runs_per_sample=20), plan)
    assert many.valid and many.n == 100 and many.p90_ms == 1.0


class Clock:
    """A clock of steps; time passes when something runs."""

    def __init__(self, step: float):
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += 0.0001
        return math.floor(self.now / self.step) * self.step

    def run(self) -> None:
        self.now += 0.0003


@pytest.mark.parametrize("step", [0.001, 0.01])
def test_a_board_with_a_coarse_clock_times_many_runs_as_one_sample(
    step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of 0.3 ms: with steps of 1 ms about 20 / 0.3 of them make a sample; with a fine clock one does."""
    monkeypatch.syspath_prepend(str(Path(board.__file__).parent))
    import subject

    clock = Clock(step)
    assert subject.clock_step(clock) == pytest.approx(step)
    runs = subject.runs_per_sample(clock.run, step, clock)
    assert runs * 0.0003 == pytest.approx(20 * step, rel=0.1)
    fine = Clock(1e-6)
    assert subject.runs_per_sample(fine.run, 1e-6, fine) == 1
