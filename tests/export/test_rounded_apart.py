"""Rounded weights are judged on calibration images that they were not rounded on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from softedge.export.candidates import Candidates, Option
from softedge.export.deployed import Deployed
from softedge.export.nearest import (
    Judge,
    apart,
    decibels,
    nearest,
    rounded_where_nearer,
    with_nearer_weights,
    write_nearest,
)
from softedge.export.onnx import candidates as onnx_candidates
from softedge.export.onnx.format import Onnx
from softedge.export.onnx.wide import WideCandidates
from softedge.records import InputSpec

SPEC = InputSpec(16, 16, (0.5,) * 3, (0.25,) * 3)
RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)


def alike(count):
    """Images that are mixtures of four patterns: what is learned of some holds for the others."""
    rng = np.random.default_rng(1)
    patterns, shares = rng.normal(size=(4, 16, 16, 3)), rng.normal(size=(count, 4))
    return (128 + 30 * np.tensordot(shares, patterns, 1)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Deployed(nn.Sequential(nn.Flatten(), nn.Linear(768, 40)), SPEC, labels=tuple(map(str, range(40))))


class Spied(WideCandidates):
    """``seen``: the images of every rounding."""

    def __init__(self, *args):
        super().__init__(*args)
        self.seen = []

    def rounded(self, option, images):
        self.seen.append(images)
        return super().rounded(option, images)


def contents(images):
    return {image.tobytes() for image in images}


@pytest.mark.parametrize("count", [8, 16])
def test_weights_rounded_on_few_images_that_are_worse_on_others_stay_at_the_nearest_steps(network, tmp_path, count):
    calibration, unseen = NOISE[:count], Judge.of(network, NOISE[count:])
    candidates = WideCandidates(network, calibration, "w8a32")
    option = candidates.only()
    rounded, own = candidates.rounded(option, calibration), Judge.of(network, calibration)
    assert own.decibels(candidates, rounded) > own.decibels(candidates, option) + 20, "they would pass on their own"
    assert unseen.decibels(candidates, rounded) < unseen.decibels(candidates, option) - 0.2
    assert "rounding" not in Onnx().notes(Onnx().convert(network, "w8a32", calibration, tmp_path))


@pytest.mark.parametrize("count", [8, 16, 48])
def test_weights_that_are_nearer_on_calibration_images_set_aside_are_rounded(network, tmp_path, count):
    images = alike(count + 32)
    calibration, unseen = images[:count], Judge.of(network, images[count:])
    artifact = Onnx().convert(network, "w8a32", calibration, tmp_path)
    assert Onnx().notes(artifact)["rounding"] == "least error"
    candidates = WideCandidates(network, calibration, "w8a32")
    nearest_steps = unseen.decibels(candidates, candidates.only())
    assert decibels(unseen.compared(Onnx().load(artifact)(unseen.images))) > nearest_steps + 10


@pytest.mark.parametrize(("count", "left"), [(300, 225), (16, 12), (15, 7), (8, 4)])
def test_the_judge_has_none_of_the_images_that_weights_are_rounded_on(network, count, left):
    images = RNG.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    judge = Judge.of(network, images)
    fitted, unseen = apart(judge, images)
    assert (len(fitted), len(unseen.images)) == (left, count - left)
    assert not contents(fitted) & contents(unseen.images)
    np.testing.assert_allclose(unseen.fp32, network.predict(unseen.images), atol=1e-6)


def test_of_a_judge_with_other_images_all_calibration_images_are_rounded_on(network):
    judge = Judge.of(network, NOISE[:20])
    fitted, unseen = apart(judge, NOISE[20:])
    assert unseen is judge and np.array_equal(fitted, NOISE[20:])


def test_nothing_is_rounded_where_fewer_than_four_images_would_judge(network):
    candidates = Spied(network, NOISE[:7], "w8a32")
    for calibration, asked in ((NOISE[:6], NOISE[:6]), (NOISE[:40], NOISE[40:43]), (NOISE[:1].repeat(40, 0),) * 2):
        judge = Judge.of(network, asked)
        choice = with_nearer_weights(candidates, candidates.only(), judge, network, calibration)
        assert "rounding" not in choice.option.details
    assert candidates.seen == []


def test_the_rounding_of_a_graph_never_sees_the_images_that_judge(network, monkeypatch, tmp_path):
    seen, judged = [], []
    real, measure = onnx_candidates.rounded, Judge.measure
    monkeypatch.setattr(onnx_candidates, "rounded", lambda graph, grids, x: seen.append(x) or real(graph, grids, x))
    monkeypatch.setattr(Judge, "measure", lambda self, *args: judged.append(self.images) or measure(self, *args))
    calibration = alike(40)
    Onnx().without_timing().convert(network, "int8", calibration, tmp_path)
    (fitted,) = seen
    assert len(fitted) == 30 and not contents(fitted) & contents(judged[-1]) and len(judged[-1]) == 10


class Fitted(Candidates):
    """Two tiers of known noise; rounded weights have none on images that they saw, and ``unseen`` on the others."""

    def __init__(self, network, unseen):
        self.network, self.unseen, self.seen = network, unseen, set()

    def calibrations(self):
        yield Option("integers", "nearest")

    def comparison(self):
        return NOISE

    def predict(self, option, images):
        exact = self.network.predict(images)
        known = np.array([option.model == "rounded" and image.tobytes() in self.seen for image in images])
        strength = np.where(known, 0.0, 0.1 if option.model == "nearest" else self.unseen)[:, None]
        return (exact + strength * np.sin(1e3 * exact)).astype(np.float32)

    def write(self, option, out):
        raise AssertionError

    def rounded(self, option, images):
        self.seen = contents(images)
        return replace(option, model="rounded")


@pytest.mark.parametrize(("unseen", "taken"), [(0.05, True), (0.2, False)])
def test_a_format_that_compares_its_calibrations_on_all_images_judges_the_rounding_on_others(network, unseen, taken):
    candidates, judge = Fitted(network, unseen), Judge.of(network, NOISE)
    choice = nearest(candidates, judge)
    found = rounded_where_nearer(candidates, choice, judge, None, NOISE)
    assert len(candidates.seen) == 48 and (found.option.model == "rounded") == taken
    assert len(found.compared) == 2 and found.compared[1][1]["n"] == 16


class Beside(Candidates):
    """A calibration of some noise, and a file of another format without any on the images that it was rounded on."""

    def __init__(self, network, images, fitted, noise):
        self.network, self.images, self.noise = network, images, noise
        self.fitted, self.asked, self.written = contents(fitted), [], None

    def calibrations(self):
        yield Option("its own", "own")

    def from_file(self, artifact):
        return Option("another file's", "theirs")

    def comparison(self):
        return self.images

    def predict(self, option, images):
        self.asked.append(images)
        exact = self.network.predict(images)
        known = np.array([option.model == "theirs" and image.tobytes() in self.fitted for image in images])
        strength = np.where(known, 0.0, self.noise[option.model])[:, None]
        return (exact + strength * np.random.default_rng(0).normal(size=exact.shape)).clip(1e-9).astype(np.float32)

    def write(self, option, out):
        self.written = option.what
        return out


@pytest.mark.parametrize(("theirs", "taken"), [(3e-3, "its own"), (3e-5, "another file's")])
def test_integers_of_another_file_are_compared_on_images_that_they_were_not_rounded_on(
    network, tmp_path, theirs, taken
):
    images = alike(32)
    fitted, unseen = apart(Judge.of(network, images), images)
    candidates = Beside(network, images, fitted, {"own": 3e-4, "theirs": theirs})
    first = nearest(candidates, Judge.of(network, images), ["a file"])
    assert first.option.what == "another file's", "on all of them it would be taken in both cases"
    candidates.asked.clear()
    write_nearest(candidates, network, images, tmp_path, ["a file"])
    assert candidates.written == taken
    assert all(contents(each) == contents(unseen.images) for each in candidates.asked)
    candidates.asked.clear()
    write_nearest(candidates, network, images, tmp_path)
    assert contents(candidates.asked[0]) == contents(images), "without such a file there is nothing to set apart"


@pytest.mark.parametrize("shipped", [True, False])
def test_only_files_that_are_shipped_get_the_warning_that_int8_does_not_suit_them(
    network, tmp_path, capsys, monkeypatch, shipped
):
    images = alike(32)
    network = Deployed(network.model, network.spec, network.labels)
    network.shipped = shipped
    monkeypatch.setattr("softedge.export.nearest.FLOOR_DB", 300.0)
    candidates = Beside(network, images, apart(Judge.of(network, images), images)[0], {"own": 3e-4, "theirs": 3e-3})
    write_nearest(candidates, network, images, tmp_path)
    assert ("int8 does not suit this network" in capsys.readouterr().err) == shipped
