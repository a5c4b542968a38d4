"""How many cores a training takes, and what the plan makes of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from softedge import config, threads
from softedge.eval import pace
from softedge.eval.pace import gain_of_all_cores, worth_all_cores


class Layers(nn.Module):
    """(N, 3, S, S) -> two maps of ``channels``: 2 · channels · S² numbers of output an image."""

    def __init__(self, channels: int):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        return self.second(self.norm(self.first(x))).mean((2, 3))


def test_every_core_computes_where_a_layer_gives_a_million_numbers_on_average():
    network = Layers(10).train()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    assert worth_all_cores(network, 100, 10) and not worth_all_cores(network, 100, 9)
    assert not worth_all_cores(network, 50, 10)
    assert network.training and not network.first._forward_hooks
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


@pytest.fixture
def three_cores(monkeypatch):
    """Of which one is left to the loader; the thread count is given back."""
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "GIVEN", None)
    monkeypatch.setattr(threads, "cores", lambda: 3)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_the_core_of_the_loader_is_taken_for_a_block_and_given_back(three_cores, monkeypatch):
    with threads.all_cores():
        assert torch.get_num_threads() == 3
    with threads.all_cores(False):
        assert torch.get_num_threads() == 2
    with pytest.raises(ValueError), threads.all_cores():
        raise ValueError
    assert torch.get_num_threads() == 2
    monkeypatch.setattr(threads, "GIVEN", "2")
    with threads.all_cores():
        assert torch.get_num_threads() == 2, "the user has decided"


def test_the_plan_counts_fewer_threads_where_layers_are_small(three_cores, monkeypatch):
    backbone = config.Backbone(name="mobilenetv3_small_050", weights="random")
    monkeypatch.setattr(pace, "_LARGE", 30_000)
    assert gain_of_all_cores(backbone, 224) == 1.5 and gain_of_all_cores(backbone, 32) == 1.0
