import pytest
import torch
from many import build
from small import views
from torch import nn

from softedge.ssl.simsiam import negative_cosine


def by_hand(prediction, target):
    total = 0.0
    for p, z in zip(prediction.tolist(), target.tolist()):
        lengths = [sum(a * a for a in v) ** 0.5 for v in (p, z)]
        total -= sum(a * b for a, b in zip(p, z)) / (lengths[0] * lengths[1])
    return total / len(prediction)


def test_the_loss_is_minus_the_cosine():
    generator = torch.Generator().manual_seed(0)
    prediction, target = (3 * torch.randn(7, 5, generator=generator) for _ in range(2))
    expected = by_hand(prediction.double(), target.double())
    assert negative_cosine(prediction, target).item() == pytest.approx(expected, rel=1e-5)
    assert negative_cosine(prediction, 2 * prediction).item() == pytest.approx(-1)


def test_no_gradient_flows_into_the_target():
    prediction, target = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    negative_cosine(prediction, target).backward()
    assert prediction.grad is not None
    assert target.grad is None


def test_simsiam_takes_half_of_each_direction():
    made, pair = build("simsiam"), views()
    with torch.no_grad():
        projections = [made.encoder(view) for view in pair]
        predictions = [made.predictor(z) for z in projections]
    expected = (by_hand(predictions[0], projections[1]) + by_hand(predictions[1], projections[0])) / 2
    assert made(pair, torch.arange(8)).item() == pytest.approx(expected, rel=1e-4)


def test_the_projector_ends_in_batch_norm_without_scale_and_shift():
    last = build("simsiam").encoder.projector[-1]
    assert isinstance(last, nn.BatchNorm1d)
    assert last.weight is None
    assert last.bias is None
