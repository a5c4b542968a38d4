"""Label spreading, against a dense inverse, and on shapes that no line divides."""

from __future__ import annotations

import numpy as np

from softedge.eval import linear
from softedge.eval import spreading as module
from softedge.eval.spreading import LEAST, mixed, normalised, raised, spread, spread_over, whitened


def rings(n: int, seed: int = 0):
    """Two rings around one centre, (2 n, 2), and which is which."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, 2 * n)
    labels = np.arange(2 * n) % 2
    flat = (1 + labels)[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1) + rng.normal(0, 0.05, (2 * n, 2))
    # Lifted, so that the cosine of two points follows their distance.
    lifted = np.concatenate([flat, 3 - 0.25 * (flat**2).sum(1, keepdims=True)], 1)
    return lifted.astype(np.float32), labels.astype(np.int64)


def dense(features: np.ndarray, labels: np.ndarray, k: int, alpha: float) -> np.ndarray:
    """(I - a S)^-1 Y with loops and an inverse, each class weighed alike."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    similar = (unit @ unit.T).astype(np.float64)
    count = len(unit)
    weights = np.zeros((count, count))
    for i in range(count):
        nearest = [j for j in np.argsort(-similar[i]) if j != i][:k]
        for j in nearest:
            weights[i, j] = max(similar[i, j], 0) ** 3
    weights = np.maximum(weights, weights.T)
    degree = weights.sum(1)
    spread_ = weights / np.sqrt(np.outer(degree, degree))
    known = np.zeros((count, labels.max() + 1))
    for i in np.flatnonzero(labels >= 0):
        known[i, labels[i]] = 1 / (labels == labels[i]).sum()
    answers = np.linalg.inv(np.eye(count) - alpha * spread_) @ known
    return answers / answers.sum(1, keepdims=True)


def few(labels: np.ndarray, each: int, seed: int = 0) -> np.ndarray:
    kept = linear.pick_per_class(labels, each, np.random.default_rng(seed))
    return np.where(np.isin(np.arange(len(labels)), kept), labels, -1)


def test_it_is_the_closed_form():
    features = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    labels = few(np.random.default_rng(1).integers(0, 3, 60), 4)
    found = spread(features, labels, 3, neighbours=6, alpha=0.8)()
    np.testing.assert_allclose(found, dense(features, labels, 6, 0.8), atol=1e-4)


def test_four_labels_reach_along_two_rings_that_no_line_divides():
    features, truth = rings(150)
    labels = few(truth, 4)
    spreading = spread(features, labels, 2)
    line = linear.fit(features[:, :2][labels >= 0], truth[labels >= 0], 2, (1e-3,))(features[:, :2])
    assert (spreading().argmax(1) == truth).mean() > 0.9 > 0.75 > (line.argmax(1) == truth).mean()


def test_cross_validation_is_spreading_again_without_the_labels_of_a_fold():
    features, truth = rings(60)
    labels = few(truth, 6)
    spreading = spread(features, labels, 2)
    folds = np.arange(12) % 3
    found = spreading.cross_validated(folds)
    for fold in range(3):
        hidden = labels.copy()
        hidden[spreading.rows[folds == fold]] = -1
        again = spread(features, hidden, 2)()
        np.testing.assert_array_equal(again[spreading.rows[folds == fold]].argmax(1), found[folds == fold])


def test_copies_of_an_image_are_no_obstacle_and_the_graph_is_symmetric_without_loops():
    features = np.repeat(np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32), 5, axis=0)
    graph = normalised(features, 3).toarray()
    np.testing.assert_allclose(graph, graph.T)
    assert (graph.diagonal() == 0).all() and (graph.sum(1) > 0).all()


def test_an_image_that_no_label_reaches_is_equally_likely_of_every_class():
    apart = np.kron(np.eye(2), np.ones((4, 3))).astype(np.float32)  # two groups at right angles
    found = spread(apart, np.array([0, 1, -1, -1, -1, -1, -1, -1]), 2, neighbours=2)()
    np.testing.assert_allclose(found[4:], 0.5)
    np.testing.assert_allclose(found.sum(1), 1)


