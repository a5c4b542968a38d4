from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from softedge.eval.layout import lay_out, sheet, thumbnail, walk


def groups(per_group: int = 30, dimensions: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, D) around three directions, and which each is of."""
    rng = np.random.default_rng(0)
    which = np.repeat(np.arange(3), per_group)
    centres = np.eye(3, dimensions, dtype=np.float32) * 5
    return (centres[which] + rng.normal(0, 0.3, (len(which), dimensions))).astype(np.float32), which


def test_neighbours_in_feature_space_stay_neighbours_inside_the_unit_square() -> None:
    features, which = groups()
    points = lay_out(features, seed=0)
    assert points.shape == (90, 2) and points.min() >= 0 and points.max() <= 1
    distance = np.linalg.norm(points[:, None] - points[None], axis=2) + 9 * np.eye(90)
    assert (which[distance.argmin(1)] == which).mean() > 0.95


def test_the_length_of_a_feature_says_nothing_and_the_seed_gives_the_same_map() -> None:
    features, _ = groups(10)
    lengths = np.linspace(0.5, 3, 30, dtype=np.float32)[:, None]
    np.testing.assert_allclose(lay_out(features, 1), lay_out(2 * features, 1), atol=1e-3)
    np.testing.assert_array_equal(lay_out(lengths * features, 1), lay_out(lengths * features, 1))


def test_equal_features_and_few_of_them_still_give_places() -> None:
    assert np.isfinite(lay_out(np.ones((12, 5), np.float32), 0)).all()


def test_the_walk_goes_through_every_point_once_and_to_the_nearest_that_is_left() -> None:
    points = np.array([[0.0, 0.0], [1.0, 0.0], [0.2, 0.0], [0.5, 0.0], [0.9, 0.9]], np.float32)
    assert walk(points).tolist() == [0, 2, 3, 1, 4]


def test_a_thumbnail_is_the_middle_square() -> None:
    image = np.zeros((40, 100, 3), np.uint8)
    image[:, 30:70] = 200
    assert (thumbnail(image, 16) == 200).all()
    assert thumbnail(image[:4, :4], 16).shape == (16, 16, 3)  # enlarged


@pytest.mark.parametrize("count", [1, 2, 10])
def test_each_thumbnail_lies_at_its_place_in_the_sheet(count: int) -> None:
    tiles = [np.full((16, 16, 3), 20 * number, np.uint8) for number in range(count)]
    data, columns = sheet(tiles, 10**6)
    whole = np.asarray(Image.open(io.BytesIO(data)))
    for number in range(count):
        top, left = number // columns * 16, number % columns * 16
        assert np.abs(whole[top : top + 16, left : left + 16].astype(int) - 20 * number).max() < 6


def test_a_sheet_of_noise_becomes_smaller_until_it_fits() -> None:
    rng = np.random.default_rng(0)
    tiles = list(rng.integers(0, 256, (100, 48, 48, 3), dtype=np.uint8))
    best, limited = len(sheet(tiles, 10**7)[0]), len(sheet(tiles, 60_000)[0])
    assert limited <= 60_000 < best
