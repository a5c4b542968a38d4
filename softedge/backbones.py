"""timm networks as feature extractors, and the classifier that is probed, exported and deployed.

Weights travel as safetensors with the settings in the file's metadata, so that a file alone rebuilds its network.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from softedge import config
from softedge.errors import UserError, did_you_mean
from softedge.records import InputSpec

FAMILIES = ("mobilenetv3", "efficientnet", "tf_efficientnet", "tf_mobilenetv3", "resnet")


class Backbone(nn.Module):
    """A timm network without its classifier: normalised float (N, 3, H, W) -> pooled features (N, num_features)."""

    def __init__(self, settings: config.Backbone):
        super().__init__()
        import timm

        if not settings.name.startswith(FAMILIES) or settings.name not in timm.list_models():
            known = [n for n in timm.list_models() if n.startswith(FAMILIES)]
            raise UserError(f"unknown backbone '{settings.name}'{did_you_mean(settings.name, known)[:300]}")
        self.settings = settings
        self.net = timm.create_model(settings.name, pretrained=settings.weights == "imagenet", num_classes=0)
        if settings.stem_stride == 1:
            if settings.weights == "imagenet" and settings.name.startswith("resnet"):
                raise UserError(
                    f"the ImageNet weights of {settings.name} are for its own stem, not for that of small images "
                    "(backbone.stem_stride = 1); use backbone.stem_stride = 2 and larger images"
                )
            _small_image_stem(self.net)
        with torch.no_grad():
            self.num_features: int = self.net.eval()(torch.zeros(1, 3, 64, 64)).shape[1]
        self.net.train()

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)


def _small_image_stem(net: nn.Module) -> None:
    """Keep the resolution of 32-pixel images: stem of stride 1; ResNets also 3x3 and no max pool (SimCLR, B.9)."""
    if hasattr(net, "conv_stem"):
        cast(nn.Conv2d, net.conv_stem).stride = (1, 1)
    else:
        old = cast(nn.Conv2d, net.conv1)
        net.conv1 = nn.Conv2d(3, old.out_channels, 3, stride=1, padding=1, bias=False)
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


def build(settings: config.Backbone, seed: int = 0) -> Backbone:
    """Build a backbone with reproducible random weights, ImageNet weights from timm, or weights from a file."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            backbone = Backbone(settings)
        except UserError:
            raise
        except Exception as error:  # timm and the hub raise many kinds when the download fails
            if settings.weights != "imagenet":
                raise
            raise UserError(
                f"backbone.weights = 'imagenet': timm could not fetch {settings.name} ({type(error).__name__}); "
                "give a file instead, or use 'random'"
            ) from error
    if settings.weights not in ("random", "imagenet"):
        load_weights(backbone, Path(settings.weights))
    return backbone


def load_weights(backbone: Backbone, path: Path) -> None:
    """Load a softedge backbone, or a timm / torchvision-style state dict without its classifier, into ``backbone``."""
    state = read_state(path)
    for prefix in ("backbone.net.", "backbone.", "net.", "module.", ""):
        stripped = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        wanted = backbone.net.state_dict()
        matching = {k: v for k, v in stripped.items() if k in wanted and v.shape == wanted[k].shape}
        if matching and len(matching) == len(wanted):
            backbone.net.load_state_dict(matching)
            return
    wanted = backbone.net.state_dict()
    missing = [k for k in wanted if k not in state] or ["another shape"]
    raise UserError(
        f"{path} does not hold weights of {backbone.settings.name} (stem stride {backbone.settings.stem_stride}): "
        f"{len(missing)} of {len(wanted)} tensors do not fit, the first is '{missing[0]}'"
    )


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict without unpickling code: safetensors, or torch.load with weights_only."""
    if not path.is_file():
        raise UserError(f"weights file {path} is not there")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors and torch raise their own kinds for damaged files
        raise UserError(f"{path} cannot be read as weights ({str(error).splitlines()[0][:160]})") from error
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{path} holds no state dict (name -> tensor)")
    return dict(state)


def save(path: Path, module: Backbone | Classifier, spec: InputSpec, **extra: Any) -> None:
    """Write weights and everything needed to rebuild the network, atomically."""
    from safetensors.torch import save_file

    from softedge.run import atomic_path

    backbone = module.backbone if isinstance(module, Classifier) else module
    description = {
        "kind": "classifier" if isinstance(module, Classifier) else "backbone",
        "backbone": {**backbone.settings.model_dump(mode="json"), "weights": "random"},
        "spec": spec.to_dict(),
        "labels": list(module.labels) if isinstance(module, Classifier) else [],
        **extra,
    }
    state = {k: v.detach().cpu().contiguous().clone() for k, v in module.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata={"softedge": json.dumps(description)})


def describe(path: Path) -> dict[str, Any]:
    """The settings stored in a file written by ``save``."""
    from safetensors import safe_open

    if not path.is_file():
        raise UserError(f"weights file {path} is not there")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return json.loads(metadata["softedge"])
    except KeyError as error:
        raise UserError(
            f"{path} was not written by softedge; export it with: "
            f"softedge export-file {path} --backbone NAME --images FOLDER"
        ) from error
    except Exception as error:
        raise UserError(f"{path} cannot be read as weights ({str(error).splitlines()[0][:160]})") from error


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
