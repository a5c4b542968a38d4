"""Recipes: every default visible, unknown keys refused with a suggestion, overrides typed as in TOML."""

from __future__ import annotations

import inspect
import shlex
import tomllib

import pytest

import softedge
from softedge import config, registry
from softedge.errors import UserError
from softedge.recipes import methods


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
        ("ssl", methods.settings_of("light-moco")),
        ("augment", config.Augment),
    ):
        assert set(shown[section]) == set(model.model_fields)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lrr=1", "unknown key 'optim.lrr'.*did you mean 'optim.lr'"),
        ("epochs=3", "unknown key 'epochs'.*did you mean 'finetune.epochs', 'ssl.epochs' or 'distill.epochs'"),
        ("epoch=3", "unknown key 'epoch'.*did you mean 'finetune.epochs'"),
        ("queue=3", "unknown key 'queue'.*did you mean 'ssl.queue'"),
        ("ssl.quee=1", "unknown key 'ssl.quee'.*did you mean 'ssl.queue'"),
        ("ssl.method=light-mocco", "unknown method 'light-mocco'.*did you mean 'light-moco'"),
        ("ssl.queue=-3", "ssl.queue.*greater than 0, found -3"),
        ("backbone.stem_stride=3", "backbone.stem_stride.*1 or 2"),
        ("ssl.epochs", "expected KEY=VALUE"),
        ("seed.a=1", "'seed' is a value"),
        ("nonsense=1", "unknown key 'nonsense'"),
        ("ssl.epochs=true", "ssl.epochs in --set: input should be a number, found true"),
        ("seed=false", "seed in --set: input should be a number, found false"),
        ("transfer.short_sides=[true]", r"transfer.short_sides in --set: input should be a number, found \[true\]"),
        ("probe.weight_decays=[]", r"probe.weight_decays in --set: input should have at least one entry, found \[\]"),
        ("probe.weight_decays=[0.0]", r"probe.weight_decays.0 in --set: input should be greater than 0, found 0.0"),
        ("labels.fractions=[2.0]", r"labels.fractions.0 in --set: input should be less than or equal to 1, found 2.0"),
        ("labels.methods=[]", "labels.methods in --set: input should have at least one entry"),
        ("augment.blur_sigma=[2.0, 0.1]", r"augment.blur_sigma in --set: .*smaller number first, found \[2.0, 0.1\]"),
        ("augment.blur_sigma=[-1, 0]", "augment.blur_sigma.0 in --set: input should be greater than or equal to 0"),
        ("data.classes=[1]", r"write it in quotes: --set 'data.classes=\[\"1\"\]'"),
        ("data.classes=['ant', 1]", r"write it in quotes: --set 'data.classes=\[\"ant\", \"1\"\]'"),
        ("data.source=2024-01-01", r"text, found 2024-01-01; write it in quotes: --set 'data.source=\"2024-01-01\"'"),
        ("ssl=5", "ssl in --set: input should be a section with keys of its own, found 5"),
        ("seed=1\nname='x'", "seed in --set: .*unable to parse"),
        ("distill.teacher_size=1", "distill.teacher_size in --set: input should be 0, or from 32 to 4096, found 1$"),
        ("distill.teacher_size=31", "input should be 0, or from 32 to 4096, found 31"),
        ("distill.teacher_size=4097", "input should be 0, or from 32 to 4096, found 4097"),
    ],
)
def test_a_mistake_is_one_clear_line(override, message):
    with pytest.raises(UserError, match=message) as caught:
        config.build({"seed": 0}, [override])
    assert "\n" not in str(caught.value)


SEVERAL = 'distill.spread_over=["run", "words"]'


