"""Ranges by entropy on histograms whose answer can be worked out by hand."""

from __future__ import annotations

import numpy as np

from softedge.export.onnx.entropy import divergence, least_divergence, without_zeros


def kl(p, q):
    return sum(a * np.log(a / b) for a, b in zip(p, q) if a > 0)


def test_divergence_is_kullback_leiblers_of_the_clipped_and_the_averaged_histogram():
    """1024 bins in 256 levels of four: each level's mean where there is anything, written out in a loop."""
    counts = np.random.default_rng(0).poisson(3, 2048)
    inside = counts[:1024].astype(float)
    p = inside.copy()
    p[-1] += counts[1024:].sum()
    q = np.zeros(1024)
    for level in range(256):
        four = inside[4 * level : 4 * level + 4]
        q[4 * level : 4 * level + 4] = np.where(four > 0, four.sum() / max((four > 0).sum(), 1), 0)
    expected = kl(p / p.sum(), np.maximum(q / q.sum(), 1e-4 * p / p.sum()))
    assert np.isclose(divergence(counts, 0.0, 2.0, 0.0, 1.0), expected)


def test_an_even_distribution_is_not_clipped():
    assert least_divergence(np.full(2048, 50), -1.0, 3.0) == (-1.0, 3.0)


def test_a_lonely_tail_is_clipped_and_the_bulk_is_not():
    """A normal bulk within 0.1 of a range whose upper end one value in a million reaches."""
    edges = np.linspace(-0.1, 1.0, 2049)
    counts, _ = np.histogram(np.random.default_rng(0).normal(0, 0.03, 1_000_000), edges)
    counts[-1] += 1
    low, high = least_divergence(counts, -0.1, 1.0)
    assert 0.09 < high < 0.5 and low < -0.05


def test_the_zeros_of_a_relu_do_not_narrow_its_range():
    """Three of four values are zeros, which every range holds exactly; 7 % of all are above 1.2."""
    values = np.clip(np.random.default_rng(0).normal(-1, 1.5, 500_000), 0, 6)
    counts, _ = np.histogram(values, np.linspace(0, 6, 2049))
    assert counts[0] > 0.7 * counts.sum()
    assert least_divergence(counts, 0.0, 6.0)[1] > 3, "with the zeros it was 1.2"
    assert least_divergence(counts[::-1], -6.0, 0.0)[0] < -3


def test_zeros_between_others_count_as_their_fuller_neighbour():
    counts = np.array([3, 5, 900, 7, 2])
    assert without_zeros(counts, -2.5, 2.5).tolist() == [3, 5, 7, 7, 2]
    assert without_zeros(counts, 1.0, 6.0).tolist() == counts.tolist(), "the range does not reach 0"
    alone = np.array([0, 0, 900, 0, 0])
    assert without_zeros(alone, -2.5, 2.5).tolist() == alone.tolist()
