"""How many cores a training takes, and what the plan makes of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from softedge import config
from softedge.eval import pace
from softedge.eval.pace import large_layers, measured
from softedge.machine import threads


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
    assert large_layers(network, 100, 10) and not large_layers(network, 100, 9)
    assert not large_layers(network, 50, 10)
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


def test_the_last_core_is_taken_for_a_block_and_given_back(three_cores, monkeypatch):
    for count, expected in ((3, 3), (0, 2), (8, 3)):
        with threads.using(count):
            assert torch.get_num_threads() == expected
    with pytest.raises(ValueError), threads.using(3):
        raise ValueError
    assert torch.get_num_threads() == 2
    monkeypatch.setattr(threads, "GIVEN", "2")
    with threads.using(3):
        assert torch.get_num_threads() == 2, "the user has decided"


SMALL = config.Backbone(name="mobilenetv3_small_050", weights="random")


@pytest.mark.parametrize(("faster", "expected"), [(0.7, 3), (0.9, 0)])
def test_every_core_is_chosen_where_it_is_clearly_faster_by_the_clock(three_cores, monkeypatch, faster, expected):
    """A clock on which a step takes 2 s with two threads, and ``faster`` of that with three."""
    now = [0.0]

    def clock() -> float:
        now[0] += 2.0 * (faster if torch.get_num_threads() == 3 else 1.0) / 2
        return now[0]

    monkeypatch.setattr(pace, "_LARGE", 0)
    monkeypatch.setattr(pace.time, "perf_counter", clock)
    monkeypatch.setattr(pace.time, "process_time", lambda: 3 * now[0])
    seconds, chosen = measured(SMALL, 32)
    assert chosen == expected and seconds > 0


def test_small_layers_keep_one_core_free(three_cores, monkeypatch):
    monkeypatch.setattr(pace.time, "perf_counter", lambda: float(torch.get_num_threads() == 2))
    assert measured(SMALL, 32)[1] == 0
