"""Classifiers and other tensors beside a network: each is used, named in a line, or named in a refusal."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn

from softedge import backbones, config
from softedge.errors import UserError
from softedge.export.given import read

NAME = "mobilenetv3_small_050"
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


NORM = ("weight", "bias", "running_mean", "running_var")


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return timm.create_model(NAME, num_classes=4).eval()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "w.pth"


def head(name, classes=4, features=1024, seed=1):
    drawn = torch.Generator().manual_seed(seed)
    sizes = {"weight": (classes, features), "bias": (classes,)}
    return {f"{name}.{leaf}": torch.randn(size, generator=drawn) for leaf, size in sizes.items()}


def trunk(net, prefix=""):
    return {f"{prefix}{k}": v for k, v in net.state_dict().items() if not k.startswith("classifier.")}


def under(prefix, state):
    return {f"{prefix}{key}": value for key, value in state.items()}


def logits(path, name=NAME):
    with torch.no_grad():
        return read(path, name)[0].model(IMAGES)


def test_the_networks_own_classifier_comes_before_a_foreign_one_of_the_same_shape(net, path, capsys):
    torch.save({**net.state_dict(), **head("head")}, path)
    with torch.no_grad():
        assert torch.equal(logits(path), net(IMAGES))
    line = f"weights: head.weight, head.bias in {path} are left out: 'classifier' is the classifier of {NAME} itself"
    assert line in capsys.readouterr().err


def test_a_foreign_classifier_alone_is_used(net, path):
    own = head("fc")
    torch.save({**trunk(net, "backbone."), **own}, path)
    with torch.no_grad():
        features = net.forward_head(net.forward_features(IMAGES), pre_logits=True)
        expected = torch.nn.functional.linear(features, own["fc.weight"], own["fc.bias"])
    assert torch.allclose(logits(path), expected, atol=1e-5)


def test_several_foreign_classifiers_are_refused_by_name(net, path):
    torch.save({**trunk(net), **head("head"), **head("fc", seed=2)}, path)
    with pytest.raises(UserError, match=rf"has 2 classifiers \(head, fc\), and none is that of {NAME} itself; use"):
        read(path, NAME)
    assert read(path, NAME, output="features")[0].output == "features"


@pytest.mark.parametrize("name", ["head", "classifier"])
def test_a_bias_without_its_weight_is_refused_and_not_dropped(net, path, name):
    torch.save({**trunk(net), f"{name}.bias": torch.zeros(4)}, path)
    with pytest.raises(UserError, match=rf"has no weight of shape \(classes, features\), only {name}.bias of shape"):
        read(path, NAME)


def test_an_incomplete_classifier_of_the_network_is_not_mended_by_a_foreign_one(net, path):
    torch.save({**trunk(net), "classifier.bias": torch.zeros(4), **head("head")}, path)
    with pytest.raises(UserError, match=r"only classifier.bias of shape \(4,\)"):
        read(path, NAME)


@pytest.mark.parametrize("name", ["classifier", "fc"])
def test_a_weight_and_a_bias_of_different_classes_are_refused_as_the_files_own_fault(net, path, name):
    torch.save({**trunk(net), **head(name), f"{name}.bias": torch.zeros(3)}, path)
    with pytest.raises(UserError, match=rf"itself: {name}.weight has shape \(4, 1024\) and {name}.bias \(3,\)") as said:
        read(path, NAME)
    assert NAME not in str(said.value)


def test_a_classifier_of_another_shape_is_refused_with_both(net, path):
    torch.save({**trunk(net), **head("head", features=512)}, path)
    with pytest.raises(UserError, match=r"'classifier.weight': \(4, 512\)}, that of .* \(4, 1024\)} there; use"):
        read(path, NAME)
    torch.save({**trunk(net), "classifier.weight": torch.zeros(4, 1024)}, path)
    with pytest.raises(UserError, match=r"has nothing, that of .* {'classifier.bias': \(4,\)} there"):
        read(path, NAME)


def test_two_heads_of_a_distilled_network_and_a_convolution_are_classifiers(path):
    """DeiT's two heads are averaged, and DPN ends in a 1x1 convolution: they were a bug and a features model."""
    for name in ("deit_tiny_distilled_patch16_224", "dpn48b"):
        torch.manual_seed(0)
        net = timm.create_model(name, num_classes=3).eval()
        torch.save(net.state_dict(), path)
        deployed, _ = read(path, name)
        assert deployed.labels == ("0", "1", "2")
        for key, value in net.state_dict().items():
            assert torch.equal(deployed.model.state_dict()[key], value), key


