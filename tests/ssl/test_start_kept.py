"""Pretraining from starting weights is kept only where the features get clearly better on held-out training images."""

import dataclasses

import numpy as np
import pytest
import torch
from small import SPEC, data, recipe
from torch import nn

from softedge import backbones
from softedge.eval import linear, starts
from softedge.eval.bootstrap import Difference
from softedge.run import Run
from softedge.stages import features, pretrain


class Channels(nn.Module):
    """Mean of each channel, which tells ``data()``'s classes apart; with ``blind`` always the same."""

    num_features = 3

    def __init__(self, blind: bool = False):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.0 if blind else 1.0))

    def forward(self, images):
        return images.mean((2, 3)) * self.scale


def test_features_that_tell_the_classes_apart_are_the_better_ones():
    images = data().train
    found = starts.compare(Channels(blind=True), Channels(), images, SPEC, (1e-2, 1e-3), 0)
    assert found is not None and found.paid and found.after == 1.0 and found.before <= 0.6 and found.n == 48
    assert found.gain.mean == pytest.approx(found.after - found.before)
    back = starts.compare(Channels(), Channels(blind=True), images, SPEC, (1e-2,), 0)  # one decay is asked as well
    assert back is not None and not back.paid and (back.before, back.after) == (found.after, found.before)


@pytest.mark.parametrize(("gained", "lost", "paid"), [(1, 0, False), (12, 8, False), (20, 0, True), (30, 10, True)])
def test_a_gain_that_chance_explains_does_not_pay(monkeypatch, gained, lost, paid):
    """Right and wrong of 48 images; McNemar's exact test agrees: p = 1, 0.50, 2e-6 and 0.002."""
    from scipy.stats import binomtest

    before = np.arange(48) >= gained
    after = before | (np.arange(48) < gained)
    after[48 - lost :] = False
    answers = iter([before, after])
    monkeypatch.setattr(linear, "held_out_right", lambda *a: next(answers))
    found = starts.compare(Channels(), Channels(), data().train, SPEC, (1e-2,), 0)
    assert found is not None and found.n == 48 and found.after - found.before == pytest.approx((gained - lost) / 48)
    assert found.after > found.before
    assert found.paid == paid == (binomtest(lost, gained + lost).pvalue < 0.05)


def test_equal_features_do_not_pay_and_few_labels_cannot_tell():
    same = starts.compare(Channels(), Channels(), data().train, SPEC, (1e-2,), 0)
    assert same is not None and not same.paid
    assert starts.compare(Channels(), Channels(), data(starts.LEAST - 2).train, SPEC, (1e-2,), 0) is None
    one_class = data().train.subset(np.arange(0, 48, 2))
    assert starts.compare(Channels(), Channels(), one_class, SPEC, (1e-2,), 0) is None


@pytest.fixture
def given(tmp_path):
    """A file of starting weights."""
    backbones.save(tmp_path / "given.safetensors", backbones.build(recipe().backbone, seed=7), SPEC)
    return tmp_path / "given.safetensors"


def stem(path) -> torch.Tensor:
    return backbones.load(path).net.conv_stem.weight


@pytest.mark.parametrize("paid", [False, True])
def test_the_better_weights_are_the_backbone_and_the_others_are_not_lost(tmp_path, given, monkeypatch, capsys, paid):
    gain = Difference(0.1, 0.02, 0.18) if paid else Difference(0.1, -0.02, 0.22)  # the same accuracies either way
    monkeypatch.setattr(starts, "compare", lambda *a: starts.Comparison(0.8, 0.9, gain, 48))
    run = Run(tmp_path / "run")
    result = pretrain.stage(run, recipe(backbone__weights=given), data())
    folder = run.folder("pretrain")
    trained = torch.load(folder / "last.pt", weights_only=True)["method"]["encoder.backbone.net.conv_stem.weight"]
    assert result.details["kept"] == ("trained" if paid else "start")
    assert result.metrics["before_val_top1"] == 0.8 and result.metrics["epochs"] == 3
    assert (result.metrics["gain_low"], result.metrics["gain_high"]) == (gain.low, gain.high)
    assert str(gain) in capsys.readouterr().err
    assert torch.equal(stem(folder / "backbone.safetensors"), trained if paid else stem(given))
    assert (folder / "trained.safetensors").exists() is not paid
    if not paid:
        assert torch.equal(stem(folder / "trained.safetensors"), trained)
    assert pretrain.stage(run, recipe(backbone__weights=given), data()).details == result.details  # done before
    origin = features.unlabelled(run, recipe(backbone__weights=given))[1]
    assert ("pretrained with light-moco" in origin) is paid and ("starting weights" in origin) is not paid


def test_a_training_that_changes_nothing_leaves_the_given_weights(tmp_path, given, capsys):
    run = Run(tmp_path / "run")
    result = pretrain.stage(run, recipe(backbone__weights=given, optim__lr=1e-12, optim__momentum=0.0), data())
    assert result.details["kept"] == "start" and torch.equal(
        stem(run.folder("pretrain") / "backbone.safetensors"), stem(given)
    )
    assert "the trained ones are in trained.safetensors" in capsys.readouterr().err


def test_the_trained_weights_are_kept_where_asked_and_where_nothing_can_tell(tmp_path, given, monkeypatch):
    monkeypatch.setattr(starts, "compare", lambda *a: pytest.fail("compared"))
    for name, values in (("random", {}), ("asked", {"backbone__weights": given, "ssl__keep": "trained"})):
        result = pretrain.stage(Run(tmp_path / name), recipe(**values), data())
        assert "kept" not in result.details and "keep" not in result.recipe["ssl"]  # older runs say the same
    monkeypatch.undo()
    unlabelled = dataclasses.replace(data(labelled=False), classes=())
    result = pretrain.stage(Run(tmp_path / "unlabelled"), recipe(backbone__weights=given), unlabelled)
    assert result.details["kept"] == "trained" and "before_val_top1" not in result.metrics
