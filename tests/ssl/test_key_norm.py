"""BatchNorm's leak, shown on a task that cannot be solved without it, and its cures."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from softedge.ssl import key_norm

BATCHES, BATCH, STEPS = 5, 16, 300
CHANCE = math.log((BATCHES - 1) * (BATCH - 1) + 1)


def loss_on_an_impossible_task(way: str, groups: int = 4) -> float:
    """Train to match each query with the key of ANOTHER image of its batch, against keys of other batches.

    Query and key have nothing in common but their batch, so that log(1 + negatives) is the best that can be done by
    looking at images. One outlier in each batch gives its BatchNorm statistics a signature (real batches have some).
    Returns the mean loss of the last quarter.
    """
    torch.manual_seed(0)
    layers = [nn.Linear(16, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 64, bias=False)]
    encoder = nn.Sequential(*layers, nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 32))
    key_encoder = copy.deepcopy(encoder).requires_grad_(False)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1, momentum=0.9)
    generator, losses = torch.Generator().manual_seed(0), []
    for _ in range(STEPS):
        batches = torch.randn(BATCHES, BATCH, 16)
        batches[:, 0] *= 30
        keys = [F.normalize(key_norm.encode(key_encoder, b, way, groups, generator), dim=1)[1:] for b in batches]
        query = F.normalize(encoder(batches[0]), dim=1)[1:]
        positive = (query * keys[0].roll(1, 0)).sum(1, keepdim=True)
        logits = torch.cat([positive, query @ torch.cat(keys[1:]).T], 1) / 0.1
        loss = F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.long))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        key_norm.follow(key_encoder, encoder, 0.9, way)
        losses.append(loss.item())
    return sum(losses[-STEPS // 4 :]) / (STEPS // 4)


def test_plain_batch_norm_lets_a_network_recognise_its_batch():
    assert loss_on_an_impossible_task("batch") < CHANCE - 0.1


@pytest.mark.parametrize("way", ["split", "ema"])
def test_split_and_ema_statistics_take_the_leak_away(way):
    assert loss_on_an_impossible_task(way) > CHANCE - 0.02


@pytest.mark.parametrize("way", ["batch", "split", "ema", "shuffle"])
def test_keys_come_back_in_the_order_of_the_images(way):
    class Identity(nn.Module):
        def forward(self, x):
            return x

    images = torch.arange(12.0)[:, None]
    keys = key_norm.encode(Identity(), images, way, 4, torch.Generator().manual_seed(3))
    assert torch.equal(keys, images)


def test_split_groups_are_normalised_apart_and_drawn_anew():
    norm = nn.BatchNorm1d(1, affine=False)
    images = torch.randn(64, 1)
    generator = torch.Generator().manual_seed(0)
    one, two = (key_norm.encode(norm, images, "split", 8, generator) for _ in range(2))
    whole = key_norm.encode(norm, images, "batch", 1, generator)
    assert not torch.allclose(one, whole, atol=1e-2)
    assert not torch.allclose(one, two, atol=1e-2)


def test_auto_shuffles_across_ranks_and_splits_on_one():
    assert key_norm.resolve("auto", 1) == "split"
    assert key_norm.resolve("auto", 8) == "shuffle"
    assert key_norm.resolve("ema", 8) == "ema"


def test_with_ema_the_key_of_an_image_does_not_depend_on_its_batch():
    norm = nn.BatchNorm1d(2)
    alone = key_norm.encode(norm, torch.ones(1, 2), "ema", 1, torch.Generator())
    among = key_norm.encode(norm, torch.cat([torch.ones(1, 2), torch.randn(7, 2)]), "ema", 1, torch.Generator())
    assert torch.equal(alone[0], among[0])
