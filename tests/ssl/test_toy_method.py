"""A method of somebody else: one class and one registry line give it recipe keys, views and the loop."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from pydantic import Field
from small import data
from torch import Tensor

from softedge import config, registry
from softedge.backbones import Backbone
from softedge.data.draws import View
from softedge.errors import UserError
from softedge.run import Run
from softedge.ssl.method import Embedder, OneEncoder, reproducible
from softedge.stages import pretrain


class Toy(OneEncoder):
    """Pulls three views of an image together, the last of half the size."""

    class Settings(config.Pretraining):
        method: Literal["toy"] = "toy"
        strength: float = Field(default=1.0, gt=0.0)

    def __init__(self, settings: Settings, backbone: Backbone, seed: int):
        super().__init__()
        self.settings = settings
        with reproducible(seed + 1):
            self.encoder = Embedder(backbone, settings.projector, settings.projector_norm)

    @classmethod
    def views(cls, recipe: config.Recipe, size: int) -> tuple[View, ...]:
        whole = View(size, recipe.augment)
        return whole, whole, View(size // 2, recipe.augment, max_area=0.5)

    def forward(self, views: list[Tensor], index: Tensor) -> Tensor:
        assert [view.shape[-1] for view in views] == [32, 32, 16]
        first, second, third = (self.encoder(view) for view in views)
        self.latest = first.detach(), second.detach()
        return self.settings.strength * ((first - second).square().sum(1) + (first - third).square().sum(1)).mean()


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(registry.METHODS, "toy", f"{__name__}:Toy")


def recipe(*overrides: str) -> config.Recipe:
    values = {
        "data": {"size": 32, "resize": 32, "workers": 0},
        "backbone": {"name": "mobilenetv3_small_050"},
        "ssl": {"method": "toy", "epochs": 1, "batch": 16, "projector": [16, 8], "knn_every": 0},
        "optim": {"lr": 0.01, "warmup_epochs": 0},
    }
    return config.build(values, overrides)


def test_its_settings_are_keys_of_a_recipe():
    assert recipe("ssl.strength=2").ssl == Toy.Settings(
        strength=2.0, epochs=1, batch=16, projector=(16, 8), knn_every=0
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ssl.strenght=2", "unknown key 'ssl.strenght'.*did you mean 'ssl.strength'"),
        ("ssl.strength=-1", "ssl.strength.*greater than 0, found -1"),
        ("ssl.method=toyy", "unknown method 'toyy'.*did you mean 'toy'"),
    ],
)
def test_its_mistakes_are_explained_as_those_of_the_others(override, message):
    with pytest.raises(UserError, match=message):
        recipe(override)


def test_its_recipe_survives_being_spelled_out(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(config.to_toml(recipe("ssl.strength=3")))
    assert config.load(str(path)).ssl == recipe("ssl.strength=3").ssl


def test_it_trains_through_the_loop_with_the_views_it_asks_for(tmp_path):
    result = pretrain.stage(Run(tmp_path), recipe(), data())
    assert result.metrics["steps"] == 3
    assert torch.isfinite(torch.tensor(result.metrics["loss"]))
