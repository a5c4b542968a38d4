"""A classifier of several linear layers: built once the user says which activation lies between them (``--head``).

Dropout has no place in it, and BatchNorm1d is folded into the linear layer before or behind it: the same function.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from softedge.errors import UserError
from softedge.progress import say
from softedge.weights.heads import between_features_and_classes, refuse_contradiction
from softedge.weights.layouts import BY_ONNX, COUNTER, Fitted, State, listed

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
    "hardswish": nn.Hardswish,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
}
NORM = "batchnorm"
_EPSILON = 1e-5  # of PyTorch's BatchNorm1d
_SHUFFLED = 4  # layers at most whose order is sought by their shapes
_OF_A_NORM = {"weight", "bias", "running_mean", "running_var", COUNTER}


@dataclass(frozen=True)
class Between:
    """What the user says lies between two linear layers.  norm_first: whether BatchNorm comes before the activation;
    None where that is not said."""

    activation: str
    norm_first: bool | None = None


def between(text: str) -> Between:
    """From what is typed: "relu" or "ReLU", and "relu,batchnorm" or "batchnorm,relu" where the weights do not say which
    comes first.  UserError for anything else."""
    known = {_plain(name): name for name in (*ACTIVATIONS, NORM)}
    words = [known.get(_plain(word), "") for word in text.split(",")]
    named = [word for word in words if word != NORM]
    if len(named) != 1 or len(words) > 2 or not named[0]:
        raise UserError(
            f"--head is '{text}'; give the activation between the linear layers of the classifier, one of "
            f"{', '.join(ACTIVATIONS)}"
        )
    return Between(named[0], None if len(words) == 1 else words[0] == NORM)


def _plain(word: str) -> str:
    return word.strip().lower().replace("_", "").replace("-", "")


def pooled(net: nn.Module) -> nn.Module:
    """A network like MobileNetV3 without the layer that timm has behind the pool: in torchvision it is the first of the
    classifier's, and goes where that is replaced."""
    parts: Any = net
    parts.conv_head, parts.act2 = nn.Identity(), nn.Identity()
    return net


def may_be_pooled(net: nn.Module) -> bool:
    return hasattr(net, "conv_head") and hasattr(net, "act2")


def width(net: nn.Module, layers: Sequence[str]) -> int:
    """Features that the classifier of ``net``, ``layers`` in it, takes."""
    parts: Any = net
    if isinstance(getattr(net, "conv_head", None), nn.Identity) or not layers:  # pooled
        return int(parts.num_features)
    return int(parts.get_submodule(layers[0]).weight.shape[1])


class Layered(nn.Module):
    """A network of features and the classifier of several layers behind it: (N, 3, H, W) -> (N, classes) logits."""

    def __init__(self, net: nn.Module, layers: Sequence[nn.Linear], activation: str):
        super().__init__()
        self.net = net
        parts: list[nn.Module] = [layers[0]]
        for layer in layers[1:]:
            parts += [ACTIVATIONS[activation](), layer]
        self.head = nn.Sequential(*parts)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.head(self.net(images))
        return scores


def like(net: nn.Module, activation: str, state: State) -> Layered:
    """A ``Layered`` around ``net`` as ``state`` was taken of, without its weights."""
    weights = {key: value for key, value in state.items() if key.startswith("head.") and key.endswith(".weight")}
    in_order = sorted(weights, key=lambda key: int(key.split(".")[1]))
    layers = [nn.Linear(weights[key].shape[1], weights[key].shape[0]) for key in in_order]
    return Layered(net, layers, activation).eval()


@dataclass(frozen=True)
class _Layer:
    """name: in the file."""

    name: str
    tensors: Mapping[str, Tensor]

    @property
    def number(self) -> int:
        """Its place in a sequence; -1 where its name has none."""
        last = self.name.rpartition(".")[2]
        return int(last) if last.isdecimal() else -1

    @property
    def linear(self) -> bool:
        return self.tensors.keys() <= {"weight", "bias"} and "weight" in self.tensors and self.weight.ndim == 2

    @property
    def norm(self) -> bool:
        return {"running_mean", "running_var"} <= self.tensors.keys() <= _OF_A_NORM

    @property
    def weight(self) -> Tensor:
        return self.tensors["weight"]

    def __str__(self) -> str:
        return f"{self.name} {' x '.join(map(str, self.weight.shape))}" if self.linear else self.name


