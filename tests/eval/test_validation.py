"""The validation part: the same images for every training, copies on one side, none of a handful."""

from __future__ import annotations

import numpy as np

from softedge.data.images import ArrayImages
from softedge.eval.validation import few, folds, held_out, parts


def images(per_class: int, copies: int = 1, classes: int = 3) -> ArrayImages:
    rng = np.random.default_rng(0)
    array = np.repeat(rng.integers(0, 256, (per_class * classes, 4, 4, 3), dtype=np.uint8), copies, axis=0)
    labels = np.repeat(np.arange(classes), per_class * copies)
    return ArrayImages(array, labels, [str(i) for i in range(len(array))])


def test_a_tenth_of_each_class_is_held_out():
    some = images(100)
    held = held_out(some, 0)
    assert [int(held[some.labels == c].sum()) for c in range(3)] == [10, 10, 10]


def test_it_depends_on_the_content_and_the_seed_and_not_on_the_order():
    some = images(100)
    order = np.random.default_rng(1).permutation(len(some))
    np.testing.assert_array_equal(held_out(some.subset(order), 0), held_out(some, 0)[order])
    assert (held_out(some, 1) != held_out(some, 0)).any()


def test_copies_of_an_image_stay_on_one_side_and_count_once():
    held = held_out(images(100, copies=5), 0).reshape(-1, 5)
    assert (held.all(1) == held.any(1)).all()
    assert held.any(1).sum() == 30


def test_a_handful_of_labels_all_train():
    assert not held_out(images(4), 0).any()
    assert few(images(94).labels) and not held_out(images(94), 0).any()  # 27 images would judge
    assert not few(images(100).labels)


def test_folds_hold_every_image_out_once_and_spread_the_classes_and_keep_copies_together():
    some = images(10, copies=2)
    fold = folds(some, 0, 5)
    for number in range(5):
        assert np.bincount(some.labels[fold == number]).tolist() == [4, 4, 4]
    assert (fold.reshape(-1, 2)[:, 0] == fold.reshape(-1, 2)[:, 1]).all()
    order = np.random.default_rng(1).permutation(len(some))
    np.testing.assert_array_equal(folds(some.subset(order), 0, 5), fold[order])


def test_few_labels_are_held_out_in_folds_and_many_in_one_part():
    some = images(10)
    held = np.array(parts(some, 0))
    assert held.shape == (10, 30) and (held.sum(0) == 1).all()
    assert len(parts(images(100), 0)) == 1
    assert len(parts(images(2), 0)) == 2 and parts(images(1), 0) == []
