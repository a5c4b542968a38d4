"""Recipes: every default visible, unknown keys refused with a suggestion, overrides typed as in TOML."""

from __future__ import annotations

import tomllib

import pytest

from softedge import config, registry
from softedge.errors import UserError


@pytest.mark.parametrize("name", sorted(config.available()))
def test_a_shipped_recipe_survives_being_spelled_out_and_read_back(name, tmp_path):
    recipe = config.load(name)
    path = tmp_path / "r.toml"
    path.write_text(config.to_toml(recipe))
    assert config.load(str(path)) == recipe


def test_every_default_is_visible():
    shown = tomllib.loads(config.to_toml(config.build({})))
    for section, model in (
        ("optim", config.Optim),
        ("ssl", config.settings_of("light-moco")),
        ("augment", config.Augment),
    ):
        assert set(shown[section]) == set(model.model_fields)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lrr=1", "unknown key 'optim.lrr'.*did you mean 'optim.lr'"),
        ("ssl.quee=1", "unknown key 'ssl.quee'.*did you mean 'ssl.queue'"),
        ("ssl.method=light-mocco", "unknown method 'light-mocco'.*did you mean 'light-moco'"),
        ("ssl.queue=-3", "ssl.queue.*greater than 0, found -3"),
        ("backbone.stem_stride=3", "backbone.stem_stride.*1 or 2"),
        ("ssl.epochs", "expected KEY=VALUE"),
        ("seed.a=1", "'seed' is a value"),
        ("nonsense=1", "unknown key 'nonsense'"),
    ],
)
def test_a_mistake_is_one_clear_line(override, message):
    with pytest.raises(UserError, match=message) as caught:
        config.build({"seed": 0}, [override])
    assert "\n" not in str(caught.value)


def test_overrides_are_read_as_toml_and_as_plain_words():
    recipe = config.build(
        {}, ["ssl.epochs=3", "optim.lr=0.5", "ssl.projector=[64, 32]", "backbone.name=resnet18", "ssl.symmetric=false"]
    )
    assert (recipe.ssl.epochs, recipe.optim.lr, recipe.ssl.projector) == (3, 0.5, (64, 32))
    assert (recipe.backbone.name, recipe.ssl.symmetric) == ("resnet18", False)


def test_a_damaged_recipe_file_is_named(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_text("[ssl\nepochs = 3")
    with pytest.raises(UserError, match=r"broken.toml cannot be read"):
        config.load(str(path))


def test_a_recipe_is_frozen():
    recipe = config.build({})
    with pytest.raises(Exception, match="frozen"):
        recipe.optim.lr = 3.0


@pytest.mark.parametrize("name", registry.METHODS)
def test_a_methods_settings_have_its_name_and_a_default_for_everything_else(name):
    assert config.build({"ssl": {"method": name}}).ssl == config.settings_of(name)(method=name)