@pytest.mark.parametrize("prefix", ["model.", "net.", "lit.model.", "student."])
def test_a_loss_beside_a_lightning_network_is_left_out_in_one_line(net, path, capsys, prefix):
    state = {"loss.weight": torch.ones(4), **under(prefix, net.state_dict())}
    torch.save({"state_dict": state, "epoch": 3}, path)
    with torch.no_grad():
        assert torch.equal(logits(path), net(IMAGES))
    line = f"weights: loss.weight in {path} is outside of '{prefix}' and left out"
    assert capsys.readouterr().err.count(line) == 1
    backbones.build(config.Backbone(name=NAME, weights=str(path)))
    assert line in capsys.readouterr().err


def test_a_refusal_names_what_is_left_over_beside_the_prefix_that_most_names_carry(net, path):
    state = {"loss.weight": torch.ones(4), **under("model.", net.state_dict()), "model.gate.weight": torch.ones(2)}
    torch.save(state, path)
    with pytest.raises(UserError, match=r"the first is 'gate.weight'; outside of 'model.' it has loss.weight$"):
        read(path, NAME)
    del state["model.gate.weight"], state["model.conv_stem.weight"]
    torch.save(state, path)
    with pytest.raises(UserError, match=r": 1 of \d+ tensors do not fit, .*; outside of 'model.' it has loss.weight$"):
        read(path, NAME)


@pytest.mark.parametrize("with_head", [True, False])
def test_layers_that_may_lie_between_features_and_classes_are_refused(net, path, with_head):
    """A neck of the same width would fit, and the answers would be others."""
    outside = {"neck.weight": torch.eye(1024), **(head("head") if with_head else {})}
    torch.save({**trunk(net, "backbone."), **outside}, path)
    what = "part of its classifier; if that has several linear layers, say" if with_head else "its classifier; use"
    with pytest.raises(UserError, match=rf"has neck.weight outside of 'backbone.', which may be {what}"):
        read(path, NAME)
    assert read(path, NAME, output="features")[0].output == "features"


def test_two_copies_of_the_network_are_refused_by_their_prefixes(net, path):
    torch.save({**under("encoder.", net.state_dict()), **under("momentum.", net.state_dict())}, path)
    with pytest.raises(UserError, match=rf"holds two networks {NAME}, 'encoder.' and 'momentum.'; save the state_dict"):
        read(path, NAME)


@pytest.mark.parametrize("average", ["ema.", "ema_model.module."])
def test_an_average_beside_a_lightning_network_is_refused_by_both_prefixes(net, path, average):
    """Each has no more than half of the names; the refusal said that the file lacks the network."""
    state = {**under("model.", net.state_dict()), **under(average, net.state_dict())}
    torch.save({"state_dict": {**state, "ema_model.n_averaged": torch.tensor(3)}}, path)
    with pytest.raises(UserError, match=r"holds two networks .*; save the state_dict of one of them alone") as error:
        read(path, NAME)
    assert "'model.'" in str(error.value) and f"'{average}'" in str(error.value)


def test_a_tensor_like_no_classifiers_own_is_not_dropped_with_one(net, path):
    torch.save({**net.state_dict(), **head("head"), "head.scale": torch.ones(1)}, path)
    with pytest.raises(UserError, match=r"1 of its tensors have no place in the network, the first is 'head.scale'"):
        read(path, NAME)


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_one_linear_layer_at_the_beginning_of_a_sequence_is_the_classifier(net, path, prefix):
    """Nothing can lie between it and the features."""
    own = head("head.0")
    torch.save({**trunk(net, prefix), **own}, path)
    with torch.no_grad():
        features = net.forward_head(net.forward_features(IMAGES), pre_logits=True)
        expected = torch.nn.functional.linear(features, own["head.0.weight"], own["head.0.bias"])
    assert torch.allclose(logits(path), expected, atol=1e-5)


