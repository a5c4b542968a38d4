"""Which classifier in a weights file is that of the network: its own, or the only one that is there."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Mapping

from torch import Tensor, nn

from softedge.errors import UserError
from softedge.progress import say
from softedge.weights.layouts import BY_ONNX, COUNTER, HEADS, SAY, Fitted, listed

_OF_TRAINING = re.compile(r"loss|criteri|metric", re.IGNORECASE)  # in a name: not between features and classes
_ELSE = "use --output features, or"


def own_names(full: nn.Module, net: nn.Module) -> set[str]:
    """The names of the tensors that ``full`` has and ``net``, the same network without its classifier, has not."""
    return full.state_dict().keys() - net.state_dict().keys()


def completed(
    fitted: Fitted, build: Callable[[int], nn.Module], layers: tuple[str, ...], name: str, where: str
) -> tuple[nn.Module, int] | None:
    """The network with its weights and the classifier in the file, and its classes; None where the file has none.

    build: timm's network ``name`` for a number of classes.  layers: of its own classifier.
    The network's own classifier comes first, and a line names others that are left out. UserError, by name, for several
    of which none is its own, for one that is incomplete or has other shapes, and where it cannot be told whether a
    tensor that is left out belongs to the classifier.
    """
    given = fitted.own
    for head, tensors in fitted.heads.items():
        if given:
            names = listed([f"{head}.{leaf}" for leaf in tensors])
            own = listed(sorted({key.rpartition(".")[0] for key in given}))
            say(f"weights: {names} in {where} are left out: '{own}' is the classifier of {name} itself")
    if not given:
        _refuse_unclear(fitted, layers, name, where)
        if not fitted.heads:
            return None
        ((head, tensors),) = fitted.heads.items()
        there = {f"{head}.{leaf}": value for leaf, value in tensors.items()}
        if tensors.get("weight") is None or tensors["weight"].ndim != 2:
            raise UserError(_incomplete(there, where))
        refuse_contradiction(there, where)
        layer = layers[0] if layers else head
        given = {f"{layer}.{leaf}": value for leaf, value in tensors.items()}
    weights = _weights(given, layers)
    if not weights:
        raise UserError(_incomplete(given, where))
    refuse_contradiction(given, where)
    net = build(len(weights[0]))
    _refuse_other_shapes(given, net, fitted, name, where)
    net.load_state_dict({**fitted.tensors, **given}, strict=False)  # counters of BatchNorm batches may be absent
    return net, len(weights[0])


def _weights(given: Mapping[str, Tensor], layers: tuple[str, ...]) -> list[Tensor]:
    """Those whose first dimension is the classes: of timm's ``classifier``, else (branches were merged) any."""
    named = [given[f"{layer}.weight"] for layer in layers if f"{layer}.weight" in given]
    return [value for value in (named or given.values()) if value.ndim >= 2]


def _incomplete(given: Mapping[str, Tensor], where: str) -> str:
    has = listed([f"{key} of shape {tuple(value.shape)}" for key, value in given.items()])
    return f"the classifier in {where} has no weight of shape (classes, features), only {has}; {_ELSE} a complete file"


def refuse_contradiction(given: Mapping[str, Tensor], where: str) -> None:
    """UserError for a linear layer whose weight and bias are of different numbers of classes."""
    for key, weight in given.items():
        layer, _, leaf = key.rpartition(".")
        bias = given.get(f"{layer}.bias")
        if leaf == "weight" and weight.ndim >= 2 and bias is not None and bias.shape != weight.shape[:1]:
            raise UserError(
                f"{where} contradicts itself: {key} has shape {tuple(weight.shape)} and {layer}.bias "
                f"{tuple(bias.shape)}, so it may or may not have {len(weight)} classes; {_ELSE} a complete file"
            )


def _refuse_sequence(fitted: Fitted, layers: tuple[str, ...], where: str) -> None:
    """UserError for a classifier that is a sequence, but for one linear layer at its beginning: its other layers may
    have no weights, and nothing in the file says what they are."""
    alone = [head for head in fitted.heads if f".{head}".endswith(tuple(f".{name}" for name in (*HEADS, *layers)))]
    parents = {head.rpartition(".")[0] for head in fitted.heads}
    if alone or len(parents) != 1 or list(fitted.heads) == [f"{next(iter(parents))}.0"]:
        return
    head, parent = next(iter(fitted.heads)), next(iter(parents))
    if len(fitted.heads) == 1:
        raise UserError(
            f"{where} has a classifier '{head}' behind layers without weights: if those are dropout, rename "
            f"{head}.weight and {head}.bias to {parent}.weight and {parent}.bias; else {BY_ONNX}"
        )
    sizes = [f"{name} {' x '.join(map(str, tensors['weight'].shape))}" for name, tensors in fitted.heads.items()]
    raise UserError(
        f"{where} has a classifier of {len(sizes)} layers ({listed(sizes)}), and does not say what lies between them; "
        f"{BY_ONNX if _adjacent(fitted.heads) else SAY}"
    )


def _adjacent(heads: Collection[str]) -> bool:
    """Whether the numbers of two layers leave no place for an activation between them: ``--head`` is refused, too."""
    numbers = sorted(int(last) for head in heads if (last := head.rpartition(".")[2]).isdecimal())
    return any(b - a == 1 for a, b in itertools.pairwise(numbers))


def between_features_and_classes(fitted: Fitted) -> list[str]:
    """Names beside the network that may be of its classifier."""
    return [key for key in fitted.outside if not _OF_TRAINING.search(key)]


def _refuse_unclear(fitted: Fitted, layers: tuple[str, ...], name: str, where: str) -> None:
    _refuse_sequence(fitted, layers, where)
    if len(fitted.heads) > 1:
        raise UserError(
            f"{where} has {len(fitted.heads)} classifiers ({listed(list(fitted.heads))}), and none is that of {name} "
            f"itself; {_ELSE} a file with one of them"
        )
    if between := between_features_and_classes(fitted):
        what = "part of its classifier" if fitted.heads else "its classifier"
        several = sum(key.endswith(".weight") for key in between) + len(fitted.heads) > 1
        head = "; if that has several linear layers, say what lies between with --head" if several else ""
        raise UserError(
            f"{where} has {listed(between)} outside of '{fitted.prefix}', which may be {what}{head}; {_ELSE} a file "
            "with the network and one linear layer 'classifier'"
        )


def _refuse_other_shapes(given: Mapping[str, Tensor], net: nn.Module, fitted: Fitted, name: str, where: str) -> None:
    expected = {key: tuple(value.shape) for key, value in net.state_dict().items() if key not in fitted.tensors}
    shapes = {key: tuple(value.shape) for key, value in given.items()}
    keys = [key for key in {**shapes, **expected} if not key.endswith(COUNTER)]
    differ = [key for key in keys if shapes.get(key) != expected.get(key)]
    if differ:
        file, network = ({key: which[key] for key in differ if key in which} for which in (shapes, expected))
        raise UserError(
            f"the classifier in {where} has {file or 'nothing'}, that of {name} {network or 'nothing'} there; {_ELSE} "
            "the network that it was trained with"
        )
