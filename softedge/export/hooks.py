"""The pretrained backbone for those who train elsewhere: timm, torchvision, Detectron2, MMDetection.

Each file is a plain dictionary of tensors that ``torch.load(..., weights_only=True)`` reads; nothing in it runs code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from softedge import backbones
from softedge.backbones import Backbone
from softedge.errors import UserError, did_you_mean
from softedge.run import Run, atomic_path
from softedge.weights.layouts import TORCHVISION, norms

State = dict[str, Tensor]

_DETECTRON2 = ("resnet18", "resnet34", "resnet50", "resnet101")


def write(run: Run, framework: str, out: Path | None = None) -> Path:
    """Write ``hooks/<framework>.pth`` of a run's pretrained backbone (or ``out``); returns the path.

    framework: timm, torchvision, detectron2 or mmdetection.  UserError when it has no such network.
    """
    if framework not in FRAMEWORKS:
        raise UserError(f"unknown framework '{framework}'{did_you_mean(framework, tuple(FRAMEWORKS))}")
    run.need("pretrain", "pretrain")
    backbone = backbones.load(run.folder("pretrain") / "backbone.safetensors")
    path = out or run.root / "hooks" / f"{framework}.pth"
    content = FRAMEWORKS[framework](backbone)
    if path.is_dir():
        raise UserError(f"--out {path} is a folder; give the name of a file, such as {path / framework}.pth")
    with atomic_path(path) as temporary, open(temporary, "wb") as file:  # torch refuses names without an ending
        torch.save(content, file)
    return path


def to_timm(backbone: Backbone) -> State:
    """For ``timm.create_model(name, num_classes=0, checkpoint_path=...)``, or features_only with strict=False."""
    return _copied(backbone.net.state_dict())


def to_torchvision(backbone: Backbone) -> State:
    """For ``torchvision.models.<name>().load_state_dict(..., strict=False)``: all but the last linear layer.

    Both libraries define the same layers in the same order. Where torchvision's BatchNorm adds another epsilon to the
    variance (MobileNetV3: 1e-3, timm 1e-5), its weight is scaled so that the network computes the same in eval mode.
    """
    net = _torchvision_network(backbone)
    wanted = [(k, v) for k, v in net.state_dict().items() if k not in _last_linear(net)]
    ours = list(backbone.net.state_dict().values())
    if len(wanted) != len(ours) or any(a.numel() != b.numel() for (_, a), b in zip(wanted, ours)):
        raise UserError(f"{backbone.settings.name}: torchvision {_torchvision_version()} has other layers than timm's")
    state = _copied({key: ours.reshape(theirs.shape) for (key, theirs), ours in zip(wanted, ours)})
    for (name, theirs), (_, mine) in zip(norms(net), norms(backbone.net)):
        if theirs.eps != mine.eps:
            variance = state[f"{name}.running_var"]
            state[f"{name}.weight"] *= ((variance + theirs.eps) / (variance + mine.eps)).sqrt()
    return state


def to_detectron2(backbone: Backbone) -> dict[str, Any]:
    """For ``MODEL.WEIGHTS`` of a ResNet in Detectron2, with C4 (res5 goes to the head) or FPN.

    Names end like its own (``stem.conv1.weight``, ``res2.0.conv1.norm.weight``); its checkpointer puts ``backbone.`` or
    ``backbone.bottom_up.`` before them by matching. Set PIXEL_MEAN and PIXEL_STD (RGB) to those of the data,
    INPUT.FORMAT to RGB, RESNETS.DEPTH to the network's, RESNETS.NORM to BN or SyncBN, RESNETS.STRIDE_IN_1X1 to False,
    and RESNETS.RES2_OUT_CHANNELS to 64 for ResNet-18 and -34, which Detectron2 asks for.
    """
    name = backbone.settings.name
    _ordinary_stem(backbone)
    if name not in _DETECTRON2:
        raise UserError(f"Detectron2 has no {name}, only {', '.join(_DETECTRON2)}; use mmdetection or timm")
    state = {_detectron2_name(k): v for k, v in backbone.net.state_dict().items() if "num_batches" not in k}
    return {"model": _copied(state), "__author__": "softedge", "matching_heuristics": True}


def _detectron2_name(name: str) -> str:
    """timm's ``layer1.0.bn1.weight`` -> ``res2.0.conv1.norm.weight``."""
    for stage in range(1, 5):
        name = name.replace(f"layer{stage}.", f"res{stage + 1}.")
    for number in range(1, 4):
        name = name.replace(f"bn{number}.", f"conv{number}.norm.")
    name = name.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
    return name if name.startswith("res") else f"stem.{name}"


def to_mmdetection(backbone: Backbone) -> dict[str, Any]:
    """For ``init_cfg=dict(type='Pretrained', checkpoint=...)`` of a backbone in MMDetection.

    ResNets: for its own ``ResNet`` (style 'pytorch').  Others: for ``mmpretrain.TIMMBackbone`` with features_only,
    whose keys begin with ``timm_model.``.
    """
    name = backbone.settings.name
    state = backbone.net.state_dict()
    if name.startswith("resnet"):
        _ordinary_stem(backbone)
    else:
        state = {f"timm_model.{k}": v for k, v in state.items()}
    return {"state_dict": _copied(state), "meta": {"backbone": name, "author": "softedge"}}


FRAMEWORKS: dict[str, Callable[[Backbone], Mapping[str, Any]]] = {
    "timm": to_timm,
    "torchvision": to_torchvision,
    "detectron2": to_detectron2,
    "mmdetection": to_mmdetection,
}


def _copied(state: Mapping[str, Tensor]) -> State:
    return {key: tensor.detach().cpu().contiguous().clone() for key, tensor in state.items()}


def _ordinary_stem(backbone: Backbone) -> None:
    if backbone.settings.stem_stride == 1:
        raise UserError(
            f"{backbone.settings.name} was pretrained with a stem for small images (backbone.stem_stride = 1), which "
            "no other framework has; pretrain it with backbone.stem_stride = 2, or use timm's file with your own stem"
        )


def _torchvision_network(backbone: Backbone) -> nn.Module:
    import torchvision

    name = backbone.settings.name
    if name.startswith("resnet"):
        _ordinary_stem(backbone)
    if name not in TORCHVISION:
        raise UserError(f"torchvision has no {name}; it has {', '.join(TORCHVISION)}; use timm's file instead")
    return torchvision.models.get_model(TORCHVISION[name], weights=None)


def _torchvision_version() -> str:
    from importlib.metadata import version

    return version("torchvision")


def _last_linear(net: nn.Module) -> set[str]:
    """The keys of the classifier's last layer, which a pretrained backbone does not have."""
    name = [name for name, module in net.named_modules() if isinstance(module, nn.Linear)][-1]
    return {f"{name}.weight", f"{name}.bias"}
