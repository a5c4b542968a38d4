"""timm networks as feature extractors, and the classifier that is probed, exported and deployed.

Any timm network that turns images into one row of features each; where it starts from is ``softedge/weights/``.

Weights travel as safetensors with the settings in the file's metadata, so that a file alone rebuilds its network.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from softedge import config
from softedge.errors import UserError, first_line, quoted
from softedge.records import InputSpec
from softedge.weights import layouts, starting
from softedge.weights.checkpoints import not_finite
from softedge.weights.files import read_state as read_state
from softedge.weights.files import serialized


class Backbone(nn.Module):
    """A timm network without its classifier: normalised float (N, 3, H, W) -> pooled features (N, num_features).

    pixels: H and W of all its images, of a network that only gives features; 0: any size, as training and export need.
    """

    def __init__(self, settings: config.Backbone, pixels: int = 0):
        super().__init__()
        starting.refuse_unknown(settings.name)
        self.settings = settings
        self.net = _network(settings, pixels)
        if settings.stem_stride == 1:
            if settings.weights not in ("random", "auto") and hasattr(self.net, "maxpool"):
                raise UserError(
                    f"the weights of {settings.name} are for its own stem, not for that of small images "
                    "(backbone.stem_stride = 1); use backbone.stem_stride = 2 and larger images"
                )
            _small_image_stem(self.net, settings.name)
        self.num_features: int = _features(self.net, settings.name, pixels)
        self.net.train()

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)


def _network(settings: config.Backbone, pixels: int) -> nn.Module:
    """timm's network, for images of ``pixels`` where timm can build it so.

    Position embeddings that are interpolated fit all weights; those that are made for ``pixels``, random weights only.
    """
    import timm

    build = functools.partial(timm.create_model, settings.name, pretrained=False, num_classes=0)
    net = build()
    ways: list[dict[str, Any]] = [{"dynamic_img_size": True}]
    ways += [{"img_size": pixels}] if settings.weights == "random" else []
    while pixels and ways and not _accepts(net, pixels):
        try:
            net = build(**ways.pop(0))
        except _REFUSALS:  # it has no such option
            continue
    return net


_REFUSALS = (AssertionError, IndexError, RuntimeError, TypeError, ValueError)


def _answer(net: nn.Module, pixels: int) -> object:
    with torch.no_grad():
        return net.eval()(torch.zeros(1, 3, pixels, pixels))


def _accepts(net: nn.Module, pixels: int) -> bool:
    try:
        _answer(net, pixels)
    except _REFUSALS:
        return False
    return True


def _features(net: nn.Module, name: str, pixels: int) -> int:
    """Width of the pooled features; UserError where a network does not give one row of them for such images."""
    try:
        features = _answer(net, pixels or 64)
    except _REFUSALS as error:
        if not pixels:
            raise UserError(
                f"backbone '{name}' does not accept images of any size ({first_line(error)}); use a convolutional one, "
                f"which it can teach: softedge distill RUN --teacher {name}"
            ) from error
        own = cast(Any, net).pretrained_cfg["input_size"][-1]
        raise UserError(
            f"network '{name}' does not accept images of {pixels} pixels ({first_line(error)}); use its own: "
            f"--set distill.teacher_size={own}"
        ) from error
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise UserError(f"backbone '{name}' does not give one row of features per image; use a classification network")
    return int(features.shape[1])


def _small_image_stem(net: nn.Module, name: str) -> None:
    """Keep the resolution of 32-pixel images: stem of stride 1; ResNets also 3x3 and no max pool (SimCLR, B.9)."""
    stem: Any = getattr(net, "conv_stem", None) or getattr(net, "conv1", None)
    if not isinstance(stem, nn.Conv2d):
        raise UserError(f"backbone.stem_stride = 1: {name} has another kind of stem; use backbone.stem_stride = 2")
    if hasattr(net, "conv_stem"):
        stem.stride = (1, 1)
        return
    net.conv1 = nn.Conv2d(3, stem.out_channels, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(cast(nn.Conv2d, net.conv1).weight, mode="fan_out", nonlinearity="relu")
    net.maxpool = nn.Identity()


class Classifier(nn.Module):
    """Backbone and linear layer: (N, 3, H, W) normalised float images -> (N, classes) logits."""

    def __init__(self, backbone: Backbone, labels: tuple[str, ...], spec: InputSpec):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.num_features, len(labels))
        self.labels = labels
        self.spec = spec

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))


def build(settings: config.Backbone, seed: int = 0, pixels: int = 0) -> Backbone:
    """Build a backbone with reproducible random weights, or those that ``settings.weights`` names.

    pixels: as in ``Backbone``.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = Backbone(settings, pixels)
    starting.load_into(backbone.net, settings)
    return backbone