def completed(
    fitted: Fitted, state: State, net: nn.Module, features: int, asked: Between, name: str, where: str
) -> tuple[Layered, int]:
    """``net``, which gives ``features``, with the classifier in the file behind it, and its classes.

    state: the file's.  A line says what is built.  UserError, by name, for a classifier of one layer, and where the
    file does not say what comes after what.
    """
    layers = _found(fitted, state, name, where)
    linear = [layer for layer in layers if layer.linear]
    if len(linear) < 2:
        raise UserError(
            f"the classifier in {where} has one linear layer ({listed([*map(str, linear or layers)])}), and --head "
            "says what lies between several; leave it out"
        )
    if wrong := next((layer for layer in layers if not layer.linear and not layer.norm), None):
        shapes = ", ".join(f"{leaf} {tuple(value.shape)}" for leaf, value in wrong.tensors.items())
        raise UserError(f"'{wrong.name}' in {where} is neither a linear layer nor BatchNorm1d ({shapes}); {BY_ONNX}")
    linear = _in_order(linear, features, where)
    norms = _norms([layer for layer in layers if layer.norm], linear, asked, where)
    _refuse_adjacent(linear, where)
    words, built = [], [[layer.weight.double(), _bias(layer)] for layer in linear]
    for place, layer in enumerate(linear):
        lies = [asked.activation] if place else []
        if norm := norms.get(place):
            first = place > 0 and _norm_first(linear[place - 1], norm, layer, asked, where)
            lies.insert(0 if first else 1, norm.name)
            weight, bias = built[place - first]
            scale, shift = _scale_and_shift(norm, layer.weight.shape[1], where)
            built[place - first] = (
                [weight * scale[:, None], bias * scale + shift] if first else [weight * scale, bias + weight @ shift]
            )
        words += [*lies, str(layer)]
    folded = f"; BatchNorm is folded with eps = {_EPSILON:g}, PyTorch's own: the file does not say it" if norms else ""
    say(f"weights: the classifier in {where} is {', '.join(words)}, as --head says; dropout does nothing here{folded}")
    modules = [_module(weight, bias) for weight, bias in built]
    net.load_state_dict(fitted.tensors, strict=False)  # counters of BatchNorm batches may be absent
    return Layered(net, modules, asked.activation).eval(), modules[-1].out_features


def _found(fitted: Fitted, state: State, name: str, where: str) -> list[_Layer]:
    """The layers of the classifier, and those beside the network."""
    if fitted.own:
        own = listed(sorted({key.rpartition(".")[0] for key in fitted.own}))
        raise UserError(
            f"the classifier in {where} is that of {name} itself ('{own}'), and --head says what lies between several "
            "linear layers; leave it out"
        )
    given: dict[str, dict[str, Tensor]] = {layer: dict(tensors) for layer, tensors in fitted.heads.items()}
    for key in between_features_and_classes(fitted):
        given.setdefault(key.rpartition(".")[0], {})[key.rpartition(".")[2]] = state[key]
    if not given:
        raise UserError(f"{where} has no classifier, and --head says what lies between its layers; leave it out")
    for layer, tensors in given.items():
        refuse_contradiction({f"{layer}.{leaf}": value for leaf, value in tensors.items()}, where)
    if len({layer.rpartition(".")[0] for layer in given}) > 1:
        raise UserError(
            f"{where} has layers of a classifier in several places ({listed(list(given))}), and does not say in which "
            f"order; {BY_ONNX}"
        )
    return [_Layer(layer, tensors) for layer, tensors in given.items()]


def _in_order(linear: list[_Layer], features: int, where: str) -> list[_Layer]:
    """As their numbers say, ``2`` or ``fc2``, else as their shapes do; UserError where those contradict it."""
    ends = [re.fullmatch(r"(.*?)(\d+)", layer.name) for layer in linear]
    orders: list[Sequence[_Layer]]
    numbered = ends[0] is not None and len({end[1] if end else None for end in ends}) == 1
    if numbered:
        orders = [sorted(linear, key=lambda layer: int(layer.name.removeprefix(ends[0][1])))]  # type: ignore[index]
    else:
        orders = list(itertools.permutations(linear[:_SHUFFLED])) if len(linear) <= _SHUFFLED else [linear]
    orders = [order for order in orders if _follow(order, features)]
    if len(orders) != 1:
        how = "follow each other in several orders" if orders else "do not follow each other"
        raise UserError(
            f"the layers of the classifier in {where} ({listed([*map(str, linear)])}) {how} behind {features} features "
            f"of the network; {BY_ONNX}"
        )
    if not numbered and (fewer := _without_some(orders[0], features)):
        left = [str(layer) for layer in linear if layer.name not in {kept.name for kept in fewer}]
        raise UserError(
            f"{where} does not say whether {listed(left)} lies between the features and the classes, as "
            f"{listed([*map(str, fewer)])} would do without; {BY_ONNX}"
        )
    return list(orders[0])