def test_whitened_features_have_the_roots_of_the_singular_values(monkeypatch):
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(80, 12)) * np.linspace(3, 0.1, 12) + 5).astype(np.float32)
    found = whitened(features)
    centred = features - features.mean(0)
    values = np.linalg.svd(centred, compute_uv=False)
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), values**0.75, rtol=1e-3)
    np.testing.assert_allclose(found.T @ found, np.diag(values**1.5), atol=1e-2)  # a rotation, then each by itself
    monkeypatch.setattr(module, "COMPONENTS", 3)
    np.testing.assert_allclose(np.abs(whitened(features)), np.abs(found[:, :3]), rtol=1e-2, atol=1e-3)
    np.testing.assert_array_equal(whitened(features), whitened(features))


def test_images_that_look_alike_are_no_obstacle_to_whitening():
    same = np.ones((5, 4), np.float32)
    np.testing.assert_array_equal(whitened(same), same)
    np.testing.assert_array_equal(whitened(same[:1]), same[:1])
    line = np.outer(np.arange(6), np.ones(3)).astype(np.float32)
    assert whitened(line).shape == (6, 1)


def test_graphs_are_weighed_by_the_likelihood_of_labels_that_they_have_not_seen():
    rng = np.random.default_rng(3)
    truth = np.repeat(np.arange(3), 40)
    labels, folds = few(truth, 5), np.arange(15) % 5
    good, fair = (rng.normal(0, 2, (3, 12))[truth] + rng.normal(0, noise, (120, 12)) for noise in (2.0, 4.0))
    graphs = [spread(one.astype(np.float32), labels, 3) for one in (good, fair)]
    found = mixed(graphs, folds)

    products, logs = [], []
    for graph in graphs:
        power = graph.sharpness(folds)
        held = graph.held_out(folds) ** power
        held /= held.sum(1, keepdims=True)
        logs.append(sum(np.log(max(held[i, graph.labels[i]], LEAST)) for i in range(15)))
        every = np.maximum(graph(), LEAST) ** power
        products.append(np.log(every / every.sum(1, keepdims=True)))
    ratio = np.exp((logs[0] - logs[1]) / 9)
    np.testing.assert_allclose(found.weights, [ratio / (1 + ratio), 1 / (1 + ratio)], rtol=1e-6)
    wanted = np.exp(found.weights[0] * products[0] + found.weights[1] * products[1])
    np.testing.assert_allclose(found.probabilities, wanted / wanted.sum(1, keepdims=True), atol=1e-5)
    assert found.weights[0] > found.weights[1] and found.top1 == (found.held.argmax(1) == found.labels).mean()


def test_words_count_where_they_tell_classes_apart_and_hardly_where_they_do_not():
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(3), 60)
    labels, folds = few(truth, 10), np.arange(30) % 10
    telling = rng.normal(0, 1, (3, 20))[truth] + rng.normal(0, 0.9, (180, 20))
    noise = rng.normal(0, 1, (180, 20))
    telling, noise = ((one / np.linalg.norm(one, axis=1, keepdims=True)).astype(np.float32) for one in (telling, noise))

    def right(found):
        return (found.probabilities.argmax(1) == truth).mean()

    alone, graph = spread_over(noise, labels, 3, folds), spread(whitened(noise), labels, 3)
    np.testing.assert_allclose(alone.probabilities, raised(graph(), graph.sharpness(folds)), atol=1e-9)
    assert alone.weights == (1.0,)
    helped = spread_over(noise, labels, 3, folds, telling)
    assert right(helped) > 0.8 > 0.5 > right(alone)
    assert helped.weights[2] > helped.weights[1] > helped.weights[0]
    disturbed = spread_over(telling, labels, 3, folds, noise)
    assert disturbed.weights[0] > disturbed.weights[1] > disturbed.weights[2]
    assert right(disturbed) > right(spread_over(telling, labels, 3, folds)) - 0.05
