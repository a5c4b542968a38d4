"""Files of weights as others write them: every usual layout gives the same network, everything else is one line."""

from __future__ import annotations

import argparse
import collections
import json
import pickle

import numpy as np
import pytest
import timm
import torch
import torchvision

from softedge import backbones, config
from softedge.errors import UserError
from softedge.weights import files, layouts

NAME = "mobilenetv3_small_050"
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def network(name: str = NAME, seed: int = 5, classes: int = 7) -> torch.nn.Module:
    """A timm network whose BatchNorm statistics are not those of a new one."""
    torch.manual_seed(seed)
    net = timm.create_model(name, num_classes=classes)
    with torch.no_grad():
        for _ in range(2):
            net(torch.randn(4, 3, 64, 64) + 0.5)
    return net.eval()


def features(path, name: str = NAME) -> torch.Tensor:
    backbone = backbones.build(config.Backbone(name=name, weights=str(path))).eval()
    with torch.no_grad():
        return backbone(IMAGES)


def expected(net: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return net.forward_head(net.forward_features(IMAGES), pre_logits=True)


def prefixed(state, prefix):
    return {f"{prefix}{key}": value for key, value in state.items()}


@pytest.mark.parametrize("layout", ["plain", "module.", "model.", "_orig_mod.", "module._orig_mod.", "backbone."])
@pytest.mark.parametrize("nested", [None, "state_dict", "model_state_dict", "model"])
def test_prefixes_and_checkpoints_of_trainers_give_the_same_features(tmp_path, layout, nested):
    net = network()
    state = net.state_dict() if layout == "plain" else prefixed(net.state_dict(), layout)
    torch.save({nested: state, "epoch": 3} if nested else state, tmp_path / "w.pth")
    assert torch.equal(features(tmp_path / "w.pth"), expected(net))


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "ema_model"])
def test_averaged_weights_are_preferred_and_named(tmp_path, capsys, key):
    trained, averaged = network(seed=1), network(seed=2)
    torch.save({"state_dict": trained.state_dict(), key: averaged.state_dict()}, tmp_path / "w.pth")
    assert torch.equal(features(tmp_path / "w.pth"), expected(averaged))
    assert f"holds averaged weights ('{key}')" in capsys.readouterr().err


def test_two_networks_in_a_checkpoint_are_refused_and_one_twice_is_not(tmp_path):
    one, other = network(seed=1), network(seed=2)
    torch.save({"model": one.state_dict(), "state_dict": other.state_dict()}, tmp_path / "two.pth")
    with pytest.raises(UserError, match="holds two networks, 'state_dict' and 'model'; save the state_dict of one"):
        files.read_state(tmp_path / "two.pth")
    torch.save({"model": one.state_dict(), "state_dict": prefixed(one.state_dict(), "module.")}, tmp_path / "one.pth")
    assert torch.equal(features(tmp_path / "one.pth"), expected(one))


