"""Likely wrong labels: against loops that follow the paper's equations, and on labels that were put in wrong."""

from __future__ import annotations

import numpy as np

from softedge.eval import label_issues


def blobs(n: int, classes: int, seed: int = 0, spread: float = 1.0):
    """n points around each of ``classes`` corners, (n * classes, 8), and which corner."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), n)
    return (6 * np.eye(8)[labels] + rng.normal(0, spread, (len(labels), 8))).astype(np.float32), labels


def guesses(seed: int, n: int = 200, classes: int = 4):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n)
    logits = rng.normal(0, 1.5, (n, classes)) + 1.5 * np.eye(classes)[labels]
    probabilities = np.exp(logits)
    return probabilities / probabilities.sum(1, keepdims=True), labels


def test_the_confident_joint_is_that_of_a_loop_over_images():
    probabilities, labels = guesses(0)
    thresholds = [np.mean([p[k] for p, label in zip(probabilities, labels) if label == k]) for k in range(4)]
    joint = np.zeros((4, 4), int)
    for p, label in zip(probabilities, labels):
        sure = [k for k in range(4) if p[k] >= thresholds[k]]
        if sure:
            joint[label, max(sure, key=lambda k: p[k])] += 1
    assert 0 < joint.sum() < len(labels)
    assert np.array_equal(label_issues.confident_joint(probabilities, labels), joint)


def test_of_each_class_as_many_are_listed_as_the_scaled_joint_says_and_those_with_the_least_probability():
    probabilities, labels = guesses(1)
    joint = label_issues.confident_joint(probabilities, labels)
    listed = label_issues.likely_wrong(probabilities, labels)
    for k in range(4):
        members = sorted(np.flatnonzero(labels == k), key=lambda i: probabilities[i, k])
        count = round(len(members) * (1 - joint[k, k] / joint[k].sum()))
        expected = [i for i in members[:count] if probabilities[i].argmax() != k]
        assert expected and [i for i in listed if labels[i] == k] == expected
    own = probabilities[listed, labels[listed]]
    assert np.all(np.diff(own) >= 0)


def test_labels_that_were_put_in_wrong_are_the_least_probable_ones_and_no_other_is_listed():
    features, truth = blobs(60, 4)
    labels = truth.copy()
    rng = np.random.default_rng(1)
    changed = rng.permutation(len(labels))[:12]
    labels[changed] = (labels[changed] + rng.integers(1, 4, 12)) % 4
    fold = label_issues.folds(range(len(labels)), labels, 0)
    probabilities = label_issues.cross_validated(features, labels, 4, fold)
    own = probabilities[np.arange(len(labels)), labels]
    assert set(np.argsort(own)[:12]) == set(changed)
    listed = label_issues.likely_wrong(probabilities, labels)
    assert set(listed) <= set(changed) and len(listed) >= 10  # the joint counts confident images only
    assert np.array_equal(probabilities.argmax(1), truth)


def test_clean_labels_give_an_empty_list():
    features, labels = blobs(40, 3, spread=0.2)
    fold = label_issues.folds(range(len(labels)), labels, 0)
    probabilities = label_issues.cross_validated(features, labels, 3, fold)
    assert len(label_issues.likely_wrong(probabilities, labels)) == 0


def test_what_is_said_of_an_image_does_not_depend_on_its_own_label(monkeypatch):
    monkeypatch.setattr(label_issues, "WEIGHT_DECAYS", (1e-2,))
    features, labels = blobs(20, 3, spread=3.0)
    fold = label_issues.folds(range(len(labels)), labels, 0)
    before = label_issues.cross_validated(features, labels, 3, fold)
    other = labels.copy()
    other[7] = 2
    after = label_issues.cross_validated(features, other, 3, fold)
    assert np.array_equal(before[7], after[7])
    assert not np.allclose(before[fold != fold[7]], after[fold != fold[7]])


def test_copies_are_in_one_fold_and_classes_are_spread_over_all():
    labels = np.repeat([0, 1, 2], 30)
    families = np.arange(90) // 2 * 2  # pairs
    fold = label_issues.folds(families.tolist(), labels, 3)
    assert np.array_equal(fold[::2], fold[1::2])
    for k in range(3):
        assert np.array_equal(np.bincount(fold[labels == k]), [6] * 5)
