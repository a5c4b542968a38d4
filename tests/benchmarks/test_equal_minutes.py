"""benchmarks/equal_minutes.py: the rate is chosen on held-out training images, the test images are asked once."""

import json
import sys
from argparse import Namespace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import cifar
import equal_minutes

from softedge import config, registry
from softedge.errors import Interrupted


@pytest.mark.parametrize("row", equal_minutes.ROWS)
def test_every_row_is_a_recipe(row):
    recipe = config.load(equal_minutes.RECIPE, equal_minutes.settings(row, 0.004, 3, 1))
    assert (recipe.ssl.method, recipe.optim.lr, recipe.ssl.epochs, recipe.seed) == (row, 0.004, 3, 1)
    views = registry.lookup(registry.METHODS, row, "method").views(recipe, recipe.data.size)
    assert all(view.size == 32 for view in views)


def test_the_best_rate_on_held_out_images_is_measured_on_the_test_images_once(tmp_path, monkeypatch):
    whole = cifar.generated(6000)
    seen = []

    def trained(row, rate, data, asked, folder):
        assert len(data.train) == 1000 and len(data.test) == 5000
        return {"knn_top1": {0.001: 0.3, 0.004: 0.5, 0.01: 0.4}[rate], "minutes": 2.0, "epochs": 3}

    def probed(backbone, data, views):
        seen.append((backbone, len(data.train), data.test.names))
        return {"knn_top1": 0.45, "linear_top1": 0.44}

    monkeypatch.setattr(equal_minutes, "trained", trained)
    monkeypatch.setattr(equal_minutes, "probed", probed)
    monkeypatch.setattr(equal_minutes.backbones, "load", lambda path: path.parent.name)
    asked = Namespace(out=tmp_path, rates=[0.001, 0.004, 0.01], views=1, seed=0)
    equal_minutes.measure("simco", whole, asked)
    equal_minutes.measure("simco", whole, asked)  # done
    assert seen == [("rate-0.004", 1000, whole.test.names)]
    assert "| simco | 0.004 | 3 | 2.0 | 0.500 (0.001: 0.300, 0.01: 0.400) | 0.450 | 0.440 |" in equal_minutes.table(
        tmp_path
    )


def test_a_method_that_cannot_run_is_a_row_with_its_reason(tmp_path, monkeypatch):
    def trained(*_):
        raise ValueError("too small")

    monkeypatch.setattr(equal_minutes, "trained", trained)
    equal_minutes.measure("byol", cifar.generated(6000), Namespace(out=tmp_path, rates=[0.001], views=1, seed=0))
    assert "why" in json.loads((tmp_path / "byol/row.json").read_text())["tried"]["0.001"]
    assert "| byol | | | | not run: ValueError: too small |" in equal_minutes.table(tmp_path)


def test_a_training_that_was_stopped_leaves_no_row_and_a_rate_that_failed_is_told(tmp_path, monkeypatch):
    whole, asked = cifar.generated(6000), Namespace(out=tmp_path, rates=[0.001, 0.004], views=1, seed=0)

    def stopped(*_):
        raise Interrupted("stopped at epoch 1")

    monkeypatch.setattr(equal_minutes, "trained", stopped)
    with pytest.raises(Interrupted):
        equal_minutes.measure("simco", whole, asked)
    assert not (tmp_path / "simco/row.json").exists()

    def trained(row, rate, data, asked, folder):
        if rate == 0.001:
            raise ValueError("the loss is no number")
        return {"knn_top1": 0.5, "minutes": 2.0, "epochs": 3}

    monkeypatch.setattr(equal_minutes, "trained", trained)
    monkeypatch.setattr(equal_minutes, "probed", lambda *_, **__: {"knn_top1": 0.45, "linear_top1": 0.44})
    monkeypatch.setattr(equal_minutes.backbones, "load", lambda path: path)
    equal_minutes.measure("simco", whole, asked)
    assert "| simco | 0.004 | 3 | 2.0 | 0.500 (0.001: failed) | 0.450 | 0.440 |" in equal_minutes.table(tmp_path)


def test_rows_of_other_minutes_are_not_taken_for_those_that_are_asked(tmp_path):
    asked = Namespace(out=tmp_path / "rows", minutes=2.0, rates=[0.001, 0.004], views=10, seed=0)
    equal_minutes.refuse_other_settings(asked)
    equal_minutes.refuse_other_settings(asked)  # goes on
    asked.minutes = 5.0
    with pytest.raises(SystemExit, match="was measured with .*'minutes': 2.0"):
        equal_minutes.refuse_other_settings(asked)
