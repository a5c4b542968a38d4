"""The loss of SimCo and SimMoCo, and the two methods on it."""

import math

import pytest
import torch
from many import build
from small import views
from torch.nn import functional as F

from softedge.ssl import losses
from softedge.ssl.dual_temperature import dual_temperature

OWN = torch.arange(6)


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, dtype=torch.float64, generator=generator), dim=1)


def by_hand(query, keys, alpha, beta):
    """Loop over anchors: -log p(α) times (1 - p(β)) / (1 - p(α))."""
    total = 0.0
    for i, q in enumerate(query.tolist()):
        s = [sum(a * b for a, b in zip(q, k)) for k in keys.tolist()]
        p = {tau: math.exp(s[i] / tau) / sum(math.exp(x / tau) for x in s) for tau in (alpha, beta)}
        total += (1 - p[beta]) / (1 - p[alpha]) * -math.log(p[alpha])
    return total / len(query)


def test_the_loss_is_the_hand_written_loop():
    query, keys = unit(6, 4), unit(6, 4, seed=1)
    ours = dual_temperature(query, keys, OWN, temperature=0.1, inter_temperature=1.0)
    assert ours.item() == pytest.approx(by_hand(query, keys, 0.1, 1.0), abs=1e-12)


def test_the_weight_passes_no_gradient_and_scales_each_anchors_info_nce():
    query, keys = unit(6, 4).requires_grad_(), unit(6, 4, seed=1)
    (ours,) = torch.autograd.grad(dual_temperature(query, keys, OWN, temperature=0.1, inter_temperature=1.0), query)
    for i in range(6):
        one = query[i : i + 1]
        cross_entropy = F.cross_entropy(one @ keys.T / 0.1, OWN[i : i + 1])
        p = [(query[i] @ keys.T / tau).softmax(0)[i].item() for tau in (0.1, 1.0)]
        (expected,) = torch.autograd.grad(cross_entropy * (1 - p[1]) / (1 - p[0]) / 6, query)
        assert torch.allclose(ours[i], expected[i], atol=1e-12)


def test_equal_temperatures_are_info_nce_with_the_batch_as_negatives():
    query, keys = unit(6, 4), unit(6, 4, seed=1)
    ours = dual_temperature(query, keys, OWN, temperature=0.2, inter_temperature=0.2)
    each = [
        losses.info_nce(query[i : i + 1], keys[i : i + 1], keys[i != OWN], temperature=0.2).item() for i in range(6)
    ]
    assert ours.item() == pytest.approx(sum(each) / 6, abs=1e-6)


def test_a_solved_anchor_has_a_finite_loss_and_gradient():
    query = torch.eye(4).requires_grad_()
    loss = dual_temperature(query, torch.eye(4), torch.arange(4), temperature=0.01, inter_temperature=1.0)
    loss.backward()
    assert loss.item() < 1.5
    assert torch.isfinite(query.grad).all()


@pytest.mark.parametrize("joint", [False, True])
def test_joint_views_of_simco_are_one_batchnorm_batch(joint):
    made, pair = build("simco", joint_views=joint), views()
    norms = [layer for layer in made.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    made.train()(pair, torch.arange(8))
    assert {int(norm.num_batches_tracked) for norm in norms} == {1 if joint else 2}
    twin = build("simco")  # without statistics of the batch nothing else differs
    losses_of = [each.eval()(pair, torch.arange(8)).item() for each in (build("simco", joint_views=joint), twin)]
    assert losses_of[0] == pytest.approx(losses_of[1], rel=1e-5)


def test_simco_averages_both_directions_through_one_encoder():
    made, pair = build("simco"), views()
    with torch.no_grad():
        first, second = (build("simco").encoder.train()(view).double() for view in pair)
    expected = (by_hand(first, second, 0.1, 1.0) + by_hand(second, first, 0.1, 1.0)) / 2
    assert made(pair, torch.arange(8)).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("symmetric", [False, True])
def test_simmoco_compares_queries_with_keys_of_the_momentum_encoder(symmetric):
    made, pair = build("simmoco", symmetric=symmetric), views()
    with torch.no_grad():
        for p in made.target.parameters():
            p.mul_(1.5)
        query, key = [e(v).double() for e, v in ((made.encoder, pair[0]), (made.target, pair[1]))]
        other = [e(v).double() for e, v in ((made.encoder, pair[1]), (made.target, pair[0]))]
    expected = by_hand(query, key, 0.1, 1.0)
    if symmetric:
        expected = (expected + by_hand(*other, 0.1, 1.0)) / 2
    assert made(pair, torch.arange(8)).item() == pytest.approx(expected, rel=1e-5)
