"""Backbones from weights that others trained: fetched by timm (here from a stand-in), given as a file, or missing."""

from __future__ import annotations

import pytest
import timm
import torch

from softedge import backbones, config
from softedge.cli import main
from softedge.errors import UserError
from softedge.stages.opening import reopen
from softedge.stages.pretrain import pretrain
from softedge.weights import hub

NAME = "mobilenetv3_small_050"
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def fetched(monkeypatch) -> dict[str, torch.Tensor]:
    """What timm's hub would answer: the whole published network with its 1000 classes, in the published names."""
    torch.manual_seed(5)
    network = timm.create_model(NAME, num_classes=1000)
    with torch.no_grad():
        for _ in range(3):  # statistics unlike those of a new network
            network(torch.randn(4, 3, 64, 64) + 0.5)
    state = network.state_dict()
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: dict(state))
    monkeypatch.setattr(hub, "unavailable", lambda name: "")
    return state


@pytest.fixture
def no_network(monkeypatch) -> None:
    def refuse(*_, **__):
        raise OSError("We couldn't connect to the hub to load the files\nand could not find them in the cached files")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", refuse)
    monkeypatch.setattr(hub, "unavailable", lambda name: "")


def test_imagenet_weights_are_those_that_were_fetched_without_their_classifier(fetched):
    backbone = backbones.build(config.Backbone(name=NAME, weights="imagenet"))
    own = backbone.net.state_dict()
    assert own.keys() == {key for key in fetched if not key.startswith("classifier.")}
    assert all(torch.equal(value, fetched[key]) for key, value in own.items())
    assert backbone.num_features == 1024


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_of_published_weights_gives_the_same_network(fetched, tmp_path, suffix, wrapped):
    from safetensors.torch import save_file

    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file({f"module.{key}" if wrapped else key: value for key, value in fetched.items()}, path)
    else:
        torch.save({"state_dict": fetched} if wrapped else fetched, path)
    given = backbones.build(config.Backbone(name=NAME, weights=str(path))).eval()
    downloaded = backbones.build(config.Backbone(name=NAME, weights="imagenet")).eval()
    with torch.no_grad():
        assert torch.equal(given(IMAGES), downloaded(IMAGES))


def test_a_run_starts_fine_tuning_probing_and_detectors_from_fetched_weights(fetched, toy_run):
    from softedge.eval import finetune
    from softedge.stages.base import start_files

    run, recipe = toy_run
    start = finetune.initial(run, recipe, "imagenet", seed=0)
    assert torch.equal(start.net.state_dict()["conv_stem.weight"], fetched["conv_stem.weight"])
    assert start_files(["imagenet"]) == []


def test_without_a_network_it_is_one_line_that_says_what_to_do(no_network, toy_run, capsys):
    with pytest.raises(UserError, match="timm could not fetch") as error:
        backbones.build(config.Backbone(name=NAME, weights="imagenet"))
    assert "\n" not in str(error.value) and "give a file instead" in str(error.value)
    run, _ = toy_run
    with pytest.raises(SystemExit) as ended:
        main(["finetune", str(run.root), "--init", "imagenet"])
    printed = capsys.readouterr().err
    assert ended.value.code == 2 and "timm could not fetch" in printed and "Traceback" not in printed


def test_weights_of_another_network_are_one_line(fetched, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(fetched, path)
    with pytest.raises(UserError, match="does not hold weights of mobilenetv3_small_100"):
        backbones.build(config.Backbone(name="mobilenetv3_small_100", weights=str(path)))
    path.write_bytes(b"not weights")
    with pytest.raises(UserError, match="cannot be read as weights"):
        backbones.build(config.Backbone(name=NAME, weights=str(path)))


def test_fetched_weights_behind_a_stem_for_small_images_are_refused_for_resnets(monkeypatch):
    network = timm.create_model("resnet18", num_classes=1000)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: network.state_dict())
    with pytest.raises(UserError, match="stem_stride = 2"):
        backbones.build(config.Backbone(name="resnet18", weights="imagenet", stem_stride=1))


@pytest.fixture
def toy_run(tmp_path):
    """A run of 12 coloured pictures whose pretraining was one step."""
    from PIL import Image

    for label in ("a", "b"):
        for split in ("train", "test"):
            (tmp_path / "photos" / split / label).mkdir(parents=True)
            for number in range(4):
                colour = (40 * number, 200 if label == "a" else 20, 90 if split == "test" else 10)
                path = tmp_path / "photos" / split / label / f"{number}.png"
                Image.new("RGB", (40, 40), colour).save(path)
    overrides = ["data.size=32", f"backbone.name={NAME}", "ssl.epochs=1", "ssl.batch=4", "ssl.knn_every=0"]
    pretrain(str(tmp_path / "photos"), "small-domain", tmp_path / "run", set=overrides)
    return reopen(tmp_path / "run")
