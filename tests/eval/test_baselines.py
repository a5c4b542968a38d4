from __future__ import annotations

import numpy as np
import pytest

from softedge.data.images import ArrayImages
from softedge.eval import baselines

NAMES = ["majority class", "SVM on a colour histogram", "SVM on HOG", "SVM on a colour histogram and HOG"]


def images(n: int, seed: int, by: str) -> ArrayImages:
    """Two classes, 64 x 64: red or blue noise (by="colour"), grey stripes down or across (by="shape")."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    pictures = rng.integers(0, 100, (n, 64, 64, 3), dtype=np.uint8)
    for picture, label in zip(pictures, labels):
        if by == "colour":
            picture[..., 2 * label] += 120
        else:
            wave = ((np.arange(64) + rng.integers(16)) // 8 % 2 * 150).astype(np.uint8)
            picture[:] = (wave[:, None] if label else wave[None, :])[..., None] // 2 + picture // 2
    return ArrayImages(pictures, labels, [str(i) for i in range(n)])


@pytest.mark.parametrize(("by", "winner"), [("colour", NAMES[1]), ("shape", NAMES[2])])
def test_each_machine_sees_what_it_is_made_for(by, winner):
    test = images(40, 1, by)
    found = baselines.fit(images(80, 0, by), test)
    assert [baseline.name for baseline in found] == NAMES
    rows = {baseline.name: baseline.row(test.labels) for baseline in found}
    assert rows[winner]["top1"] == 1.0 and rows[winner]["val_top1"] == 1.0
    assert rows["majority class"]["top1"] == 0.5
    assert winner in {b.name for b in baselines.to_beat(found)} < {*NAMES}


def test_the_histogram_is_that_of_a_hand_written_count():
    pictures = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    expected = np.zeros((2, 8, 8, 8))
    for picture, counts in zip(pictures, expected):
        for red, green, blue in picture.reshape(-1, 3) // 32:
            counts[red, green, blue] += 1
    np.testing.assert_allclose(baselines.colours(pictures), np.sqrt(expected.reshape(2, -1) / 4096), atol=1e-6)


def test_few_images_and_one_class_are_no_error():
    many = images(12, 0, "colour")
    alone = many.subset(np.flatnonzero(many.labels == 0))
    assert [b.name for b in baselines.fit(alone, many)] == ["majority class"]
    pair = baselines.fit(many.subset([0, 1]), many.subset([2, 3]))  # one label a class: nothing to hold out
    assert len(pair) == 4 and all(b.val_top1 is None for b in pair)
    assert baselines.to_beat(pair) == pair, "the network has to be better than each, not than the first"


def test_the_choice_does_not_look_at_the_test_images():
    train, test = images(60, 0, "colour"), images(20, 1, "colour")
    swapped = ArrayImages(test.array, 1 - test.labels, test.names)
    first, second = ([b.name for b in baselines.to_beat(baselines.fit(train, t))] for t in (test, swapped))
    assert first == second


@pytest.mark.parametrize(("n", "told"), [(6, False), (60, True)])
def test_a_handful_of_held_out_images_does_not_choose_the_one_to_beat(n: int, told: bool) -> None:
    """Right on two thirds of the held-out images and on one third: by six of them that is chance."""

    def validated(name: str, share: int) -> baselines.Baseline:
        return baselines.Baseline(name, np.zeros(1, np.int64), 5 * n, np.arange(n) % 3 < share, 0.0)

    found = baselines.to_beat([validated("worse", 1), validated("better", 2)])
    assert [one.name for one in found] == (["better"] if told else ["worse", "better"])


def test_a_ramp_votes_for_one_direction_and_twice_the_contrast_changes_nothing():
    ramp = np.repeat(np.tile(np.arange(64, dtype=np.uint8), (64, 1))[None, ..., None], 3, axis=3)
    found = baselines.gradients(np.concatenate([ramp, 2 * ramp, ramp.transpose(0, 2, 1, 3)]))
    assert found.shape == (3, 1764)
    cell = found[0].reshape(7, 7, 4, 9)[3, 3, 0]
    assert cell[0] == pytest.approx(cell[8]) and cell[1:8].max() == 0  # 0° lies between the first and the last bin
    np.testing.assert_allclose(found[0], found[1], atol=0.02)
    assert found[2].reshape(7, 7, 4, 9)[3, 3, 0].argmax() == 4  # 90°
