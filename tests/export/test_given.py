"""The preprocessing of weights from elsewhere: what the user, ``config.json``, a tag or timm says, and which it was."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from safetensors.torch import save_file

from softedge import backbones, config
from softedge.errors import UserError
from softedge.export import given
from softedge.export.given import read
from softedge.records import InputSpec

NAME = "mobilenetv3_small_050"
LAMB = f"{NAME}.lamb_in1k"
RESNET = "test_resnet"  # timm's default for it is 0.5 and bicubic


def said(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if "normalisation" in line]


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    net = timm.create_model(NAME, num_classes=4)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors", net


@pytest.fixture
def resnet(tmp_path):
    torch.manual_seed(0)
    save_file(timm.create_model(RESNET, num_classes=3).state_dict(), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_timms_default_for_the_architecture_is_an_assumption_and_says_so(resnet, capsys):
    spec = read(resnet, RESNET)[0].spec
    assert (spec.size, spec.mean, spec.std) == (160, (0.5,) * 3, (0.5,) * 3)
    assert said(capsys) == [
        f"weights: normalisation 0.5/0.5, {spec.interpolation}, assumed: w.safetensors does not say, timm's default "
        f"for {RESNET}; give --mean and --std if the weights were trained otherwise"
    ]


def test_the_tag_of_the_weights_is_accepted_and_names_their_preprocessing(weights, tmp_path, capsys):
    path, net = weights
    deployed, name = read(path, LAMB, size=32)
    assert name == LAMB and torch.equal(deployed.model.state_dict()["conv_stem.weight"], net.conv_stem.weight)
    assert said(capsys) == [
        f"weights: normalisation (0.485, 0.456, 0.406)/(0.229, 0.224, 0.225), {deployed.spec.interpolation}, "
        f"from timm's settings of {LAMB}"
    ]
    given.save(tmp_path / "n.safetensors", deployed, name)
    assert torch.equal(given.load(tmp_path / "n.safetensors").model.conv_stem.weight, net.conv_stem.weight)
    tag = "miil_in21k_ft_in1k"  # another preprocessing than the default tag's
    save_file(timm.create_model("mobilenetv3_large_100", num_classes=2).state_dict(), tmp_path / "l.safetensors")
    spec = read(tmp_path / "l.safetensors", f"mobilenetv3_large_100.{tag}")[0].spec
    assert (spec.mean, spec.std) == ((0.0,) * 3, (1.0,) * 3)


def test_an_unknown_tag_is_refused_with_those_that_there_are(weights):
    with pytest.raises(UserError, match=f"unknown tag 'lamb' of backbone '{NAME}'; timm has lamb_in1k$"):
        read(weights[0], f"{NAME}.lamb")
    with pytest.raises(UserError, match=rf"unknown backbone '{NAME}x.lamb_in1k'; did you mean '{NAME}'\?"):
        read(weights[0], f"{NAME}x.lamb_in1k")


def test_config_json_beside_the_weights_comes_before_timm_and_behind_the_user(resnet, capsys):
    stated = {
        "mean": [0, 0, 0],
        "std": [1, 1, 1],
        "interpolation": "bilinear",
        "crop_pct": 0.8,
        "input_size": [3, 96, 96],
    }
    config_json = resnet.with_name("config.json")
    config_json.write_text(json.dumps({"architecture": RESNET, "pretrained_cfg": stated}))
    for name in (RESNET, f"{RESNET}.r160_in1k"):
        assert read(resnet, name)[0].spec == InputSpec(96, 120, (0.0,) * 3, (1.0,) * 3, "bilinear")
        assert said(capsys) == [f"weights: normalisation 0/1, bilinear, from {config_json}"]
    own = given.preprocessing(None, "0.5,0.5,0.5", None, None, None)
    assert read(resnet, RESNET, preprocessing=own)[0].spec == InputSpec(96, 120, (0.5,) * 3, (1.0,) * 3, "bilinear")
    assert said(capsys) == [f"weights: normalisation 0.5/1, bilinear, from --mean; else from {config_json}"]
    own = given.preprocessing(64, "0.5,0.5,0.5", "0.2,0.2,0.2", "bicubic", 0.5)
    config_json.write_text("{")
    assert read(resnet, RESNET, preprocessing=own)[0].spec == InputSpec(64, 128, (0.5,) * 3, (0.2,) * 3, "bicubic")
    assert said(capsys) == ["weights: normalisation 0.5/0.2, bicubic, from --mean, --std, --interpolation"]
    with pytest.raises(
        UserError, match=r"config.json cannot be read as settings .* remove it and set --mean and --std"
    ):
        read(resnet, RESNET)


def test_mean_and_std_of_the_user_are_no_assumption(resnet, capsys):
    read(resnet, RESNET, preprocessing=given.preprocessing(None, "0.1,0.1,0.1", "0.2,0.2,0.2", None, None))
    (line,) = said(capsys)
    assert ", from --mean, --std; else assumed: w.safetensors does not say, timm's default" in line
    assert "give --mean" not in line


def test_a_file_of_softedge_says_its_own_preprocessing(tmp_path, capsys):
    spec = InputSpec(32, 36, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), "bicubic")
    path = tmp_path / "b.safetensors"
    backbones.save(path, backbones.build(config.Backbone(name=NAME)), spec)
    (tmp_path / "config.json").write_text(json.dumps({"mean": [0, 0, 0], "std": [1, 1, 1]}))
    assert read(path)[0].spec == spec
    assert read(path, NAME)[0].spec == spec, "also where its architecture is named"
    assert said(capsys) == [f"weights: normalisation 0.5/0.2, bicubic, from {path}"] * 2


@pytest.mark.parametrize(
    ("name", "stated", "options"),
    [
        (RESNET, {"global_pool": "max"}, {"global_pool": "max"}),
        (RESNET, {"global_pool": "avg", "model_args": {"act_layer": "leaky_relu"}}, {"act_layer": "leaky_relu"}),
        ("vit_tiny_patch16_224", {"global_pool": "avg"}, {"global_pool": "avg"}),
    ],
)
def test_a_network_that_config_json_builds_otherwise_is_that_network(tmp_path, capsys, name, stated, options):
    """Most of its tensors have the names and shapes of timm's default, which would answer otherwise."""
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=3, **options).eval()
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    settings = {"mean": [0, 0, 0], "std": [1, 1, 1], "input_size": [3, 224, 224]}
    content = {"architecture": name, "num_classes": 3, **stated, "pretrained_cfg": settings}
    (tmp_path / "config.json").write_text(json.dumps(content))
    deployed, _ = read(tmp_path / "w.safetensors", name)
    given.save(tmp_path / "kept.safetensors", deployed, name)
    kept = given.load(tmp_path / "kept.safetensors")
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        expected, default = net(images), timm.create_model(name, num_classes=3).eval()
        default.load_state_dict(net.state_dict(), strict=False)
        assert (default(images) - expected).abs().max() > 1e-3
        assert torch.equal(deployed.model(images), expected) and torch.equal(kept.model(images), expected)
    key, value = next(iter(options.items()))
    assert f"weights: {name} is built with {key} = {value}, from {tmp_path}/config.json" in capsys.readouterr().err


