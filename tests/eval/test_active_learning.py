"""Which images to label next: on groups of points that a reader can count."""

from __future__ import annotations

import numpy as np
import pytest

from softedge.eval import active_learning

SIZES = (12, 30, 20)


def groups(seed: int = 0, spread: float = 0.1):
    """12, 30 and 20 points in three directions, (62, 6), and which."""
    rng = np.random.default_rng(seed)
    which = np.repeat(np.arange(3), SIZES)
    return (np.eye(6)[which] + rng.normal(0, spread, (62, 6))).astype(np.float32), which


def test_typicality_is_the_inverse_of_the_mean_distance_to_the_nearest_points():
    points = active_learning.unit(groups()[0])
    found = active_learning.typicality(points)
    for i in (0, 17, 61):
        distances = sorted(float(np.linalg.norm(points[i] - other)) for j, other in enumerate(points) if j != i)
        assert found[i] == pytest.approx(1 / (np.mean(distances[:20]) + 1e-5), rel=1e-3)


def test_without_labels_the_most_typical_image_of_each_group_comes_first_and_the_largest_group_leads():
    features, which = groups()
    rows = active_learning.typical(features, np.zeros(62, bool), 3)
    assert which[rows].tolist() == [1, 2, 0]
    points = active_learning.unit(features)
    for row in rows:
        members = np.flatnonzero(which == which[row])
        assert row == members[active_learning.typicality(points[members]).argmax()]


def test_a_group_that_has_a_label_waits():
    features, which = groups()
    labelled = np.zeros(62, bool)
    labelled[20] = True  # of the largest group
    assert set(which[active_learning.typical(features, labelled, 2)]) == {0, 2}


def test_no_image_is_asked_for_twice_and_none_that_has_a_label():
    features, _ = groups()
    labelled = np.arange(62) % 4 == 0
    rows = active_learning.typical(features, labelled, 1000)
    assert sorted(rows) == np.flatnonzero(~labelled).tolist()


def test_copies_of_one_image_can_be_ordered():
    rows = active_learning.typical(np.ones((8, 4), np.float32), np.zeros(8, bool), 5)
    assert len(set(rows.tolist())) == 5


def test_a_margin_is_the_largest_probability_minus_the_second():
    probabilities = np.array([[0.5, 0.2, 0.3], [0.1, 0.1, 0.8], [0.4, 0.4, 0.2]])
    assert active_learning.margins(probabilities) == pytest.approx([0.2, 0.7, 0.0])


def test_with_few_labels_typical_images_are_chosen_and_with_enough_the_uncertain_ones():
    rng = np.random.default_rng(0)
    along = rng.uniform(-1, 1, 400)
    features = np.stack([along, np.full(400, 0.5)], 1).astype(np.float32)
    truth = (along > 0).astype(np.int64)
    few, many = np.full(400, -1), np.full(400, -1)
    few[:4], many[:100] = truth[:4], truth[:100]
    assert active_learning.order(features, few, 2, 10)[1] == "typical"
    rows, why, guessed = active_learning.order(features, many, 2, 10)
    assert why == "uncertain" and (many[rows] < 0).all()
    nearest = np.sort(np.abs(along[100:]))
    assert np.abs(along[rows]).max() < nearest[120]  # of 300: beside the border between the two classes
    assert set(guessed.tolist()) <= {0, 1}


def test_of_many_copies_of_an_uncertain_image_one_is_asked_for():
    which = np.repeat(np.arange(4), 8)
    features = np.eye(4, dtype=np.float32)[which]
    first = np.array([0.5, 0.55, 0.6, 0.65])[which]  # the copies of the first one are the least sure
    rows = active_learning.uncertain(features, np.stack([first, 1 - first], 1), np.zeros(32, bool), 4)
    assert which[rows].tolist() == [0, 1, 2, 3]


def test_without_two_classes_nothing_is_guessed():
    features, _ = groups()
    labels = np.full(62, -1)
    labels[3] = 0
    rows, why, guessed = active_learning.order(features, labels, 1, 5)
    assert why == "typical" and len(rows) == 5 and (guessed < 0).all()
