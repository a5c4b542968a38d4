"""The random choices behind views: reproducible, independent, and distributed as torchvision's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import RandomResizedCrop

from softedge.config import Augment
from softedge.data.draws import blur_taps, box, boxes, draw, two_views, uniforms

MANY = np.arange(20_000)


def test_uniforms_are_splitmix64() -> None:
    def mix(x: int) -> int:
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return x ^ (x >> 31)

    golden = 0x9E3779B97F4A7C15
    seed, epoch, index, column = 3, 5, 7, 2
    key = mix((mix((seed + golden) % 2**64) + (epoch + 1) * golden) % 2**64)
    key = mix((key + (index + 1) * golden) % 2**64)
    expected = (mix((key + (column + 1) * golden) % 2**64) >> 11) / 2**53
    assert uniforms(seed, epoch, np.array([index]), 4)[0, column] == expected


def test_an_images_numbers_do_not_depend_on_its_neighbours() -> None:
    whole = uniforms(1, 2, np.arange(100), 8)
    assert np.array_equal(uniforms(1, 2, np.array([42, 7]), 8), whole[[42, 7]])
    for other in (uniforms(2, 2, np.arange(100), 8), uniforms(1, 3, np.arange(100), 8)):
        assert not np.isin(other, whole).any()


def test_uniforms_are_uniform_and_uncorrelated() -> None:
    u = uniforms(0, 0, MANY, 6)
    counts = np.histogram(u, bins=100, range=(0, 1))[0]
    expected = u.size / 100
    assert ((counts - expected) ** 2 / expected).sum() < 160  # chi-squared with 99 degrees: 160 is p = 1e-4
    correlation = np.corrcoef(np.concatenate([u, uniforms(0, 1, MANY, 6), uniforms(1, 0, MANY, 6)], 1).T)
    assert np.abs(correlation - np.eye(18)).max() < 0.04  # 5.6 standard errors
    assert abs(np.corrcoef(u[:-1, 0], u[1:, 0])[0, 1]) < 0.03


@pytest.mark.parametrize(("width", "height"), [(500, 375), (32, 32), (40, 400), (400, 40), (1, 1), (3, 2)])
def test_crops_are_distributed_as_torchvisions(width: int, height: int) -> None:
    draws, _ = draw(0, 0, MANY[:4000], two_views(32, Augment()))
    ours = boxes(draws, width, height)
    assert np.array_equal(ours[:500], [box(draws, row, width, height) for row in range(500)])
    torch.manual_seed(0)
    blank = Image.new("L", (width, height))
    theirs = np.array([RandomResizedCrop.get_params(blank, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)])
    theirs = theirs[:, [1, 0, 3, 2]]  # top, left, height, width -> left, top, width, height
    assert (ours[:, :2] >= 0).all() and (ours[:, 2:] >= 1).all()
    assert (ours[:, 0] + ours[:, 2] <= width).all() and (ours[:, 1] + ours[:, 3] <= height).all()
    from scipy.stats import ks_2samp

    for column in range(4):
        assert ks_2samp(ours[:, column], theirs[:, column], method="asymp").pvalue > 1e-4


def test_an_image_that_no_ratio_fits_is_cropped_in_the_middle() -> None:
    whole_area, _ = draw(0, 0, np.arange(5), two_views(32, Augment(min_area=1.0)))
    assert boxes(whole_area, 400, 40).tolist() == [[173, 0, 53, 40]] * 5
    assert boxes(whole_area, 40, 400).tolist() == [[0, 173, 40, 53]] * 5


def test_probabilities_and_ranges_are_those_of_the_recipe() -> None:
    first, second = draw(0, 0, MANY, two_views(224, Augment()))
    for d in (first, second):
        for values, probability in ((d.jitter, 0.8), (d.grey, 0.2), (d.sigma > 0, 0.5), (d.flip, 0.5)):
            assert abs(values.mean() - probability) < 0.015
        sigma = d.sigma[d.sigma > 0]
        assert sigma.min() >= 0.1 and sigma.max() <= 2.0 and abs(sigma.mean() - 1.05) < 0.02
        assert np.allclose(d.factors[:, :3].min(0), 0.6, atol=0.001) and np.allclose(
            d.factors[:, :3].max(0), 1.4, atol=0.001
        )
        assert np.allclose([d.factors[:, 3].min(), d.factors[:, 3].max()], [-0.1, 0.1], atol=0.001)
        orders, counts = np.unique(d.order, axis=0, return_counts=True)
        assert len(orders) == 24 and counts.min() > 0.8 * len(MANY) / 24
    for name in ("jitter", "grey", "flip"):
        assert abs(np.corrcoef(getattr(first, name), getattr(second, name))[0, 1]) < 0.03


def test_blur_scales_with_the_image_only_when_asked() -> None:
    for scales, factor in ((False, 1.0), (True, 32 / 224)):
        d, _ = draw(0, 0, MANY, two_views(32, Augment(blur=1.0, blur_scales=scales)))
        assert abs(d.sigma.max() - 2.0 * factor) < 0.001


def test_no_strength_means_no_jitter() -> None:
    d, _ = draw(0, 0, MANY[:100], two_views(32, Augment(brightness=0, contrast=0, saturation=0, hue=0)))
    assert not d.jitter.any()


@pytest.mark.parametrize("sigma", [0.1, 0.4, 1.0, 1.3, 2.0, 4.5])
def test_blur_is_pillows(sigma: float) -> None:
    line = np.zeros((1, 101), np.uint8)
    line[0, 50] = 255
    pillow = np.asarray(Image.fromarray(np.repeat(line, 101, 0)).filter(ImageFilter.GaussianBlur(sigma)))[50] / 255
    taps = blur_taps(np.array([sigma]))[0]
    ours = np.convolve(line[0] / 255, taps, mode="same")
    assert np.abs(ours - pillow).max() < 3 / 255  # Pillow rounds after each of its passes
    assert abs(taps.sum() - 1) < 1e-6
    offset = np.arange(len(taps)) - len(taps) // 2
    assert abs((taps * offset**2).sum() - sigma**2) < 1e-5  # the variance of the Gaussian