def test_options_that_timm_does_not_know_are_one_line(resnet):
    content = {"architecture": RESNET, "model_args": {"checkpoint_path": "/etc/passwd", "no_such": 3}}
    resnet.with_name("config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"config.json says no_such = 3, with which timm cannot build") as error:
        read(resnet, RESNET)
    assert "\n" not in str(error.value) and "passwd" not in str(error.value)


@pytest.mark.parametrize(
    ("stated", "line"),
    [
        (
            {"crop_mode": "squash"},
            "0/1, bilinear, from {}, but there images were squashed to a square, here their centre is",
        ),
        (
            {"input_size": [3, 48, 96]},
            "0/1, bilinear, from {}, but there images had 48 x 96 pixels, here they are square",
        ),
        ({"interpolation": "lanczos"}, "0/1, bicubic, from {}, but 'lanczos' is not done here"),
    ],
)
def test_what_the_weights_were_evaluated_with_and_is_not_done_here_is_said(resnet, capsys, stated, line):
    config_json = resnet.with_name("config.json")
    settings = {"mean": [0, 0, 0], "std": [1, 1, 1], "crop_pct": 1.0, "input_size": [3, 96, 96], **stated}
    config_json.write_text(json.dumps({"architecture": RESNET, "pretrained_cfg": settings}))
    read(resnet, RESNET)
    assert line.format(config_json) in said(capsys)[0]


def test_a_mean_of_grey_levels_in_config_json_is_refused_as_the_option_is(resnet):
    settings = {"mean": [123.7, 116.3, 103.5], "std": [58.4, 57.1, 57.4]}
    resnet.with_name("config.json").write_text(json.dumps({"architecture": RESNET, "pretrained_cfg": settings}))
    with pytest.raises(UserError, match=r"of x / 255, between 0 and 1 \(divide mean and std by 255\)"):
        read(resnet, RESNET)


def test_one_value_is_the_mean_of_all_channels():
    assert given.preprocessing(None, "0.5", "0.25", None, None) == given.preprocessing(
        None, "0.5,0.5,0.5", "0.25,0.25,0.25", None, None
    )
    with pytest.raises(UserError, match=r"--std is '0.5,0.5'; give three numbers .* or one for all channels"):
        given.preprocessing(None, "0.5", "0.5,0.5", None, None)


def test_class_names_beside_the_weights_are_used_and_the_file_says_where_from(resnet, tmp_path, capsys):
    settings = {"mean": [0, 0, 0], "std": [1, 1, 1], "input_size": [3, 96, 96]}
    content = {"architecture": RESNET, "label_names": ["ant", "bee", "cat"], "pretrained_cfg": settings}
    resnet.with_name("config.json").write_text(json.dumps(content))
    deployed, _ = read(resnet, RESNET)
    assert deployed.labels == ("ant", "bee", "cat")
    assert deployed.about == {"preprocessing_from": "from config.json", "labels_from": "config.json"}
    assert f"weights: the names of 3 classes, from {resnet.with_name('config.json')}" in capsys.readouterr().err
    assert read(resnet, RESNET, labels=["x", "y", "z"])[0].labels == ("x", "y", "z")
    resnet.with_name("config.json").write_text(json.dumps({**content, "label_names": ["ant"]}))
    with pytest.raises(UserError, match="config.json names 1 class, and w.safetensors has 3; give --labels"):
        read(resnet, RESNET)


def test_preprocessor_config_beside_the_weights_is_followed_or_refused(resnet):
    beside = resnet.with_name("preprocessor_config.json")
    beside.write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "size": {"shortest_edge": 96}}))
    assert read(resnet, RESNET)[0].spec == InputSpec(96, 96, (0.5,) * 3, (0.25,) * 3, "bilinear")
    beside.write_text(json.dumps({"do_flip_channel_order": True, "do_rescale": True}))
    with pytest.raises(UserError, match="preprocessor_config.json .*blue, green, red, is not done here"):
        read(resnet, RESNET)
