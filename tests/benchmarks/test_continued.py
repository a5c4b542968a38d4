"""benchmarks/continued.py: every row is a recipe, what is frozen stays, and rows are paired with the start by photo."""

import sys
from pathlib import Path

import pytest
import timm
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import continued

from softedge import config


@pytest.mark.parametrize("row", continued.ROWS)
def test_every_row_is_a_recipe_at_the_rate_of_its_name(row):
    recipe = config.load("photos", continued.ROWS[row].values)
    assert recipe.optim.optimizer == "sgd" and recipe.optim.lr == float(row.split("-")[1])


@pytest.mark.parametrize(("freeze", "moved"), [(continued.statistics, True), (continued.early, False)])
def test_what_is_frozen_does_not_change_in_training(freeze, moved):
    net = timm.create_model("tf_efficientnet_lite0", num_classes=0).train()
    freeze(net)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net(torch.randn(4, 3, 32, 32)).square().mean().backward()
    torch.optim.SGD(net.parameters(), 0.1, weight_decay=1e-4).step()
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert "conv_head.weight" in changed and ("conv_stem.weight" in changed) is moved
    assert ("bn2.running_mean" in changed) is not moved and "bn1.running_mean" not in changed


def test_a_row_is_compared_with_the_start_on_the_photos_of_the_folds_that_both_have():
    done = {
        "start 0": {"knn_right": "1100", "knn": 0.5},
        "start 1": {"knn_right": "0000", "knn": 0.0},
        "seed x1 1": {"knn_right": "1000", "knn": 0.25},
        "seed x1 0": {"knn_right": "1110", "knn": 0.75},
        "seed x1 2": {"knn_right": "0000", "knn": 0.0},
    }
    (line,) = continued.against_start(done)
    assert (line["row"], line["measure"], line["n"]) == ("seed x1", "knn", 8)
    assert (line["start"], line["after"], line["gain"]) == (0.25, 0.5, 0.25)
