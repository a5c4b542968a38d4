import pytest
import torch
from torch import nn

from softedge.config import Optim
from softedge.ssl import optimizers


def after_two_steps(settings: Optim, weight: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    parameter = nn.Parameter(weight.clone())
    optimizer = optimizers.build(settings, [parameter])
    for _ in range(2):
        parameter.grad = grad.clone()
        optimizer.step()
    return parameter.detach()


def test_lars_steps_a_share_of_the_weights_norm():
    weight, grad = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]])
    settings = Optim(optimizer="lars", lr=1.0, momentum=0.0, weight_decay=0.0)
    first = weight - 0.001 * 5 * torch.tensor([[0.0, 1.0]])  # trust × ‖w‖ along the gradient
    second = first - 0.001 * first.norm() * torch.tensor([[0.0, 1.0]])
    assert torch.allclose(after_two_steps(settings, weight, grad), second, atol=1e-6)


def test_lars_adds_the_norms_of_gradient_and_decay_as_the_paper_does():
    weight, grad = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]])
    settings = Optim(optimizer="lars", lr=1.0, momentum=0.0, weight_decay=0.1)
    expected = weight
    for _ in range(2):
        local = 0.001 * expected.norm() / (2.0 + 0.1 * expected.norm())
        expected = expected - local * (grad + 0.1 * expected)
    assert torch.allclose(after_two_steps(settings, weight, grad), expected, atol=1e-7, rtol=0)


def test_lars_leaves_biases_to_plain_sgd():
    weight, grad = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0])
    lars = Optim(optimizer="lars", lr=0.1, momentum=0.9, weight_decay=0.5)
    sgd = Optim(optimizer="sgd", lr=0.1, momentum=0.9, weight_decay=0.0)
    assert torch.allclose(after_two_steps(lars, weight, grad), after_two_steps(sgd, weight, grad))


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_every_optimizer_goes_downhill_and_its_state_can_be_saved(name):
    parameter = nn.Parameter(torch.full((4, 4), 2.0))
    optimizer = optimizers.build(Optim(optimizer=name, lr=0.1, weight_decay=0.0), [parameter])
    for _ in range(30):
        optimizer.zero_grad()
        parameter.square().sum().backward()
        optimizer.step()
    assert parameter.abs().mean() < 2.0
    again = optimizers.build(Optim(optimizer=name, lr=0.1), [parameter])
    again.load_state_dict(optimizer.state_dict())