def _without_some(linear: Sequence[_Layer], features: int) -> Sequence[_Layer]:
    """Fewer of the layers that lead from the features to as many classes; () where all of them are needed for that.

    A layer of as many outputs as inputs fits in anywhere: a projector or a gate of the training may be no part of it.
    """
    classes = len(linear[-1].weight)
    some = (order for count in range(len(linear) - 1, 0, -1) for order in itertools.combinations(linear, count))
    return next((order for order in some if len(order[-1].weight) == classes and _follow(order, features)), ())


def _follow(linear: Sequence[_Layer], features: int) -> bool:
    widths = [features, *(len(layer.weight) for layer in linear)]
    return all(layer.weight.shape[1] == width for layer, width in zip(linear, widths))


def _norms(found: list[_Layer], linear: Sequence[_Layer], asked: Between, where: str) -> dict[int, _Layer]:
    """Place of the linear layer -> the norm before it; UserError where names or number leave that open."""
    if not found and asked.norm_first is not None:
        raise UserError(f"the classifier in {where} has no {NORM}; give --head {asked.activation}")
    numbers = [layer.number for layer in linear]
    norms: dict[int, _Layer] = {}
    for norm in found:
        place = sum(number < norm.number for number in numbers)
        if min(*numbers, norm.number) < 0 or place == len(linear) or place in norms:
            names = listed([*map(str, (*linear, *found))])
            raise UserError(f"{where} does not say where BatchNorm lies in its classifier ({names}); {BY_ONNX}")
        norms[place] = norm
    if 0 in norms and numbers[0] - norms[0].number > 1:
        raise UserError(f"{where} does not say what lies between {norms[0].name} and {linear[0].name}; {BY_ONNX}")
    return norms


def _norm_first(before: _Layer, norm: _Layer, layer: _Layer, asked: Between, where: str) -> bool:
    """Whether the norm comes before the activation: that has a number of its own, as dropout does."""
    room = {True: layer.number - norm.number > 1, False: norm.number - before.number > 1}  # behind it, before it
    if all(room.values()) and asked.norm_first is None:
        raise UserError(
            f"{where} does not say whether {norm.name}, a BatchNorm, comes before or behind the activation; give "
            f"--head {NORM},{asked.activation} or {asked.activation},{NORM}"
        )
    first = room[True] if asked.norm_first is None else asked.norm_first
    if not room[first]:
        raise UserError(
            f"{where} has no place for the activation {'behind' if first else 'before'} {norm.name}, between "
            f"{before.name} and {layer.name}; {BY_ONNX}"
        )
    return first


def _refuse_adjacent(linear: Sequence[_Layer], where: str) -> None:
    """UserError where the numbers of two linear layers leave no place between them.

    In a Sequential nothing is there; a ModuleList numbers its layers so, whatever its network does between them.
    """
    gaps = {place: b.number - a.number for place, (a, b) in enumerate(itertools.pairwise(linear), 1)}
    near = [place for place, gap in gaps.items() if gap == 1 and linear[0].number >= 0]
    if not near:
        return
    names = f"{linear[near[0] - 1].name} and {linear[near[0]].name}"
    if len(near) < len(gaps):
        raise UserError(f"{where} has nothing between {names}; {BY_ONNX}")
    raise UserError(
        f"{where} does not say whether anything lies between {names}: in a Sequential nothing does, in a ModuleList an "
        f"activation may; {BY_ONNX}"
    )


def _bias(layer: _Layer) -> Tensor:
    return layer.tensors.get("bias", torch.zeros(len(layer.weight))).double()


def _scale_and_shift(norm: _Layer, width: int, where: str) -> tuple[Tensor, Tensor]:
    """Of y = scale x + shift, which BatchNorm is in evaluation."""
    if wrong := [leaf for leaf, value in norm.tensors.items() if leaf != COUNTER and value.shape != (width,)]:
        shape = tuple(norm.tensors[wrong[0]].shape)
        raise UserError(f"{norm.name}.{wrong[0]} in {where} has shape {shape}, and there are {width} values there")
    mean, variance = (norm.tensors[f"running_{leaf}"].double() for leaf in ("mean", "var"))
    scale = norm.tensors.get("weight", torch.ones(width)).double() / (variance + _EPSILON).sqrt()
    return scale, norm.tensors.get("bias", torch.zeros(width)).double() - mean * scale


def _module(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer
