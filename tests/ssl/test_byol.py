import pytest
import torch
from many import build
from small import views

from softedge.ssl.byol import regression


def by_hand(prediction, target):
    """Mean of ‖q / ‖q‖ - z / ‖z‖‖² in plain loops."""
    total = 0.0
    for q, z in zip(prediction.tolist(), target.tolist()):
        lengths = [sum(a * a for a in v) ** 0.5 for v in (q, z)]
        total += sum((a / lengths[0] - b / lengths[1]) ** 2 for a, b in zip(q, z))
    return total / len(prediction)


def test_the_loss_is_the_squared_distance_of_unit_vectors():
    generator = torch.Generator().manual_seed(0)
    prediction, target = (3 * torch.randn(7, 5, generator=generator) for _ in range(2))
    assert regression(prediction, target).item() == pytest.approx(by_hand(prediction.double(), target.double()), 1e-5)
    assert regression(prediction, 2 * prediction).item() == pytest.approx(0, abs=1e-6)


def test_no_gradient_flows_into_the_target():
    prediction, target = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    regression(prediction, target).backward()
    assert prediction.grad is not None
    assert target.grad is None


def test_byol_sums_both_directions_and_predicts_the_moving_copy():
    made, pair = build("byol"), views()
    with torch.no_grad():
        for p in made.target.parameters():
            p.mul_(1.5)
        predictions = [made.predictor(made.encoder(view)) for view in pair]
        targets = [made.target(view) for view in pair]
    expected = by_hand(predictions[0], targets[1]) + by_hand(predictions[1], targets[0])
    assert made(pair, torch.arange(8)).item() == pytest.approx(expected, rel=1e-4)
