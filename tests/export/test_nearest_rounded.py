"""Rounded weights and layers in float are chosen together."""

from __future__ import annotations

import numpy as np
import torch
from tiny_network import SPEC, images
from torch import nn

from softedge.export import rounding
from softedge.export.candidates import Candidates, Option
from softedge.export.deployed import Deployed
from softedge.export.nearest import Choice, Judge, nearest, rounded_where_nearer

IMAGES = images(24)


class Tiers(Candidates):
    """Noise of a known strength on fp32's answers: of an option, and less of the same with rounded weights.

    noise: by tier, with the nearest steps and rounded.
    """

    def __init__(self, network, noise):
        self.network, self.noise, self.used = network, noise, []

    def calibrations(self):
        for tier in self.noise:
            yield Option(f"tier {tier}", 0, tier)

    def comparison(self):
        return IMAGES

    def predict(self, option, images):
        exact = self.network.predict(images)
        strength = self.noise[option.tier][option.model]
        return exact + strength * np.random.default_rng(0).normal(size=exact.shape).astype(np.float32)

    def write(self, option, out):
        raise AssertionError

    def largest_weight(self, option):
        return 127

    def reweighted(self, option, network, ranges):
        self.used.append(network)
        return Option(option.what, 1, option.tier)


def chosen(monkeypatch, noise):
    torch.manual_seed(0)
    network = Deployed(nn.Sequential(nn.Conv2d(3, 8, 5, 2), nn.Flatten(), nn.LazyLinear(4)), SPEC, labels=tuple("abcd"))
    network.predict(IMAGES)
    times = []
    monkeypatch.setattr(rounding, "rounded", lambda *a, **k: times.append(k) or "on the grid")
    candidates, judge = Tiers(network, noise), Judge.of(network, IMAGES)
    choice = nearest(candidates, judge)
    assert times == []
    found = rounded_where_nearer(candidates, choice, judge, network, IMAGES)
    assert times == [{"largest": 127}], "the network is rounded once"
    assert set(candidates.used) == {"on the grid"}
    return choice, found


def test_layers_in_float_that_gain_only_beside_rounded_weights_are_taken(monkeypatch):
    """Before, the noise of the weights hides what the higher tier gains."""
    choice, found = chosen(monkeypatch, {0: (0.100, 0.060), 1: (0.095, 0.030)})
    assert choice.option.what == "tier 0" and found.option.tier == 1 and found.option.model == 1
    assert "weights rounded" in found.option.what and len(found.compared) == 4


def test_layers_in_float_that_gain_nothing_are_left_in_integers(monkeypatch):
    choice, found = chosen(monkeypatch, {0: (0.100, 0.060), 1: (0.095, 0.058)})
    assert choice.option.tier == found.option.tier == 0 and found.option.model == 1


def test_layers_in_float_that_rounded_weights_make_up_for_return_to_integers(monkeypatch):
    choice, found = chosen(monkeypatch, {0: (0.120, 0.060), 1: (0.095, 0.058)})
    assert (choice.option.tier, found.option.tier, found.option.model) == (1, 0, 1)


def test_lower_tiers_that_stay_too_noisy_and_those_on_another_grid_do_not_return(monkeypatch):
    choice, found = chosen(monkeypatch, {0: (0.300, 0.100), 1: (0.100, 0.060)})
    assert choice.option.tier == found.option.tier == 1 and len(found.compared) == 4
    monkeypatch.setattr(Tiers, "largest_weight", lambda self, option: 127 if option.tier else 63)
    choice, found = chosen(monkeypatch, {0: (0.300, 0.001), 1: (0.100, 0.060)})
    assert choice.option.tier == found.option.tier == 1 and len(found.compared) == 3


def test_rounded_weights_that_are_no_nearer_stay_in_the_table_alone(monkeypatch):
    choice, found = chosen(monkeypatch, {0: (0.100, 0.200), 1: (0.095, 0.150)})
    assert isinstance(found, Choice) and found.option == choice.option and len(found.compared) == 4
