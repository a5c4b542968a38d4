"""Ranges by entropy on histograms whose answer can be worked out by hand."""

from __future__ import annotations

import numpy as np

from softedge.export.onnx.entropy import divergence, least_divergence


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