@pytest.mark.parametrize(
    ("override", "said", "example"),
    [
        ("distill.spread_over=", "should be a list, found nothing", SEVERAL),
        ("distill.spread_over=words", "should be a list, found 'words'", SEVERAL),
        ("distill.spread_over=[run,words]", "should be a list, found '[run,words]'", SEVERAL),
        ("distill.spread_over=run, words", "should be a list, found 'run, words'", SEVERAL),
        ("distill.spread_over=resnet18", "should be a list, found 'resnet18'", 'distill.spread_over=["resnet18"]'),
        ("distill.spread_over=[]", "should have at least one entry, found []", SEVERAL),
        ("distill.spread_over=['words']", 'words stand beside the features of a network, found ["words"]', SEVERAL),
        ("export.targets=onnx,openvino", "a list, found 'onnx,openvino'", 'export.targets=["onnx", "openvino"]'),
        ("export.targets=[onnx]", "should be a list, found '[onnx]'", 'export.targets=["onnx"]'),
        ("data.classes=", "should be a list, found nothing", "data.classes=[]"),
        ("data.classes=1,2", "should be a list, found '1,2'", 'data.classes=["1", "2"]'),
        ("data.classes=it's,ok", """a list, found "it's,ok\"""", 'data.classes=["it\'s", "ok"]'),
        ("labels.fractions=0.1,1", "should be a list, found '0.1,1'", "labels.fractions=[0.1, 1]"),
        ("labels.methods=prob", "should be a list, found 'prob'", 'labels.methods=["probe", "finetune"]'),
        ("ssl.projector=64", "should be a list, found 64", "ssl.projector=[64]"),
    ],
)
def test_what_is_no_list_gets_one_that_can_be_pasted_into_a_shell(override, said, example):
    with pytest.raises(UserError) as caught:
        config.build({}, [override])
    line, sign, advice = str(caught.value).partition("; for example: --set ")
    assert line.endswith(said) and sign and "\n" not in line
    assert shlex.split(advice) == [example]
    config.build({}, shlex.split(advice))


def test_in_a_file_the_list_that_may_be_meant_stands_alone():
    with pytest.raises(UserError) as caught:
        config.build({"distill": {"spread_over": "run,words"}}, source="mine.toml")
    line = (
        'distill.spread_over in mine.toml: input should be a list, found \'run,words\'; for example: ["run", "words"]'
    )
    assert str(caught.value) == line


@pytest.mark.parametrize("size", [0, 32, 4096])
def test_a_teacher_sees_the_pixels_of_its_weights_or_enough(size):
    assert config.build({}, [f"distill.teacher_size={size}"]).distill.teacher_size == size
    assert config.build({}, ["ssl.method=seed", f"ssl.teacher_size={size}"]).ssl.teacher_size == size
    with pytest.raises(UserError, match="ssl.teacher_size in --set: input should be 0, or from 32 to 4096, found 16"):
        config.build({}, ["ssl.method=seed", "ssl.teacher_size=16"])


def test_overrides_are_read_as_toml_and_as_plain_words():
    recipe = config.build(
        {}, ["ssl.epochs=3", "optim.lr=0.5", "ssl.projector=[64, 32]", "backbone.name=resnet18", "ssl.symmetric=false"]
    )
    assert (recipe.ssl.epochs, recipe.optim.lr, recipe.ssl.projector) == (3, 0.5, (64, 32))
    assert (recipe.backbone.name, recipe.ssl.symmetric) == ("resnet18", False)


def test_true_stays_true_where_a_switch_may_also_have_a_name():
    assert config.build({}, ["optim.compile=true", "plan.scratch=true"]).optim.compile is True


def test_a_recipe_may_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "notepad.toml"
    path.write_bytes(b"\xef\xbb\xbf[ssl]\r\nepochs = 3\r\n")
    assert config.load(str(path)).ssl.epochs == 3


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
    assert config.build({"ssl": {"method": name}}).ssl == methods.settings_of(name)(method=name)


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(text)
    return str(folder / f"{next(iter(files))}.toml")


def test_a_recipe_has_the_values_of_its_base_and_its_own(tmp_path):
    mine = write(
        tmp_path, mine='base = "theirs.toml"\n[ssl]\nqueue = 1024', theirs='base = "moco-v2"\n[optim]\nlr = 0.5'
    )
    recipe, moco = config.load(mine), config.load("moco-v2")
    assert (recipe.name, recipe.ssl.queue, recipe.optim.lr) == ("mine", 1024, 0.5)
    assert recipe.ssl == moco.ssl.model_copy(update={"queue": 1024})
    assert recipe.optim == moco.optim.model_copy(update={"lr": 0.5})


