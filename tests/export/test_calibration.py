"""Which images calibrate, and what is said about bad ones."""

from __future__ import annotations

import numpy as np
import pytest

from softedge.data.images import ArrayImages, Data
from softedge.errors import UserError
from softedge.export import calibration
from softedge.records import InputSpec

SPEC = InputSpec(16, 16, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


def data(pretrain: int, train: int = 0) -> Data:
    rng = np.random.default_rng(0)

    def some(count: int, kind: str) -> ArrayImages:
        array = rng.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
        return ArrayImages(array, np.zeros(count, np.int64), [f"{kind}{i}" for i in range(count)])

    return Data("x", ("a",), SPEC, some(pretrain, "u"), some(train, "l"), some(30, "test"))


def test_sample_is_seeded_and_never_takes_test_images():
    chosen = calibration.choose(data(200), 60, seed=3)
    again = calibration.choose(data(200), 60, seed=3)
    other = calibration.choose(data(200), 60, seed=4)
    assert chosen.names == again.names and chosen.sha256 == again.sha256 and chosen.names != other.names
    assert len(set(chosen.names)) == 60 and not any(name.startswith("test") for name in chosen.names)
    assert chosen.warnings == ()


def test_training_images_stand_in_where_nothing_was_pretrained_on():
    assert calibration.choose(data(0, 80), 60, seed=0).source == "training images"
    with pytest.raises(UserError, match="needs calibration images"):
        calibration.choose(data(0), 60, seed=0)


def test_three_images_constant_images_and_repeated_images_are_warned_of():
    assert "only 3 calibration images" in calibration.choose(data(3), 60, seed=0).warnings[0]
    grey = np.full((60, 16, 16, 3), 127, np.uint8)
    lines = " ".join(calibration.look(grey))
    assert "60 of 60 calibration images hold a single colour" in lines and "only 1 of 60" in lines
