"""Our views cannot be told from those of MoCo-v2's own code (Pillow and torchvision), drawn independently."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from pictures import photo
from PIL import Image
from reference_views import random_view
from two_sample import auc, statistics

from softedge.config import Augment
from softedge.data import batch_views, image_views, small_views
from softedge.data.draws import draw, two_views

SIZE, IMAGES, EACH = 32, 40, 15
PHOTOS = np.stack([photo(seed, SIZE, SIZE) for seed in range(IMAGES)])
INDEX = np.tile(np.arange(IMAGES), EACH)
CHANCE = 0.56  # of 600 views each and nothing to find, the AUC has a standard deviation of 0.017


def reference(seed: int, **settings: object) -> np.ndarray:
    random.seed(seed)
    torch.manual_seed(seed)
    transform = random_view(SIZE, Augment(**settings))  # type: ignore[arg-type]
    return np.stack([np.asarray(transform(Image.fromarray(PHOTOS[i]))) for i in INDEX])


def ours(kind: str) -> np.ndarray:
    draws, _ = draw(11, 0, np.arange(len(INDEX)), two_views(SIZE, Augment()))
    images = PHOTOS[INDEX]
    if kind == "batched":
        return batch_views.views(batch_views.to_rows(torch.from_numpy(images)), draws, SIZE).numpy()
    if kind == "small":
        return small_views.views(images, draws, SIZE)
    crops = [image_views.crop(image, draws, row, SIZE) for row, image in enumerate(images)]
    return np.stack([image_views.colour(crop, draws, row) for row, crop in enumerate(crops)])


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    return statistics(reference(0))


@pytest.mark.parametrize("kind", ["batched", "small", "single"])
def test_views_have_the_distribution_of_pillow_and_torchvision(kind: str, expected: np.ndarray) -> None:
    actual = statistics(ours(kind))
    spread = np.sqrt(actual.var(0) / len(actual) + expected.var(0) / len(expected)) + 1e-6
    z = (actual.mean(0) - expected.mean(0)) / spread
    assert np.abs(z).max() < 4.5
    assert auc(actual, expected) < CHANCE


@pytest.mark.parametrize("change", [{"blur": 0.0}, {"brightness": 0.2}, {"min_area": 0.5}])
def test_the_same_test_finds_a_recipe_that_differs(change: dict[str, float], expected: np.ndarray) -> None:
    assert auc(statistics(reference(1, **change)), expected) > CHANCE