def refuse_misfit(settings: config.Backbone) -> None:
    """UserError, one line, where ``build`` would raise it: nothing is kept."""
    starting.refuse_misfit(Backbone(settings).net, settings)


def load_weights(backbone: Backbone, path: Path) -> None:
    """Load a softedge backbone, or a state dict in one of the layouts of ``softedge.weights``, into ``backbone``."""
    fitting, _ = layouts.fit(read_state(path), backbone.net, backbone.settings.name, str(path))
    backbone.net.load_state_dict(fitting, strict=False)


def save(path: Path, module: Backbone | Classifier, spec: InputSpec, **extra: Any) -> None:
    """Write weights and everything needed to rebuild the network, atomically; UserError when they are not finite."""
    from softedge.run import write_bytes

    backbone = module.backbone if isinstance(module, Classifier) else module
    description = {
        "kind": "classifier" if isinstance(module, Classifier) else "backbone",
        "backbone": {**backbone.settings.model_dump(mode="json"), "weights": "random"},  # they are in this file
        "spec": spec.to_dict(),
        "labels": list(module.labels) if isinstance(module, Classifier) else [],
        **extra,
    }
    state = {k: v.detach().cpu().contiguous().clone() for k, v in module.state_dict().items()}
    if broken := not_finite(state.items()):
        raise UserError(
            f"{path.name} is not written: '{broken}' holds NaN or infinite values after training; lower the learning "
            "rate, or train in fp32"
        )
    # Written by Python, which says why it cannot: safetensors' own error of a full disk has no number.
    write_bytes(path, serialized(state, description))


def describe(path: Path) -> dict[str, Any]:
    """The settings stored in a file written by ``save``."""
    from safetensors import safe_open

    if not path.is_file():
        raise UserError(f"weights file {path} does not exist")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        about = json.loads(metadata["softedge"])
        needed = ["kind", "backbone", "spec"]
        if about.get("kind") in ("backbone", "classifier"):  # a plug-in has words of its own
            needed.append("labels")
        missing = [key for key in needed if key not in about]
    except KeyError as error:
        raise UserError(
            f"{path} was not written by softedge; to export it, run: "
            f"softedge export-file {quoted(path)} --backbone NAME --images FOLDER"
        ) from error
    except Exception as error:
        raise UserError(f"{path} cannot be read as weights ({first_line(error)})") from error
    if missing:
        raise UserError(f"{path} cannot be read as weights (its description has no {missing[0]})")
    try:
        InputSpec.from_dict(about["spec"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"{path} cannot be read as weights (its preprocessing is damaged: {error})") from error
    return dict(about)


def load(path: Path) -> Backbone:
    """Rebuild the backbone stored in a backbone or classifier file, in eval mode."""
    about = describe(path)
    backbone = Backbone(config.Backbone(**about["backbone"]))
    load_weights(backbone, path)
    return backbone.eval()


def load_classifier(path: Path) -> Classifier:
    """Rebuild the classifier stored by ``save``, in eval mode."""
    about = describe(path)
    if about["kind"] != "classifier":
        raise UserError(f"{path} is a backbone without a classifier; run: softedge probe RUN")
    classifier = Classifier(
        Backbone(config.Backbone(**about["backbone"])), tuple(about["labels"]), InputSpec.from_dict(about["spec"])
    )
    classifier.load_state_dict(read_state(path))
    return classifier.eval()


def _levels(values: tuple[float, ...], width: int, device: torch.device) -> Tensor:
    """(3 * width,) ``values`` of x / 255 as levels, for every pixel of a row."""
    return (torch.tensor(values, device=device) * 255).repeat(width)


_levels_on_gpu = functools.lru_cache(maxsize=16)(_levels)  # sending them would wait for the GPU at every step


def normalise(images: Tensor, spec: InputSpec) -> Tensor:
    """uint8 (N, H, W, 3) -> normalised float32 (N, 3, H, W) in channels_last memory, on the same device."""
    # Whole rows of pixels at a time: over an axis of three channels nothing would be vectorised (4 times slower).
    levels = _levels_on_gpu if images.is_cuda else _levels
    mean, std = (levels(tuple(values), images.shape[2], images.device) for values in (spec.mean, spec.std))
    rows = images.flatten(2).to(torch.float32).sub_(mean).div_(std)
    return rows.view(images.shape).permute(0, 3, 1, 2)
