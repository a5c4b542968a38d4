"""Few labels: spread over features and a linear layer on them, weighed by what makes held-out labels likely."""

from __future__ import annotations

import numpy as np
import pytest

from softedge.eval import few_labels, linear
from softedge.eval.features import softmax
from softedge.eval.spreading import raised, spread, whitened

DECAYS = (1e-3, 1e-1)


def clusters(each: int, labels: int, seed: int = 0, noise: float = 1.0):
    """Three clouds in twenty dimensions, ``labels`` of each known."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(3), each)
    features = (rng.normal(0, 2, (3, 20))[truth] + rng.normal(0, noise, (3 * each, 20))).astype(np.float32)
    kept = linear.pick_per_class(truth, labels, rng)
    return features, truth, np.where(np.isin(np.arange(3 * each), kept), truth, -1)


def test_probabilities_are_the_weighted_geometric_mean_of_both():
    features, truth, labels = clusters(60, 6, noise=4.0)
    folds = np.arange(18) % 6
    found = few_labels.answer(features, labels, 3, folds, DECAYS)
    graph = spread(whitened(features), labels, 3)
    spreading = raised(graph(), graph.sharpness(folds))
    rows = labels >= 0
    layer = softmax(linear.fit(features[rows], labels[rows], 3, DECAYS)(features))
    wanted = np.maximum(spreading, 1e-6) ** found.weight * np.maximum(layer, 1e-6) ** (1 - found.weight)
    np.testing.assert_allclose(found.probabilities, wanted / wanted.sum(1, keepdims=True), atol=1e-5)
    assert found.weight in few_labels.WEIGHTS and (found.probabilities.argmax(1) == truth).mean() > 0.6


def test_a_linear_layer_that_knows_more_has_a_part_and_one_that_disturbs_has_none():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 400)
    lines = rng.normal(0, 1, (400, 12)).astype(np.float32)
    lines[:, 0] = np.where(truth, 0.6, -0.6) + rng.normal(0, 0.1, 400)  # one direction of twelve: no neighbourhood
    some = np.where(np.arange(400) < 80, truth, -1)
    assert few_labels.answer(lines, some, 2, np.arange(80) % 10, DECAYS).weight < 1

    signs = rng.integers(0, 2, (400, 2))  # four clouds at the corners of a square: which diagonal no line can say
    corners = (np.concatenate([4.0 * signs, np.zeros((400, 2))], 1) + rng.normal(0, 0.3, (400, 4))).astype(np.float32)
    some = np.where(np.arange(400) < 80, signs[:, 0] ^ signs[:, 1], -1)
    found = few_labels.answer(corners, some, 2, np.arange(80) % 10, (1e-2,))
    assert found.spread_top1 > found.linear_top1 and found.weight == 1
    assert found.top1 == found.spread_top1


def test_every_labelled_image_is_answered_by_the_labels_of_other_folds():
    features, _, labels = clusters(30, 4, noise=3.0)
    rows, folds = np.flatnonzero(labels >= 0), np.arange(12) % 4
    found = few_labels.answer(features, labels, 3, folds, (1e-2,))
    right = 0
    for fold in range(4):
        held = folds == fold
        layer = linear.fit(features[rows[~held]], labels[rows[~held]], 3, (1e-2,))
        right += int((layer(features[rows[held]]).argmax(1) == labels[rows[held]]).sum())
    assert found.linear_top1 == pytest.approx(right / 12)


@pytest.mark.parametrize("known", [[0], [0, 20], [0, 20, 40]])
def test_a_label_a_class_and_a_class_alone_are_answered(known):
    features, truth, _ = clusters(20, 1)
    labels = np.where(np.isin(np.arange(60), known), truth, -1)
    found = few_labels.answer(features, labels, 3, np.arange(len(known)), DECAYS)
    assert np.isfinite(found.probabilities).all() and 0 <= found.top1 <= 1
    np.testing.assert_allclose(found.probabilities.sum(1), 1, rtol=1e-5)


def test_words_beside_the_features_are_spread_over_and_the_linear_layer_does_not_see_them():
    features, truth, labels = clusters(60, 6, noise=9.0)
    words, _, _ = clusters(60, 6, seed=1, noise=1.0)
    words /= np.linalg.norm(words, axis=1, keepdims=True)
    folds = np.arange(18) % 6
    alone, found = (few_labels.answer(features, labels, 3, folds, DECAYS, words=one) for one in (None, words))
    assert alone.linear_top1 == found.linear_top1 and alone.graphs == (1.0,) and len(found.graphs) == 3
    assert (found.probabilities.argmax(1) == truth).mean() > (alone.probabilities.argmax(1) == truth).mean() + 0.2
