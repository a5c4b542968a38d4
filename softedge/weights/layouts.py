"""Other libraries' names for the tensors of timm's networks, and the check that every tensor is used."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from softedge.errors import UserError

State = Mapping[str, Tensor]

TORCHVISION = {  # timm's name -> torchvision's, where the two are the same network
    "mobilenetv2_100": "mobilenet_v2",
    "mobilenetv3_small_100": "mobilenet_v3_small",
    "mobilenetv3_large_100": "mobilenet_v3_large",
    **{f"efficientnet_b{i}": f"efficientnet_b{i}" for i in range(5)},
    **{f"resnet{n}": f"resnet{n}" for n in (18, 34, 50, 101, 152)},
}
_INSIDE = ("backbone.net.", "backbone.", "net.", "encoder.", "")  # where a classifier keeps its backbone
_HEADS = ("head", "fc", "classifier", "last_linear")
_COUNTER = "num_batches_tracked"  # says nothing about the function, and old files do not have it


def fit(state: State, net: nn.Module, name: str, where: str) -> tuple[dict[str, Tensor], list[str]]:
    """Rename ``state`` for ``net`` (timm's ``name`` without its classifier).

    Returns the tensors by the network's own names, and the names of a classifier that is left off.
    where: the file, for messages.
    UserError, one line, when a tensor is missing, has another shape, or has no place in the network.
    """
    fitting, head = fit_with_head(state, net, name, where)
    return fitting, list(head)


def fit_with_head(state: State, net: nn.Module, name: str, where: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """``fit``, with the tensors of the classifier that is left off."""
    wanted = net.state_dict()
    best: tuple[int, str] | None = None
    for candidate, left_over in _candidates(state, net, name):
        fitting = {k: v for k, v in candidate.items() if k in wanted and v.shape == wanted[k].shape}
        wrong = [k for k in wanted if k not in fitting and not k.endswith(_COUNTER)]
        outside = [k for k in candidate if k not in wanted]
        heads = [k for k in (*outside, *left_over) if _is_head(k, net)]
        strangers = [k for k in (*outside, *left_over) if k not in heads]
        if not wrong and not strangers:
            return fitting, {k: candidate[k] if k in candidate else state[k] for k in heads}
        if best is None or len(fitting) > best[0]:
            best = len(fitting), _misfit(wrong, strangers, candidate, wanted)
    assert best is not None  # the names as they are, are always a candidate
    raise UserError(f"{where} does not hold weights of {name}: {best[1]}")


def _misfit(wrong: list[str], strangers: list[str], state: State, wanted: State) -> str:
    if not wrong:
        return f"{len(strangers)} of its tensors have no place in the network, the first is '{strangers[0]}'"
    first = wrong[0]
    there = f"of shape {tuple(state[first].shape)} in the file" if first in state else "not in the file"
    if first not in state and strangers:
        there += f" (which has '{strangers[0]}')"
    return (
        f"{len(wrong)} of {len(wanted)} tensors do not fit, the first is '{first}', {there} "
        f"and {tuple(wanted[first].shape)} in the network"
    )


def _is_head(key: str, net: nn.Module) -> bool:
    settings: Any = getattr(net, "pretrained_cfg", None) or {}
    names = settings.get("classifier") or ()
    known = (*_HEADS, *((names,) if isinstance(names, str) else names))
    return key.rpartition(".")[0] in known and key.rpartition(".")[2] in ("weight", "bias")


def _candidates(state: State, net: nn.Module, name: str) -> list[tuple[State, list[str]]]:
    """Readings of the names, the likeliest first: (renamed tensors, names that stay outside of the backbone)."""
    readings: list[tuple[State, list[str]]] = []
    if "_conv_stem.weight" in state and name.startswith("tf_efficientnet"):
        # Only for timm's tf_ networks: the others pad in another way and would be silently worse.
        readings.append((from_efficientnet_pytorch(state, net), []))
    elif name in TORCHVISION and "features.0.0.weight" in state:
        renamed = from_torchvision(state, net, name)
        if renamed is not None:
            readings.append((renamed, []))
    for prefix in _INSIDE:
        inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if inner:
            readings.append((inner, [k for k in state if not k.startswith(prefix)]))
    return readings


_TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_INVERTED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}


def from_efficientnet_pytorch(state: State, net: nn.Module) -> dict[str, Tensor]:
    """Names of efficientnet-pytorch and EfficientNet-Lite (``_blocks.3._expand_conv.weight``) -> timm's.

    Blocks are numbered through there, and by stage in timm.
    """
    stages: Any = net.blocks
    places = [f"blocks.{s}.{b}" for s, stage in enumerate(stages) for b in range(len(stage))]
    renamed = {}
    for key, value in state.items():
        block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
        if block and int(block[1]) < len(places):
            expands = f"_blocks.{block[1]}._expand_conv.weight" in state
            layers = {**(_INVERTED if expands else _SEPARABLE), **_SQUEEZE}
            renamed[f"{places[int(block[1])]}.{layers.get(block[2], block[2])}.{block[3]}"] = value
        else:
            layer, _, rest = key.partition(".")
            renamed[f"{_TOP.get(layer, layer)}.{rest}"] = value
    return renamed


def from_torchvision(state: State, net: nn.Module, name: str) -> dict[str, Tensor] | None:
    """torchvision's names -> timm's, or None when the names are not those of torchvision's network.

    Both define the same layers in the same order. Where torchvision adds another epsilon to BatchNorm's variance
    (MobileNetV3: 1e-3, timm 1e-5), the weight is scaled so that the network computes the same in eval mode.
    """
    import torchvision

    with torch.device("meta"):
        theirs = torchvision.models.get_model(TORCHVISION[name], weights=None)
    last = [n for n, module in theirs.named_modules() if isinstance(module, nn.Linear)][-1]
    head = {f"{last}.weight", f"{last}.bias"}
    keys = [k for k in theirs.state_dict() if k not in head and not k.endswith(_COUNTER)]
    ours = {k: v for k, v in net.state_dict().items() if not k.endswith(_COUNTER)}
    given = {k for k in state if not k.endswith(_COUNTER)}
    if not set(keys) <= given or len(keys) != len(ours):
        return None
    renamed = {}
    for their_key, (key, tensor) in zip(keys, ours.items()):
        value = state[their_key]
        renamed[key] = value.reshape(tensor.shape) if value.numel() == tensor.numel() else value
    for (_, theirs_norm), (prefix, own) in zip(norms(theirs), norms(net)):
        if theirs_norm.eps != own.eps:
            variance = renamed[f"{prefix}.running_var"]
            scale = ((variance + own.eps) / (variance + theirs_norm.eps)).sqrt()
            renamed[f"{prefix}.weight"] = renamed[f"{prefix}.weight"] * scale
    for key in given - set(keys):
        renamed[f"classifier.{key.rpartition('.')[2]}" if key in head else key] = state[key]
    return renamed


def norms(net: nn.Module) -> list[tuple[str, nn.BatchNorm2d]]:
    """The BatchNorm layers by name, in the order of the network."""
    return [(name, module) for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)]
