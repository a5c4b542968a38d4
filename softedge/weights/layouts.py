"""Other libraries' names for the tensors of timm's networks, and the check that every tensor is used."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from softedge.errors import UserError
from softedge.progress import say

State = Mapping[str, Tensor]

TORCHVISION = {  # timm's name -> torchvision's, where the two are the same network
    "mobilenetv2_100": "mobilenet_v2",
    "mobilenetv3_small_100": "mobilenet_v3_small",
    "mobilenetv3_large_100": "mobilenet_v3_large",
    **{f"efficientnet_b{i}": f"efficientnet_b{i}" for i in range(5)},
    **{f"resnet{n}": f"resnet{n}" for n in (18, 34, 50, 101, 152)},
}
_INSIDE = ("backbone.net.", "backbone.", "net.", "encoder.", "")  # where a classifier keeps its backbone
HEADS = ("head", "fc", "classifier", "last_linear")
BY_ONNX = "export the network to ONNX in PyTorch and give that file to softedge quantize, or use --output features"
SAY = f"say which activation with --head, such as --head relu, or {BY_ONNX}"
GREY = (0.299, 0.587, 0.114)  # parts of red, green and blue (ITU-R 601), as in Pillow
COUNTER = "num_batches_tracked"  # says nothing about the function, and old files do not have it


@dataclass(frozen=True)
class Fitted:
    """tensors: of the network without its classifier, by its own names.  own: of its own classifier, by its names.

    heads: of other classifiers, name in the file -> tensors by "weight" and "bias".  outside: names in the file that
    are not under ``prefix``, as the network's are, and belong to no classifier: nothing uses them.  grey: whether the
    weights are for images of one channel (``for_grey``).
    """

    tensors: dict[str, Tensor]
    own: dict[str, Tensor]
    heads: dict[str, dict[str, Tensor]]
    outside: list[str]
    prefix: str
    grey: bool = False

    def names(self) -> list[str]:
        """Of all tensors of classifiers."""
        return [*self.own, *(f"{head}.{leaf}" for head, given in self.heads.items() for leaf in given)]

    def left_out(self, where: str) -> None:
        """Say which tensors beside the network nothing uses, and whether photos become grey."""
        if self.grey:
            say(f"weights: {where} is for grey images: {' + '.join(map('{:g} {}'.format, GREY, 'RGB'))} of photos")
        if self.outside:
            is_are = "is" if len(self.outside) == 1 else "are"
            say(f"weights: {listed(self.outside)} in {where} {is_are} outside of '{self.prefix}' and left out")


def fit(state: State, net: nn.Module, name: str, where: str) -> tuple[dict[str, Tensor], list[str]]:
    """Rename ``state`` for ``net`` (timm's ``name`` without its classifier).

    Returns the tensors by the network's own names, and the names of a classifier that is left off. A line says which
    tensors lie beside the network (``loss.weight`` beside ``model.*``).
    where: the file, for messages.
    UserError, one line, when a tensor is missing, has another shape, or has no place in the network.
    """
    fitted = fit_with_head(state, net, name, where, layered=True)
    fitted.left_out(where)
    return fitted.tensors, fitted.names()


def fit_with_head(
    state: State, net: nn.Module, name: str, where: str, own: Collection[str] = (), layered: bool = False
) -> Fitted:
    """``fit``, with the tensors of every classifier and those outside.

    own: names of the network's own classifier, where it is more than the layers that timm gives as ``classifier``.
    layered: whether a classifier may have other layers between linear ones, such as norms.
    """
    wanted = net.state_dict()
    best: tuple[int, str] | None = None
    for reading in _readings(state, net, name):
        inner, grey = for_grey(reading.inner, wanted, net)
        fitting = {k: v for k, v in inner.items() if k in wanted and v.shape == wanted[k].shape}
        wrong = [k for k in wanted if k not in fitting and not k.endswith(COUNTER)]
        found = [k for k in inner if k not in wanted]
        ours = [k for k in found if k in own or _is_of(k, classifiers(net))]
        beside = {k: k.removeprefix(reading.outer) for k in state if not k.startswith(reading.prefix)}
        unclaimed = {k: inner[k] for k in found if k not in ours}
        others = {reading.prefix + k: inner[k] for k in _of_heads(unclaimed, (*HEADS, *classifiers(net)), layered)}
        strangers = [k for k in found if k not in ours and reading.prefix + k not in others]
        shorts = {short: state[k] for k, short in beside.items()}
        there = _of_heads(shorts, (*HEADS, *classifiers(net)), layered)
        others |= {k: state[k] for k, short in beside.items() if short in there}
        outside = [k for k in beside if k not in others]
        if not wrong and not strangers:
            _refuse_two(outside, [k for k in wanted if not k.endswith(COUNTER)], reading.prefix, name, where)
            heads: dict[str, dict[str, Tensor]] = {}
            for key, value in others.items():
                heads.setdefault(key.rpartition(".")[0], {})[key.rpartition(".")[2]] = value
            return Fitted(fitting, {k: inner[k] for k in ours}, heads, outside, reading.prefix, grey)
        if best is None or len(fitting) > best[0]:
            rest = f"; outside of '{reading.prefix}' it has {listed(outside)}" if outside else ""
            best = len(fitting), _misfit(wrong, strangers, inner, wanted) + rest
    assert best is not None  # the names as they are, are always a reading
    raise UserError(f"{where} does not hold weights of {name}: {best[1]}")


def for_grey(state: State, wanted: State, net: nn.Module) -> tuple[State, bool]:
    """``state`` for photos in colour where its first convolution takes one channel, and whether it did.

    With one mean and one std for all channels, the network of the result answers to a photo as the given one answers to
    its grey levels, unrounded: those are a sum over channels, and so is a convolution.
    """
    first = _named(net, "first_conv")
    keys = [f"{layer}.weight" for layer in first if f"{layer}.weight" in state and f"{layer}.weight" in wanted]
    shapes = [(tuple(state[key].shape), tuple(wanted[key].shape)) for key in keys]
    if not keys or any(given != (out, 1, *rest) or into != 3 for given, (out, into, *rest) in shapes):
        return state, False
    parts = torch.tensor(GREY).reshape(1, 3, 1, 1)
    return {**state, **{key: state[key] * parts.to(state[key].dtype) for key in keys}}, True


def _refuse_two(outside: list[str], wanted: list[str], prefix: str, name: str, where: str) -> None:
    """UserError where another copy of the network lies beside it: nobody says which of them is meant."""
    there = set(outside)
    for first in (k for k in outside if k.endswith(f".{wanted[0]}")):
        other = first.removesuffix(wanted[0])
        if all(other + key in there for key in wanted):
            raise UserError(
                f"{where} holds two networks {name}, '{prefix}' and '{other}'; save the state_dict of one of them alone"
            )


def _misfit(wrong: list[str], strangers: list[str], state: State, wanted: State) -> str:
    if not wrong:
        inside = all(key.startswith(tuple(f"{head}." for head in HEADS)) for key in strangers)
        several = sum(state[key].ndim == 2 for key in strangers) > 1
        what = f"; of a classifier of several layers, {SAY if several else BY_ONNX}" if inside else ""
        return f"{len(strangers)} of its tensors have no place in the network, the first is '{strangers[0]}'{what}"
    first = wrong[0]
    there = f"of shape {tuple(state[first].shape)} in the file" if first in state else "not in the file"
    if first not in state and strangers:
        there += f" (which has '{strangers[0]}')"
    return (
        f"{len(wrong)} of {len(wanted)} tensors do not fit, the first is '{first}', {there} "
        f"and {tuple(wanted[first].shape)} in the network"
    )


def listed(names: Sequence[str], at_most: int = 4) -> str:
    rest = len(names) - at_most
    return ", ".join(names[:at_most]) + (f" and {rest} more" if rest > 0 else "")


def classifiers(net: nn.Module) -> tuple[str, ...]:
    """The layers of the network's own classifier, as timm names them: one, two where it was distilled."""
    return _named(net, "classifier")


def _named(net: nn.Module, what: str) -> tuple[str, ...]:
    settings: Any = getattr(net, "pretrained_cfg", None) or {}
    names = settings.get(what) or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _is_of(key: str, layers: Sequence[str]) -> bool:
    return key.rpartition(".")[0] in layers and key.rpartition(".")[2] in ("weight", "bias")


def _of_heads(state: State, layers: Sequence[str], layered: bool) -> list[str]:
    """The names of classifiers: ``head.weight``, and of sequences of linear layers alone (``head.0.weight``).

    A norm in such a sequence may be that of the features: it is left to be refused by name, but for ``layered`` ones.
    """
    found = {key for key in state if _is_of(key, layers)}
    for layer in layers:
        inside = {key: value for key, value in state.items() if key.startswith(f"{layer}.") and key not in found}
        weights = [key for key, value in inside.items() if key.endswith(".weight") and value.ndim == 2]
        if layered and weights:
            found |= inside.keys()
        elif {key.rpartition(".")[0] for key in inside} == {key.rpartition(".")[0] for key in weights}:
            found |= {key for key in inside if key.rpartition(".")[2] in ("weight", "bias")}
    return [key for key in state if key in found]  # in the order of the file


@dataclass(frozen=True)
class _Reading:
    """inner: tensors under ``prefix``, renamed.  outer: its beginning, which many names in the file carry."""

    inner: State
    prefix: str = ""
    outer: str = ""


def _readings(state: State, net: nn.Module, name: str) -> Iterator[_Reading]:
    """Readings of the names, the likeliest first."""
    for outer in ("", *_carried_by_many(state)):
        below = {k.removeprefix(outer): v for k, v in state.items() if k.startswith(outer)}
        if (renamed := _translated(below, net, name.partition(".")[0])) is not None:
            yield _Reading(renamed, outer, outer)
        for inside in _INSIDE:
            if inner := {k.removeprefix(inside): v for k, v in below.items() if k.startswith(inside)}:
                yield _Reading(inner, outer + inside, outer)


def _carried_by_many(state: State) -> list[str]:
    """Prefixes that a third of the names carry, the commonest and shortest first: ``model.`` in Lightning.

    Not more than a third, since an average of the network beside it (``ema.module.``) has as many names.
    """
    counts: Counter[str] = Counter()
    for key in state:
        parts = key.split(".")
        counts.update(".".join(parts[:depth]) + "." for depth in range(1, len(parts)))
    return [prefix for prefix, count in counts.most_common() if 3 * count > len(state)]


def _translated(state: State, net: nn.Module, architecture: str) -> State | None:
    """With timm's names, where the names are those of another library; None for others."""
    renamed = None
    if "_conv_stem.weight" in state and architecture.startswith("tf_efficientnet"):
        # Only for timm's tf_ networks: the others pad in another way and would be silently worse.
        renamed = from_efficientnet_pytorch(state, net)
    elif architecture in TORCHVISION and "features.0.0.weight" in state:
        renamed = from_torchvision(state, net, architecture)
    counted = [k for k in state if not k.endswith(COUNTER)]
    if renamed is not None and len([k for k in renamed if not k.endswith(COUNTER)]) < len(counted):
        return None  # two names became one: the file has a tensor of each library
    return renamed


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
    keys = [k for k in theirs.state_dict() if k not in head and not k.endswith(COUNTER)]
    ours = {k: v for k, v in net.state_dict().items() if not k.endswith(COUNTER)}
    given = {k for k in state if not k.endswith(COUNTER)}
    if len(keys) > len(ours):  # the network has lost the layer that is the classifier's in torchvision
        keys = [k for k in keys if not k.startswith("classifier.")]
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
    given -= set(keys)
    others = [key for key in state if key in given]  # in the order of the file
    if any(key.startswith(f"{last.rpartition('.')[0]}.") for key in others if key not in head):
        head = set()  # a sequence of other layers has taken the place of theirs: its first one is no classifier
    for key in others:
        renamed[f"{classifiers(net)[0]}.{key.rpartition('.')[2]}" if key in head else key] = state[key]
    return renamed


def norms(net: nn.Module) -> list[tuple[str, nn.BatchNorm2d]]:
    """The BatchNorm layers by name, in the order of the network."""
    return [(name, module) for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)]