def test_a_recipe_that_changes_the_method_of_its_base_keeps_what_both_know(tmp_path):
    ssl = config.load(write(tmp_path, mine='base = "light-moco"\n[ssl]\nmethod = "byol"')).ssl
    assert (ssl.method, ssl.epochs, ssl.momentum) == ("byol", 200, 0.99)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"a": 'base = "b.toml"', "b": "[ssl]\nquue = 3"},
            r"unknown key 'ssl.quue' in b.toml; did you mean 'ssl.queue'",
        ),
        ({"a": 'base = "b.toml"\n[ssl]\nquue = 3', "b": ""}, r"unknown key 'ssl.quue' in a.toml"),
        ({"a": 'base = "b.toml"', "b": "[ssl]\nqueue = -3"}, r"ssl.queue in b.toml: .*greater than 0, found -3"),
        ({"a": 'base = "b.toml"', "b": 'base = "a.toml"'}, r"in a circle: a.toml -> b.toml -> a.toml"),
        ({"a": 'base = "a.toml"'}, r"in a circle: a.toml -> a.toml"),
        ({"a": 'base = "moco-v3"'}, r"base in a.toml: unknown recipe 'moco-v3'; did you mean 'moco-v2'"),
        ({"a": "base = 3"}, r"base in a.toml: .*found 3"),
        ({"a": "[transfer]\nheda = 'c4'"}, r"unknown key 'transfer.heda' in a.toml; did you mean 'transfer.head'"),
    ],
)
def test_a_mistake_in_a_base_names_the_file_it_is_in(tmp_path, files, message):
    with pytest.raises(UserError, match=message) as caught:
        config.load(write(tmp_path, **files))
    assert "\n" not in str(caught.value)


def test_a_shown_recipe_marks_who_sets_a_value(tmp_path):
    mine = write(tmp_path, mine='base = "moco-v2"\n[ssl]\nqueue = 1024')
    shown = config.shown(mine, ["optim.lr=0.5"])
    for line in (
        "queue = 1024  # set here",
        "temperature = 0.2  # from moco-v2.toml",
        "lr = 0.5  # from --set",
        "joint_views = false",
    ):
        assert line in shown.splitlines()
    (tmp_path / "again.toml").write_text(shown)
    assert config.load(str(tmp_path / "again.toml")) == config.load(mine, ["optim.lr=0.5"])


def test_reading_the_sections_imports_neither_torch_nor_a_method():
    import subprocess
    import sys

    code = (
        "import sys, softedge.config as c; c.available(); "
        "print([m for m in sys.modules if m == 'torch' or m.startswith(('softedge.ssl', 'softedge.detection'))])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"data": {"size": 20000}}, "data.size.*4096"),
        ({"data": {"std": [0.2, 0.0, 0.2]}}, "data.std.*greater than 0"),
    ],
)
def test_values_that_no_memory_or_division_can_bear_are_refused(values, line):
    with pytest.raises(UserError, match=line):
        config.build(values)


LISTS = [
    (name, parameter)
    for name in softedge.__all__
    for parameter in inspect.signature(softedge._command(name)).parameters
    if parameter in ("set", "targets", "precisions", "devices")
]


@pytest.mark.parametrize(("name", "parameter"), LISTS, ids=lambda word: word)
@pytest.mark.parametrize(
    ("value", "instead"),
    [
        ("finetune.epochs=3", "is a single text; give a list: {}=['finetune.epochs=3']"),
        ({"finetune.epochs": 3}, "is a mapping; give a list of texts: {}=['finetune.epochs=3']"),
        ([("finetune.epochs", 3)], "holds ('finetune.epochs', 3); give a list of texts"),
    ],
    ids=["text", "mapping", "pairs"],
)
def test_every_function_refuses_a_text_or_a_mapping_for_a_list_in_one_line(tmp_path, name, parameter, value, instead):
    root = tmp_path / "run"
    root.mkdir()
    (root / "recipe.toml").write_text(config.to_toml(config.load("digits")))
    given = {"run": root, "source": root, "data": "digits", "out": tmp_path / "new", "images": tmp_path}
    given |= {"weights": tmp_path / "none.pth", "task": "voc"} | ({"data": tmp_path} if name == "plan" else {})
    function = softedge._command(name)  # softedge.export may be the package by now
    known = inspect.signature(function).parameters
    asked = {key: value for key, value in given.items() if key in known and (key != "out" or "source" not in known)}
    with pytest.raises(UserError) as refused:
        function(**asked, **{parameter: value})
    assert instead.format(parameter) in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "new").exists()