def test_weights_of_the_network_under_another_name_are_named(tmp_path, capsys):
    one, other = network(seed=1), network(seed=2)
    beside = {"optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}, "rng_states": {"cpu": torch.ones(4)}}
    torch.save({"model": one.state_dict(), "teacher": other.state_dict(), **beside}, tmp_path / "w.pth")
    assert torch.equal(features(tmp_path / "w.pth"), expected(one))
    line = f"weights: {tmp_path}/w.pth holds other weights of the network ('teacher'); those in 'model' are used"
    assert [said for said in capsys.readouterr().err.splitlines() if "holds" in said] == [line]
    torch.save({"student": one.state_dict(), "teacher": other.state_dict()}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"no state dict .*; it has some inside 'student', 'teacher': save one of them"):
        files.read_state(tmp_path / "w.pth")


def test_an_averaged_model_of_pytorch_is_read(tmp_path):
    net = network()
    torch.save(torch.optim.swa_utils.AveragedModel(net).state_dict(), tmp_path / "w.pth")
    assert torch.equal(features(tmp_path / "w.pth"), expected(net))


def test_settings_and_numbers_beside_the_weights_do_not_matter(tmp_path):
    net = network()
    beside = {"args": argparse.Namespace(lr=0.1, opt="sgd"), "metric": np.float64(0.9), "epoch": np.int64(3)}
    torch.save({"state_dict": net.state_dict(), **beside}, tmp_path / "w.pth")
    assert torch.equal(features(tmp_path / "w.pth"), expected(net))


class Harmful:
    def __reduce__(self):
        return (print, ("code from a weights file ran",))


def test_a_file_of_another_kind_is_told_what_weights_are(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x0a\x12\x07pytorch")
    with pytest.raises(UserError, match=r"neither .pth nor .safetensors; an .onnx file .* softedge quantize FILE"):
        files.read_state(path)


def test_code_in_a_file_is_refused_and_never_run(tmp_path, capsys):
    torch.save({"state_dict": network().state_dict(), "extra": Harmful()}, tmp_path / "w.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Harmful()))
    for name in ("w.pth", "plain.pth"):
        with pytest.raises(UserError, match="cannot be read as weights") as error:
            files.read_state(tmp_path / name)
        assert "\n" not in str(error.value)
    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "theirs"),
    [(a, b) for a, b in layouts.TORCHVISION.items() if b in ("mobilenet_v2", "mobilenet_v3_small", "resnet18")],
)
def test_torchvisions_files_compute_what_torchvision_computes(tmp_path, name, theirs):
    torch.manual_seed(3)
    net = torchvision.models.get_model(theirs, weights=None)
    with torch.no_grad():
        for _ in range(2):
            net(torch.randn(4, 3, 64, 64) + 0.5)
    net.eval()
    torch.save(net.state_dict(), tmp_path / "w.pth")
    head = net.fc if theirs.startswith("resnet") else net.classifier[-1]
    found: list[torch.Tensor] = []
    head.register_forward_pre_hook(lambda _, args: found.append(args[0]))
    with torch.no_grad():
        net(IMAGES)
    assert torch.allclose(features(tmp_path / "w.pth", name), found[0], rtol=1e-4, atol=1e-5)


def test_names_of_efficientnet_pytorch_are_translated_whatever_their_order(tmp_path):
    """Names made up here from timm's the other way round, in alphabetical order, as safetensors would keep them."""
    net = network("tf_efficientnet_lite0")
    places = {
        f"{s}.{b}": n for n, (s, b) in enumerate((s, b) for s, st in enumerate(net.blocks) for b in range(len(st)))
    }
    separable = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    inverted = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1"}
    inverted |= {"conv_pwl": "_project_conv", "bn3": "_bn2"}
    top = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    state = {}
    for key, value in net.state_dict().items():
        parts = key.split(".")
        if parts[0] == "blocks":
            number = places[f"{parts[1]}.{parts[2]}"]
            layer = (separable if parts[1] == "0" else inverted)[parts[3]]
            state[f"_blocks.{number}.{layer}.{parts[4]}"] = value
        else:
            state[f"{top[parts[0]]}.{parts[1]}"] = value
    torch.save(collections.OrderedDict(sorted(state.items())), tmp_path / "w.pth")
    assert torch.equal(features(tmp_path / "w.pth", "tf_efficientnet_lite0"), expected(net))
    with pytest.raises(UserError, match="does not hold weights of efficientnet_lite0"):  # pads in another way
        features(tmp_path / "w.pth", "efficientnet_lite0")


def test_a_file_without_batch_counters_is_complete(tmp_path):
    net = network()
    torch.save({k: v for k, v in net.state_dict().items() if "num_batches" not in k}, tmp_path / "w.pth")
    assert torch.equal(features(tmp_path / "w.pth"), expected(net))


def test_no_tensor_is_dropped_without_a_word(tmp_path, capsys):
    net = network()
    path = tmp_path / "w.pth"
    torch.save(net.state_dict(), path)
    features(path)
    assert f"the classifier in {path} (classifier.weight, classifier.bias) is left off" in capsys.readouterr().err
    torch.save({**net.state_dict(), "gate.weight": torch.ones(2)}, path)
    with pytest.raises(UserError, match=r"1 of its tensors have no place in the network, the first is 'gate.weight'"):
        features(path)
    missing = dict(net.state_dict())
    del missing["blocks.1.0.conv_dw.weight"]
    torch.save(missing, path)
    with pytest.raises(
        UserError, match=r"1 of \d+ tensors do not fit, the first is 'blocks.1.0.conv_dw.weight', not in"
    ):
        features(path)


def test_weights_of_another_network_are_named_with_both_shapes(tmp_path):
    torch.save(network("mobilenetv3_small_075").state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError) as error:
        features(tmp_path / "w.pth")
    text = str(error.value)
    assert "\n" not in text and "in the file and (" in text and f"does not hold weights of {NAME}" in text


@pytest.mark.parametrize("content", [{"a": 1}, [torch.ones(1)], {}, {"state_dict": {"epoch": 3}}])
def test_a_file_without_a_state_dict_is_one_line(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError, match="holds no state dict"):
        files.read_state(tmp_path / "w.pth")


def test_equal_weights_are_equal_bytes():
    """Stages hash their inputs: a file that differs from call to call would be done again, and so all behind it."""
    state, about = {"b": torch.ones(3), "a": torch.zeros(2, 2)}, {"kind": "backbone", "labels": ["über"], "rate": 0.1}
    first = files.serialized(state, about)
    assert all(files.serialized(dict(reversed(state.items())), about) == first for _ in range(20))


@pytest.mark.parametrize("old", [False, True])
def test_a_changed_weight_or_description_is_seen(tmp_path, old):
    from safetensors.torch import save

    state, about = {"layer": torch.arange(4.0)}, {"kind": "backbone", "labels": ["cat"]}
    data = files.serialized(state, about)
    if old:  # two keys of metadata
        text = json.dumps(about)
        data = save(state, metadata={"softedge": text, files.CHECKSUM: files._digest(state, text)})
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    assert files.read_state(path)["layer"].tolist() == [0, 1, 2, 3]
    assert files.description(path)["labels"] == ["cat"]
    for changed in (data.replace(b"cat", b"dog"), data[:-4] + np.float32(7).tobytes()):
        path.write_bytes(changed)
        with pytest.raises(UserError, match="damaged: its weights do not match their checksum"):
            files.read_state(path)
