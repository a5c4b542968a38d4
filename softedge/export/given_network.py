"""timm's network of a weights file: built as the file and ``config.json`` beside it say, its classifier included."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from softedge.errors import UserError, first_line
from softedge.export import folding
from softedge.progress import say
from softedge.weights import heads, layered, layouts
from softedge.weights.timm_config import options_beside

Build = Callable[[int], nn.Module]
"""Makes the network for a number of classes; 0: without its classifier."""


@dataclass(frozen=True)
class Network:
    """net: with its weights.  classes: 0 where it gives features.  options: of timm's ``create_model``.  grey: whether
    the weights are for grey images.  head: how the classifier of several layers is built; {} of others."""

    net: nn.Module
    classes: int
    options: dict[str, Any]
    grey: bool
    head: dict[str, Any] = field(default_factory=dict)


def network(weights: Path, state: Mapping[str, Tensor], name: str, output: str, head: str | None) -> Network:
    """timm's ``name`` with the weights in the file ``state``.  output: "features" leaves the classifier off.

    head: the activation in a classifier of several layers; see ``layered.between``.
    """
    build, options = _builder(weights, name)
    if head is not None:
        return _layered(weights, state, name, build, options, layered.between(head))
    net, fitted, merged = _fitted(weights, state, name, build, layered=output == "features")
    fitted.left_out(str(weights))
    norms = [key.removesuffix(".running_mean") for key in fitted.names() if key.endswith(".running_mean")]
    if output == "features" and norms:
        say(f"weights: {layouts.listed(norms)} in {weights} is left off with the classifier that it is in")
    elif output != "features":

        def with_classes(classes: int) -> nn.Module:
            full = build(classes)
            return folding.merge_branches(full) if merged else full

        if complete := heads.completed(fitted, with_classes, layouts.classifiers(net), name, str(weights)):
            return Network(complete[0].eval(), complete[1], options, fitted.grey)
    net.load_state_dict(fitted.tensors, strict=False)  # counters of BatchNorm batches may be absent
    return Network(net.eval(), 0, options, fitted.grey)


def rebuilt(
    name: str, classes: int, options: Mapping[str, Any], head: Mapping[str, Any], state: Mapping[str, Tensor]
) -> nn.Module:
    """The ``Network.net`` that ``state`` was taken of."""
    import timm

    net: nn.Module = timm.create_model(name, num_classes=0 if head else classes, **options).eval()
    if head:
        net = layered.like(layered.pooled(net) if head["pooled"] else net, head["activation"], state)
    if net.state_dict().keys() != state.keys():  # its branches were merged before
        net = folding.merge_branches(net)
    net.load_state_dict(state)
    return net


def _layered(
    weights: Path, state: Mapping[str, Tensor], name: str, build: Build, options: dict[str, Any], asked: layered.Between
) -> Network:
    """With a classifier of several layers; torchvision's MobileNetV3 has one itself, whose first layer timm has in the
    network, so that all of it may have been replaced."""

    def pooled(classes: int) -> nn.Module:
        return layered.pooled(build(classes))

    found, full = None, build(2)
    if layered.may_be_pooled(full):
        with contextlib.suppress(UserError):
            found = _fitted(weights, state, name, pooled, layered=True)
            found = found if len({head.rpartition(".")[0] for head in found[1].heads}) == 1 else None
    is_pooled = found is not None
    net, fitted, _ = found or _fitted(weights, state, name, build, layered=True)
    fitted.left_out(str(weights))
    width = layered.width(pooled(2) if is_pooled else full, layouts.classifiers(full))
    made, classes = layered.completed(fitted, state, net, width, asked, name, str(weights))
    return Network(made, classes, options, fitted.grey, {"activation": asked.activation, "pooled": is_pooled})


def _builder(weights: Path, name: str) -> tuple[Build, dict[str, Any]]:
    """What makes the network for a number of classes, and how that differs from timm's default: ``config.json``."""
    import timm

    there = (weights.parent / "config.json").is_file()
    options = options_beside(weights, name, timm.create_model(name, num_classes=2)) if there else {}

    def build(classes: int) -> nn.Module:
        net: nn.Module = timm.create_model(name, num_classes=classes, **options)
        return net

    if options:
        config, what = weights.parent / "config.json", ", ".join(f"{key} = {value}" for key, value in options.items())
        try:
            build(2)
        except Exception as error:  # each network has its own checks of its options
            raise UserError(
                f"{config} says {what}, with which timm cannot build {name} ({first_line(error)})"
            ) from error
        say(f"weights: {name} is built with {what}, from {config}")
    return build, options


def _fitted(
    weights: Path, state: Mapping[str, Tensor], name: str, build: Build, layered: bool = False
) -> tuple[nn.Module, layouts.Fitted, bool]:
    """The network without its classifier, the tensors in the file, and whether branches are merged.

    Checkpoints of MobileOne, FastViT or RepViT may have been reparameterized already: then the network must be.
    """

    def fit(net: nn.Module, full: nn.Module) -> layouts.Fitted:
        return layouts.fit_with_head(state, net, name, str(weights), heads.own_names(full, net), layered)

    net, full = build(0), build(2)
    try:
        return net, fit(net, full), False
    except UserError as error:
        if not folding.has_branches(net):
            raise
        merged, full = folding.merge_branches(net), folding.merge_branches(full)
        try:
            return merged, fit(merged, full), True
        except UserError:
            raise error from None  # the names of the network as it is published say more
