"""Rotation and translation of views, against torchvision and against each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import affine

from softedge.data import warps


def smooth(size: int, seed: int = 0) -> np.ndarray:
    noise = torch.from_numpy(np.random.default_rng(seed).uniform(0, 255, (1, 3, 6, 6))).float()
    big = torch.nn.functional.interpolate(noise, (size, size), mode="bilinear")
    return big[0].permute(1, 2, 0).round().to(torch.uint8).numpy()


@pytest.mark.parametrize(("degrees", "shift"), [(0.0, (3.0, -2.0)), (15.0, (0.0, 0.0)), (-30.0, (2.0, 5.0))])
def test_a_warp_is_the_one_of_torchvision(degrees, shift):
    view = smooth(32)
    matrix = warps.matrices(np.array([degrees]), np.array([shift]), 32)
    ours = warps.image(view, matrix[0]).astype(int)
    expected = affine(
        torch.from_numpy(view).permute(2, 0, 1).float(),
        angle=degrees,
        translate=[int(s) for s in shift],
        scale=1.0,
        shear=[0.0],
        interpolation=InterpolationMode.BILINEAR,
    )
    difference = np.abs(ours - expected.permute(1, 2, 0).numpy())
    assert np.median(difference) <= 1
    assert (difference > 8).mean() < 0.02  # the rim: the two fade to black within one pixel of each other


def test_a_batch_on_any_device_equals_one_image_at_a_time():
    views = np.stack([smooth(24, seed) for seed in range(3)])
    matrix = warps.matrices(np.array([0.0, 20.0, -7.0]), np.array([[0.0, 0.0], [1.5, 0.0], [0.0, -2.25]]), 24)
    assert warps.moved(matrix).tolist() == [1, 2]
    rows = torch.from_numpy(views).permute(0, 1, 3, 2).float().contiguous()
    together = warps.batch(rows, matrix).permute(0, 1, 3, 2).numpy()
    np.testing.assert_array_equal(together[0], views[0])
    for index in (1, 2):
        difference = np.abs(together[index] - warps.image(views[index], matrix[index]).astype(int))
        assert difference.mean() < 1.0
