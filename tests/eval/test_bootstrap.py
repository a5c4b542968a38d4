from __future__ import annotations

import math

import numpy as np
import pytest

from softedge.eval.bootstrap import bits, from_bits, paired
from softedge.eval.labels_verdict import compare, mean_and_interval


def test_the_interval_is_that_of_the_paired_normal_approximation_on_many_images():
    rng = np.random.default_rng(0)
    a, b = rng.random(3000) < 0.8, rng.random(3000) < 0.7
    found = paired(a, b)
    difference = a.astype(float) - b
    half = 1.96 * difference.std() / math.sqrt(len(difference))
    assert found.mean == pytest.approx(difference.mean())
    assert found.low == pytest.approx(difference.mean() - half, abs=2e-3)
    assert found.high == pytest.approx(difference.mean() + half, abs=2e-3)


@pytest.mark.parametrize("right", [0, 1])
def test_no_interval_has_zero_width(right):
    same = np.full(25, right)
    found = paired(same, same)
    assert found.mean == 0 and found.low < -0.02 and found.high > 0.02
    all_or_nothing = paired(np.ones(25), np.zeros(25))
    assert all_or_nothing.mean == 1 and all_or_nothing.low < 0.95


def test_the_interval_holds_the_true_difference_about_95_times_in_100():
    rng = np.random.default_rng(1)
    held = 0
    for trial in range(300):
        a, b = rng.random(60) < 0.8, rng.random(60) < 0.7
        found = paired(a, b, seed=trial)
        held += found.low <= 0.1 <= found.high
    assert held >= 0.92 * 300


def test_two_seeds_on_25_images_that_agree_by_chance_have_not_helped():
    """Two seeds with the same gain of two images of 25: by seeds alone the interval has no width."""
    without = np.zeros((2, 25))
    without[:, :15] = 1
    with_it = without.copy()
    with_it[:, 15:17] = 1
    accuracy, other = with_it.mean(1), without.mean(1)
    assert mean_and_interval(list(accuracy - other)).half_width < 1e-9
    gain, judgement = compare(list(accuracy), list(other), list(with_it), list(without))
    assert judgement == "not shown"
    assert gain.mean == pytest.approx(0.08) and gain.half_width > 0.05


def test_a_large_gain_on_many_images_has_helped():
    rng = np.random.default_rng(2)
    without, with_it = rng.random((3, 500)) < 0.5, rng.random((3, 500)) < 0.9
    assert compare(list(with_it.mean(1)), list(without.mean(1)), list(with_it), list(without))[1] == "helped"


def test_bits_are_read_back():
    right = np.array([True, False, False, True])
    assert bits(right) == "1001"
    np.testing.assert_array_equal(from_bits("1001"), right)
