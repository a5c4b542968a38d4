"""The validation part: the same images for every training, copies on one side, none of a handful."""

from __future__ import annotations

import numpy as np

from softedge.data.images import ArrayImages
from softedge.eval.validation import held_out


def images(per_class: int, copies: int = 1, classes: int = 3) -> ArrayImages:
    rng = np.random.default_rng(0)
    array = np.repeat(rng.integers(0, 256, (per_class * classes, 4, 4, 3), dtype=np.uint8), copies, axis=0)
    labels = np.repeat(np.arange(classes), per_class * copies)
    return ArrayImages(array, labels, [str(i) for i in range(len(array))])


def test_a_tenth_of_each_class_is_held_out():
    some = images(40)
    held = held_out(some, 0)
    assert [int(held[some.labels == c].sum()) for c in range(3)] == [4, 4, 4]


def test_it_depends_on_the_content_and_the_seed_and_not_on_the_order():
    some = images(40)
    order = np.random.default_rng(1).permutation(len(some))
    np.testing.assert_array_equal(held_out(some.subset(order), 0), held_out(some, 0)[order])
    assert (held_out(some, 1) != held_out(some, 0)).any()


def test_copies_of_an_image_stay_on_one_side_and_count_once():
    held = held_out(images(20, copies=5), 0).reshape(-1, 5)
    assert (held.all(1) == held.any(1)).all()
    assert held.any(1).sum() == 6


def test_a_handful_of_labels_all_train():
    assert not held_out(images(4), 0).any()
