"""SoftNCE against eq. (2) of arXiv 2212.07158 written out by hand in float64, and its one-pass form."""

import math

import pytest
import torch
import torch.nn.functional as F

from softedge.ssl import losses, one_pass

TAU = 0.1


def unit(rows: int, width: int, seed: int, dtype=torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, width, generator=generator, dtype=torch.float64), dim=1).to(dtype)


def by_hand(query, key, queue, temperature, alpha, beta) -> float:
    """Eq. (2), one image and one negative at a time, in Python floats."""
    total = 0.0
    for z, z_key in zip(query.tolist(), key.tolist()):
        dots = [sum(a * b for a, b in zip(z, other)) / temperature for other in [z_key, *queue.tolist()]]
        log_z = math.log(sum(math.exp(d) for d in dots))
        ranked = sorted(dots[1:], reverse=True)
        total -= alpha * (dots[0] - log_z)
        for k, b in enumerate(beta):
            total -= b * (ranked[k] - log_z)
    return total / len(query)


@pytest.mark.parametrize("alpha", [0.8, 0.5])
@pytest.mark.parametrize("form", [losses.plain_soft_nce, one_pass.one_pass_soft_nce])
def test_soft_nce_is_equation_2_written_out_by_hand(form, alpha):
    query, key, queue = unit(5, 8, 0), unit(5, 8, 1), unit(40, 8, 2)
    k = 7
    beta = [2 * (k - i) / ((k - 1) * k) * (1 - alpha) for i in range(1, k + 1)]
    weights = losses.linear_decay(k, alpha).double()
    loss = form(query, key, queue, temperature=TAU, alpha=alpha, weights=weights)
    assert loss.item() == pytest.approx(by_hand(query, key, queue, TAU, alpha, beta), rel=1e-7)


def test_soft_nce_with_alpha_one_is_info_nce():
    query, key, queue = unit(6, 16, 0), unit(6, 16, 1), unit(64, 16, 2)
    logits = torch.cat([(query * key).sum(1, keepdim=True), query @ queue.T], 1) / TAU
    expected = F.cross_entropy(logits, torch.zeros(6, dtype=torch.long))
    soft = losses.soft_nce(query, key, queue, temperature=TAU, alpha=1.0, weights=losses.linear_decay(20, 1.0))
    assert soft.item() == pytest.approx(expected.item(), rel=1e-12)
    assert losses.info_nce(query, key, queue, temperature=TAU).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("k", [2, 5, 20])
def test_both_patterns_share_out_exactly_one_minus_alpha(k):
    for pattern in (losses.linear_decay, losses.average):
        assert pattern(k, 0.7).sum().item() == pytest.approx(0.3, abs=1e-6)
    decay = losses.linear_decay(k, 0.7)
    assert decay[-1] == 0
    assert torch.allclose(decay.diff(), torch.full((k - 1,), -2 * 0.3 / ((k - 1) * k)), atol=1e-6)


@pytest.mark.parametrize("rows", [640, 1000, 30])  # in whole groups, with a rest, and fewer than a chunk
@pytest.mark.parametrize("neighbors", [0, 1, 20])
def test_one_pass_gives_the_same_loss_and_gradient_as_the_plain_form(rows, neighbors):
    weights = losses.average(neighbors, 0.8).double() if neighbors else torch.zeros(0)
    alpha = 0.8 if neighbors else 1.0
    key, queue = unit(9, 32, 1), unit(rows, 32, 2)
    results = []
    for form, extra in ((losses.plain_soft_nce, {}), (one_pass.one_pass_soft_nce, {"chunk": 256})):
        query = unit(9, 32, 0).requires_grad_()
        loss = form(query, key, queue, temperature=TAU, alpha=alpha, weights=weights, **extra)
        (3 * loss).backward()
        results.append((loss.detach(), query.grad))
    assert torch.allclose(results[0][0], results[1][0], rtol=1e-9)
    assert torch.allclose(results[0][1], results[1][1], rtol=1e-6, atol=1e-9)


def test_top_k_of_a_chunk_is_exact_through_the_group_maxima():
    logits = torch.randn(7, 64 * 50, generator=torch.Generator().manual_seed(0))
    values, columns = one_pass._top(logits, 20)
    assert torch.equal(values, logits.topk(20, dim=1).values)
    assert torch.equal(logits.gather(1, columns), values)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 0.03)])
def test_one_pass_in_low_precision_stays_near_float64(dtype, tolerance):
    query, key, queue = (unit(n, 128, s, torch.float32) for n, s in ((16, 0), (16, 1), (4096, 2)))
    queue[:16] = F.normalize(query + 0.1 * key, dim=1)  # some near neighbours, as in training
    weights = losses.linear_decay(20, 0.8)
    exact = query.double().requires_grad_()
    losses.plain_soft_nce(
        exact, key.double(), queue.double(), temperature=TAU, alpha=0.8, weights=weights.double()
    ).backward()
    query.requires_grad_()
    one_pass.one_pass_soft_nce(
        query, key, queue.to(dtype), temperature=TAU, alpha=0.8, weights=weights, chunk=1024
    ).backward()
    assert (query.grad - exact.grad).norm() / exact.grad.norm() < tolerance


def test_no_gradient_reaches_the_key_or_the_queue():
    query, key, queue = (unit(4, 8, s).requires_grad_() for s in range(3))
    for form in (losses.plain_soft_nce, one_pass.one_pass_soft_nce):
        form(query, key, queue, temperature=TAU, alpha=0.8, weights=losses.average(2, 0.8).double()).backward()
    assert query.grad is not None
    assert key.grad is None
    assert queue.grad is None


def test_a_large_queue_takes_the_one_pass_form(monkeypatch):
    calls = []
    monkeypatch.setattr(one_pass, "one_pass_soft_nce", lambda *a, **k: calls.append(1) or torch.zeros(()))
    monkeypatch.setattr(losses, "LARGE", 100)
    losses.info_nce(unit(10, 4, 0), unit(10, 4, 1), unit(10, 4, 2), temperature=TAU)
    assert calls == [1]


def test_more_neighbours_than_keys_are_refused():
    with pytest.raises(ValueError, match="20 neighbours asked of a queue of 8 keys"):
        losses.soft_nce(
            unit(2, 4, 0), unit(2, 4, 1), unit(8, 4, 2), temperature=TAU, alpha=0.8, weights=losses.average(20, 0.8)
        )
