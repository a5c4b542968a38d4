"""The agreement that a few hundred images lead to expect of new ones."""

from __future__ import annotations

import numpy as np
import pytest

from softedge.eval import measures


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return (powers / powers.sum(1, keepdims=True)).astype(np.float32)


def test_the_agreement_to_expect_is_that_of_many_new_images_where_noise_grows_with_doubt():
    """A linear model of two classes with noise that a count on 200 images cannot resolve."""
    draws = np.random.default_rng(0)

    def images(count):
        margin = np.abs(draws.normal(0, 3, count))
        noise = draws.normal(0, 1, count) * np.where(margin < 1, 0.3, 0.05)
        rows = [np.stack([1 / (1 + np.exp(-m)), 1 / (1 + np.exp(m))], axis=1) for m in (margin, margin + noise)]
        return rows[0].astype(np.float32), rows[1].astype(np.float32)

    truth = measures.agreement(*images(200_000))
    counted, expected, errors = [], [], []
    for _ in range(60):
        fp32, int8 = images(200)
        value, error = measures.expected_agreement(fp32, int8)
        counted.append(measures.agreement(fp32, int8))
        expected.append(value)
        errors.append(error)
    assert abs(np.mean(expected) - truth) < 0.004
    assert np.std(expected) < 0.8 * np.std(counted), "less chance than in a count"
    assert 0.5 < np.mean(errors) / np.std(expected) < 2


def test_the_agreement_to_expect_follows_a_hand_written_loop():
    draws = np.random.default_rng(1)
    fp32 = softmax(draws.normal(0, 2, (50, 4)))
    int8 = softmax(np.log(fp32) + draws.normal(0, 0.5, (50, 4)))
    margins = []
    for a, b in zip(np.log(fp32.astype(float)), np.log(int8.astype(float))):
        answer = int(a.argmax())
        others = [c for c in range(4) if c != answer]
        margins.append((a[answer] - max(a[others]), b[answer] - max(b[others])))
    margins.sort()
    changed = []
    for place, (margin, _) in enumerate(margins):
        first = min(max(place - 10, 0), 30)
        near = [noisy - clean for clean, noisy in margins[first : first + 20]]
        changed.append(np.mean([margin + sign * noise < 0 for noise in near for sign in (1, -1)]))
    expected, error = measures.expected_agreement(fp32, int8)
    assert expected == pytest.approx(1 - np.mean(changed)) and error == pytest.approx(np.std(changed) / 50**0.5)


def test_answers_that_are_no_numbers_are_not_expected_to_agree():
    fp32 = softmax(np.random.default_rng(2).normal(0, 2, (40, 3)))
    broken = fp32.copy()
    broken[:10, 0] = np.nan
    assert measures.expected_agreement(fp32, fp32) == (1.0, 0.0)
    assert measures.expected_agreement(fp32, broken)[0] == pytest.approx(0.75)
    assert measures.expected_agreement(fp32, np.full_like(fp32, np.nan))[0] == 0.0
