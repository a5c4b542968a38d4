import pytest
import torch
from many import build
from small import views
from torch.nn import functional as F

from softedge.ssl.msf import mean_shift


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, dtype=torch.float64, generator=generator), dim=1)


def by_hand(query, target, bank, k):
    """For each image: sort the bank by distance to the target, average the query's distance to the first k."""

    def distance(a, b):
        return sum((x - y) ** 2 for x, y in zip(a, b))

    total = 0.0
    for v, u in zip(query.tolist(), target.tolist()):
        nearest = sorted(bank.tolist(), key=lambda z: distance(u, z))[:k]
        total += sum(distance(v, z) for z in nearest) / k
    return total / len(query)


def test_the_loss_is_the_mean_distance_to_the_targets_neighbours():
    query, target, bank = unit(5, 4), unit(5, 4, seed=1), unit(20, 4, seed=2)
    assert mean_shift(query, target, bank, neighbors=3).item() == pytest.approx(by_hand(query, target, bank, 3))


def test_one_neighbour_with_the_target_in_the_bank_is_byol():
    query, target = unit(5, 4), unit(5, 4, seed=1)
    expected = (query - target).square().sum(1).mean().item()
    bank = torch.cat([unit(20, 4, seed=2), target])
    assert mean_shift(query, target, bank, neighbors=1).item() == pytest.approx(expected)


def test_no_gradient_flows_into_target_and_bank():
    tensors = [unit(n, 4, seed=n).requires_grad_() for n in (5, 5, 20)]
    tensors[1].data.copy_(unit(5, 4, seed=9))
    mean_shift(*tensors, neighbors=3).backward()
    assert tensors[0].grad is not None
    assert tensors[1].grad is None
    assert tensors[2].grad is None


def test_a_target_is_in_the_bank_before_the_loss():
    made, (first, second) = build("msf"), views()
    with torch.no_grad():
        target = F.normalize(made.target(second))
        query = F.normalize(made.predictor(made.encoder(first)))
    loss = made((first, second), torch.arange(8))
    assert torch.allclose(made.queue.negatives(), target, atol=1e-6)
    assert loss.item() == pytest.approx(by_hand(query, target, target, 5), rel=1e-4)
