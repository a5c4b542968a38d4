"""The cached linear probe: the optimum of its own objective, and its choice of the weight decay."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from softedge.eval import linear


def blobs(n=150, classes=3, dim=6, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, dim)) * 2
    labels = np.arange(n) % classes
    features = centres[labels] + rng.normal(size=(n, dim)) * spread
    return (features * rng.uniform(0.1, 30, dim) + 5).astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 3])
def test_the_fit_is_the_optimum_that_torch_finds(classes):
    features, labels = blobs(classes=classes)
    decay = 0.1
    fitted = linear.fit(features, labels, classes, [decay])
    z = torch.from_numpy((features - features.mean(0)) / features.std(0)).double()
    weight = torch.zeros(classes, z.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-10)

    def loss():
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(z @ weight.T + bias, torch.from_numpy(labels))
        value = value + decay / 2 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    ours = torch.from_numpy(fitted(features)).double().softmax(1)
    assert (ours - (z @ weight.T + bias).softmax(1)).abs().max() < 5e-3


def test_constant_features_do_no_harm():
    features, labels = blobs()
    features[:, 2] = 7.0
    fitted = linear.fit(features, labels, 3, [1e-3, 1e-2])
    assert np.isfinite(fitted.weight).all()
    assert (fitted(features).argmax(1) == labels).mean() > 0.95


def test_a_class_without_training_images_is_never_predicted():
    features, labels = blobs()
    fitted = linear.fit(features, labels, 5, [1e-3])
    assert set(fitted(features * 100).argmax(1)) <= {0, 1, 2}


def test_the_chosen_weight_decay_is_the_better_one_on_new_data():
    rng = np.random.default_rng(3)
    labels = np.arange(60) % 2
    features = rng.normal(size=(60, 200)).astype(np.float32)  # many useless features, few images: regularise
    features[:, 0] += 2.0 * labels
    chosen = linear.fit(features, labels, 2, [1e-6, 1e-1]).weight_decay
    assert chosen == 1e-1


def test_few_labels_are_stratified_and_seeded():
    labels = np.repeat(np.arange(4), [50, 30, 3, 10])
    chosen = linear.pick_per_class(labels, 5, np.random.default_rng(0))
    assert np.bincount(labels[chosen]).tolist() == [5, 5, 3, 5]
    assert (chosen == linear.pick_per_class(labels, 5, np.random.default_rng(0))).all()
    fraction = linear.pick_fraction(labels, 0.1, np.random.default_rng(0))
    assert np.bincount(labels[fraction]).tolist() == [5, 3, 1, 1]


def test_the_held_out_answers_are_those_of_scikit_learn_on_the_same_folds():
    """Three folds by hand: each image is answered by the layer that was fitted on the two other folds."""
    from sklearn.linear_model import LogisticRegression

    features, labels = blobs(n=90, dim=3, spread=4.0)
    right = linear.held_out_right(features, labels, 3, (0.05,), seed=4)
    rng, folds = np.random.default_rng(4), np.empty(90, int)
    for label in range(3):
        members = rng.permutation(np.flatnonzero(labels == label))
        folds[members] = (np.arange(30) + rng.integers(3)) % 3
    z = (features - features.mean(0)) / features.std(0)
    expected = np.empty(90, bool)
    for fold in range(3):
        held = folds == fold
        model = LogisticRegression(C=1 / (0.05 * 60), max_iter=1000).fit(z[~held], labels[~held])
        expected[held] = model.predict(z[held]) == labels[held]
    assert (right == expected).mean() > 0.98 and 0.4 < right.mean() < 0.95


def test_a_fifth_of_many_images_is_asked_the_same_whatever_the_features(monkeypatch):
    monkeypatch.setattr(linear, "_MANY", 100)
    features, labels = blobs()
    perfect = np.eye(3, dtype=np.float32)[labels]
    assert linear.held_out_right(perfect, labels, 3, (0.01,)).tolist() == [True] * 30
    assert linear.held_out_right(features, labels, 3, (0.01,)).shape == (30,)
    assert linear.held_out_right(perfect[:2], np.zeros(2, np.int64), 3, (0.01,)).size == 0  # nothing to tell apart
