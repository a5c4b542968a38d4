"""Probing a backbone beside random weights: what it gains, with the noise of the test images."""

from __future__ import annotations

import numpy as np
import pytest

from softedge import backbones, config
from softedge.eval import linear
from softedge.eval.bootstrap import paired
from softedge.eval.features import extract
from softedge.stages.opening import replaced
from softedge.stages.probe import stage


def test_the_gain_over_random_weights_has_the_interval_of_the_test_images(toy):
    run, recipe, data = toy("run")
    result = stage(run, replaced(recipe, probe={"few_labels": 5}), data)
    trained = backbones.load(run.root / "pretrain/backbone.safetensors")
    right = []
    for backbone in (trained, backbones.build(config.Backbone(**recipe.backbone.model_dump()), seed=recipe.seed)):
        train, test = (extract(backbone, images, data.spec) for images in (data.train, data.test))
        fitted = linear.fit(train, data.train.labels, 3, recipe.probe.weight_decays, recipe.seed)
        right.append(fitted(test).argmax(1) == data.test.labels)
    metrics, intervals = result.metrics, result.details["gain_intervals"]
    assert metrics["linear_top1"] == pytest.approx(np.mean(right[0]))
    assert metrics["random_linear_top1"] == pytest.approx(np.mean(right[1]))
    wanted = paired(*right)
    assert intervals["linear_top1"] == pytest.approx([wanted.low, wanted.high])
    assert set(intervals) == {"knn_top1", "linear_top1", "few_knn_top1", "few_linear_top1"}
    for key, (low, high) in intervals.items():
        assert low < metrics[key] - metrics[f"random_{key}"] < high
    few = result.details["few"]
    assert metrics["few_linear_top1"] == pytest.approx(np.mean(few["linear"]))
    assert len(few["linear"]) == few["draws"] == 5
