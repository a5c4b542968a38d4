"""Backbones for other frameworks, loaded back under the names that those use."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from softedge import backbones, config
from softedge.errors import UserError
from softedge.export import hooks
from softedge.records import InputSpec
from softedge.run import Run

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def trained(name: str, **settings) -> backbones.Backbone:
    """A network whose BatchNorm statistics and weights are not the initial ones, in eval mode."""
    backbone = backbones.build(config.Backbone(name=name, **settings), seed=1)
    with torch.no_grad():
        for _ in range(3):
            backbone(torch.randn(4, 3, 64, 64) + 0.3)
        for module in backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.1)
    return backbone.eval()


def run_with(folder, backbone) -> Run:
    run = Run(folder)
    run.folder("pretrain").mkdir(parents=True)
    result = {"stage": "pretrain", "name": "r", "started": "", "seconds": 0}
    for key in ("metrics", "recipe", "inputs", "environment"):
        result[key] = {}
    (run.folder("pretrain") / "result.json").write_text(json.dumps(result))
    spec = InputSpec(64, 64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    backbones.save(run.folder("pretrain") / "backbone.safetensors", backbone, spec)
    return run


class D2Conv(nn.Conv2d):
    """Detectron2's convolution: the norm is a submodule of the convolution."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs, bias=False)
        self.norm = nn.BatchNorm2d(self.out_channels)

    def forward(self, x):
        return self.norm(super().forward(x))


class D2Basic(nn.Module):
    def __init__(self, before, after, stride):
        super().__init__()
        self.shortcut = D2Conv(before, after, 1, stride) if before != after else None
        self.conv1, self.conv2 = D2Conv(before, after, 3, stride, 1), D2Conv(after, after, 3, 1, 1)

    def forward(self, x):
        y = self.conv2(self.conv1(x).relu())
        return (y + (x if self.shortcut is None else self.shortcut(x))).relu()


class D2ResNet18(nn.Module):
    """detectron2/modeling/backbone/resnet.py with depth 18: module names as there (stem.conv1, res2 to res5)."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Module()
        self.stem.conv1 = D2Conv(3, 64, 7, 2, 3)
        widths = [64, 64, 128, 256, 512]
        for i in range(4):
            first = D2Basic(widths[i], widths[i + 1], 1 if i == 0 else 2)
            self.add_module(f"res{i + 2}", nn.Sequential(first, D2Basic(widths[i + 1], widths[i + 1], 1)))

    def forward(self, x):
        x = nn.functional.max_pool2d(self.stem.conv1(x).relu(), 3, 2, 1)
        return self.res5(self.res4(self.res3(self.res2(x))))


def test_detectron2_gets_a_resnet_under_its_own_names(tmp_path):
    backbone = trained("resnet18")
    path = hooks.write(run_with(tmp_path, backbone), "detectron2")
    content = torch.load(path, weights_only=True)
    assert content["matching_heuristics"] is True
    twin = D2ResNet18().eval()
    wanted = {k for k in twin.state_dict() if "num_batches" not in k}
    assert set(content["model"]) == wanted
    twin.load_state_dict(content["model"], strict=False)
    with torch.no_grad():
        assert torch.allclose(twin(IMAGES).mean((2, 3)), backbone(IMAGES), atol=1e-5)


def test_detectron2_names_of_a_bottleneck_are_those_of_mocos_converter():
    state = hooks.to_detectron2(trained("resnet50"))["model"]
    for key in (
        "stem.conv1.weight",
        "stem.conv1.norm.running_var",
        "res2.0.shortcut.weight",
        "res2.0.shortcut.norm.bias",
        "res4.5.conv3.norm.weight",
        "res5.2.conv2.weight",
    ):
        assert key in state
    assert not any("layer" in key or "downsample" in key or "bn" in key for key in state)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_100", "mobilenetv3_large_100", "efficientnet_b0"])
def test_torchvision_loads_it_and_computes_the_same_features(tmp_path, name):
    import torchvision

    backbone = trained(name)
    path = hooks.write(run_with(tmp_path, backbone), "torchvision")
    net = torchvision.models.get_model(hooks.TORCHVISION[name], weights=None).eval()
    missing, unexpected = net.load_state_dict(torch.load(path, weights_only=True), strict=False)
    last = "fc" if name == "resnet18" else f"classifier.{len(net.classifier) - 1}"
    assert set(missing) == {f"{last}.weight", f"{last}.bias"} and not unexpected
    if name == "resnet18":
        net.fc = nn.Identity()
    else:
        net.classifier[-1] = nn.Identity()
    with torch.no_grad():
        assert torch.allclose(net(IMAGES), backbone(IMAGES), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_100"])
def test_timm_loads_it_as_a_checkpoint(tmp_path, name):
    import timm

    backbone = trained(name)
    path = hooks.write(run_with(tmp_path, backbone), "timm")
    net = timm.create_model(name, num_classes=0, checkpoint_path=str(path)).eval()
    with torch.no_grad():
        assert torch.equal(net(IMAGES), backbone(IMAGES))


def test_mmdetection_gets_resnets_under_torchvision_names_and_others_behind_timm_model(tmp_path):
    import timm
    import torchvision

    # mmdet.models.backbones.ResNet names its layers as torchvision does (conv1, bn1, layer1.0.downsample.0).
    path = hooks.write(run_with(tmp_path / "r", trained("resnet18")), "mmdetection")
    state = torch.load(path, weights_only=True)["state_dict"]
    missing, unexpected = torchvision.models.resnet18().load_state_dict(state, strict=False)
    assert missing == ["fc.weight", "fc.bias"] and not unexpected

    class TIMMBackbone(nn.Module):
        """mmpretrain/models/backbones/timm_backbone.py keeps the network in self.timm_model."""

        def __init__(self):
            super().__init__()
            self.timm_model = timm.create_model("mobilenetv3_small_100", features_only=True)

    path = hooks.write(run_with(tmp_path / "m", trained("mobilenetv3_small_100")), "mmdetection")
    missing, _ = TIMMBackbone().load_state_dict(torch.load(path, weights_only=True)["state_dict"], strict=False)
    assert not missing


@pytest.mark.parametrize(
    ("name", "framework", "settings", "line"),
    [
        ("mobilenetv3_small_100", "detectron2", {}, "Detectron2 has no mobilenetv3_small_100"),
        ("mobilenetv3_small_050", "torchvision", {}, "torchvision has no mobilenetv3_small_050"),
        ("resnet18", "detectron2", {"stem_stride": 1}, "stem for small images"),
        ("resnet18", "detectron", {}, "did you mean 'detectron2'"),
    ],
)
def test_what_another_framework_does_not_have_is_one_clear_line(tmp_path, name, framework, settings, line):
    run = run_with(tmp_path, backbones.build(config.Backbone(name=name, **settings)))
    with pytest.raises(UserError, match=line):
        hooks.write(run, framework)


def test_the_file_may_have_any_ending_and_is_no_folder(tmp_path):
    """torch writes no file whose name begins with a dot and has no other one, as a temporary file of ``backbone``."""
    run = run_with(tmp_path / "run", trained("mobilenetv3_small_050"))
    state = torch.load(hooks.write(run, "timm", tmp_path / "backbone"), weights_only=True)
    assert "conv_stem.weight" in state
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"folder is a folder; give the name of a file, such as .*folder/timm.pth"):
        hooks.write(run, "timm", tmp_path / "folder")
