"""Weighted k-NN against a loop over single images."""

from __future__ import annotations

import math

import numpy as np
import pytest

from softedge.eval.knn import knn_predict, top1, topk


def by_hand(train, labels, test, n_classes, k, temperature):
    votes = np.zeros((len(test), n_classes))
    for row, query in enumerate(test):
        cosines = [float(query @ f / (np.linalg.norm(query) * np.linalg.norm(f))) for f in train]
        for i in sorted(range(len(train)), key=lambda i: -cosines[i])[:k]:
            votes[row, labels[i]] += math.exp(cosines[i] / temperature)
        votes[row] /= votes[row].sum()
    return votes


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_knn_votes_equal_a_brute_force_loop_whatever_the_chunk(chunk):
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(60, 9)).astype(np.float32), rng.normal(size=(13, 9)).astype(np.float32)
    labels = rng.integers(0, 4, 60)
    votes = knn_predict(train, labels, test, 4, k=10, temperature=0.1, chunk=chunk)
    np.testing.assert_allclose(votes, by_hand(train, labels, test, 4, 10, 0.1), atol=1e-5)


def test_a_training_image_is_its_own_nearest_neighbour():
    features = np.random.default_rng(1).normal(size=(30, 8)).astype(np.float32)
    labels = np.arange(30)
    assert top1(knn_predict(features, labels, features * 3.0, 30, k=1), labels) == 1.0


def test_k_larger_than_the_training_set_uses_all_of_it():
    features = np.eye(3, dtype=np.float32)
    votes = knn_predict(features, np.array([0, 0, 1]), np.ones((1, 3), np.float32), 2, k=200)
    np.testing.assert_allclose(votes, [[2 / 3, 1 / 3]], atol=1e-6)


def test_a_small_temperature_does_not_overflow():
    features = np.eye(3, dtype=np.float32)
    votes = knn_predict(features, np.array([0, 1, 2]), features, 3, k=3, temperature=0.001)
    np.testing.assert_allclose(votes, np.eye(3), atol=1e-6)


def test_topk_counts_a_label_among_the_k_largest():
    votes = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]], np.float32)
    assert topk(votes, np.array([1, 0]), 2) == 0.5