ONNX = "say which activation with --head, such as --head relu, or export the network to ONNX in PyTorch and give"


@pytest.mark.parametrize("prefix", ["", "backbone."])
@pytest.mark.parametrize("names", [("classifier.1", "classifier.4"), ("head.fc1", "head.fc2"), ("fc.0", "fc.3")])
def test_a_classifier_of_several_layers_is_refused_with_what_to_do_and_its_features_are_used(net, path, prefix, names):
    first, second = names
    layers = {**head(first, 32), **head(second, features=32)}
    torch.save({**trunk(net, prefix), **layers}, path)
    sizes = rf"\({first} 32 x 1024, {second} 4 x 32\)"
    line = f"a classifier of 2 layers {sizes}, and does not say what lies between them; {ONNX}"
    with pytest.raises(UserError, match=line) as error:
        read(path, NAME)
    assert "\n" not in str(error.value)
    features = read(path, NAME, output="features")[0]
    with torch.no_grad():
        expected = net.forward_head(net.forward_features(IMAGES), pre_logits=True)
        assert features.output == "features" and torch.allclose(features.model(IMAGES), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("theirs", "name", "begins"),
    [("mobilenet_v2", "mobilenetv2_100", [nn.Dropout()]), ("mobilenet_v3_small", "mobilenetv3_small_100", None)],
)
def test_the_first_layer_of_a_sequence_in_torchvisions_classifier_is_not_the_classifier(theirs, name, begins, path):
    """It has the name of torchvision's own: its 32 units were taken for 32 classes."""
    net = torchvision.models.get_model(theirs, weights=None)
    begins = begins or list(net.classifier[:3])
    width = 1280 if theirs == "mobilenet_v2" else 1024
    net.classifier = nn.Sequential(*begins, nn.Linear(width, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 4))
    torch.save(net.state_dict(), path)
    first = len(begins)
    sizes = rf"\(classifier.{first} 32 x {width}, classifier.{first + 3} 4 x 32\)"
    with pytest.raises(UserError, match=f"has a classifier of 2 layers {sizes}, and does not say what lies between"):
        read(path, name)
    assert read(path, name, output="features")[0].output == "features"


def test_a_linear_layer_behind_layers_without_weights_is_refused_with_the_new_name(net, path):
    own = head("classifier.1")
    torch.save({**trunk(net), **own}, path)
    with pytest.raises(UserError, match="if those are dropout, rename classifier.1.weight and classifier.1.bias to"):
        read(path, NAME)
    torch.save({**trunk(net), **{key.replace(".1.", "."): value for key, value in own.items()}}, path)
    assert read(path, NAME)[0].labels == ("0", "1", "2", "3")


def test_a_norm_in_a_classifier_of_several_layers_is_refused_by_name_with_what_to_do(net, path, capsys):
    """It may be that of the features."""
    norm = {f"head.1.{leaf}": torch.ones(32) for leaf in NORM}
    torch.save({**trunk(net), **head("head.0", 32), **norm, **head("head.3", features=32)}, path)
    with pytest.raises(UserError, match=rf"the first is 'head.0.weight'; of a classifier of several layers, {ONNX}"):
        read(path, NAME)
    capsys.readouterr()
    with torch.no_grad():
        expected = net.forward_head(net.forward_features(IMAGES), pre_logits=True)
        assert torch.allclose(read(path, NAME, output="features")[0].model(IMAGES), expected, atol=1e-5)
    assert f"weights: head.1 in {path} is left off with the classifier that it is in" in capsys.readouterr().err


@pytest.mark.parametrize("norm", [{}, {f"classifier.2.{leaf}": torch.ones(32) for leaf in NORM}])
def test_training_starts_without_a_classifier_of_several_layers(net, path, capsys, norm):
    torch.save({**trunk(net), **head("classifier.1", 32), **norm, **head("classifier.4", features=32)}, path)
    backbone = backbones.build(config.Backbone(name=NAME, weights=str(path)))
    assert torch.equal(backbone.net.state_dict()["conv_stem.weight"], net.state_dict()["conv_stem.weight"])
    assert "classifier.4.bias) is left off" in capsys.readouterr().err
