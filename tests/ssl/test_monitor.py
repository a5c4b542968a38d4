import math

import pytest
import torch
import torch.nn.functional as F
from small import data, recipe

from softedge.ssl.monitor import Knn, measures


def sphere(count: int, width: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_points_spread_over_the_sphere_have_unit_std_and_nearly_full_rank():
    seen = measures(sphere(4000, 16), sphere(4000, 16))
    assert seen["std"] == pytest.approx(1.0, abs=0.02)
    assert seen["effective_rank"] == pytest.approx(16, abs=0.1)


def test_points_on_a_circle_have_rank_two():
    angle = torch.linspace(0, 2 * math.pi, 400)[:-1]
    circle = torch.cat([angle.cos()[:, None], angle.sin()[:, None], torch.zeros(399, 30)], 1)
    assert measures(circle, circle)["effective_rank"] == pytest.approx(2, abs=1e-3)


def test_collapsed_points_have_no_spread_and_the_worst_uniformity():
    point = F.normalize(torch.ones(50, 8), dim=1)
    seen = measures(point, point)
    assert seen["std"] == pytest.approx(0, abs=1e-6)
    assert seen["uniformity"] == pytest.approx(0, abs=1e-6)
    assert seen["alignment"] == pytest.approx(0, abs=1e-6)


def test_alignment_and_uniformity_are_the_sums_of_their_definition():
    z, partner = sphere(7, 4, 1).double(), sphere(7, 4, 2).double()
    seen = measures(z, partner)
    gaps = [sum((a - b) ** 2 for a, b in zip(x, y)) for x, y in zip(z.tolist(), partner.tolist())]
    pairs = [
        math.exp(-2 * sum((a - b) ** 2 for a, b in zip(z[i].tolist(), z[j].tolist())))
        for i in range(7)
        for j in range(i)
    ]
    assert seen["alignment"] == pytest.approx(sum(gaps) / 7, rel=1e-5)
    assert seen["uniformity"] == pytest.approx(math.log(sum(pairs) / len(pairs)), rel=1e-5)


class MeanColour(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3))


def test_knn_classifies_a_held_out_part_of_the_training_images():
    knn = Knn.build(recipe(), data(50))
    assert knn is not None
    assert (len(knn.bank), len(knn.held_out)) == (40, 10)
    assert knn.top1(MeanColour()) == 1.0


def test_without_labels_there_is_no_knn():
    assert Knn.build(recipe(), data(50, labelled=False)) is None
