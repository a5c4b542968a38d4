"""Fold each BatchNorm into the convolution before it: fewer operators, and weights quantized as they are deployed."""

from __future__ import annotations

import copy

import torch
from torch import fx, nn


class _Tracer(fx.Tracer):
    """Two of timm's own layers are leaves: BatchNormAct2d, with an activation inside, and Conv2dSame of the tf_*
    networks, which pads by the size of its input and could not be traced."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.BatchNorm2d | nn.Conv2d) or super().is_leaf_module(module, name)


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """Return an eval-mode copy of ``model`` without the BatchNorms that follow a convolution.

    w' = w · γ / √(σ² + ε),   b' = (b − μ) · γ / √(σ² + ε) + β   (Jacob et al. 2018, arXiv 1712.05877, eq. 14).

    Branches that a network trains with and runs as one are merged first.
    The same function up to rounding. A network that torch.fx cannot trace comes back as a plain copy.
    """
    model = merge_branches(model) if has_branches(model) else copy.deepcopy(model).eval()
    try:
        graph = _Tracer().trace(model)
    except Exception:  # control flow on values: fx raises many kinds, and the unfolded network is still right
        return model
    folded = fx.GraphModule(model, graph)
    modules = dict(folded.named_modules())
    convolutions: dict[str, int] = {}
    for node in graph.nodes:
        if node.op == "call_module" and isinstance(modules.get(node.target), nn.Conv2d):
            convolutions[node.target] = convolutions.get(node.target, 0) + 1
    for node in list(folded.graph.nodes):
        norm = modules.get(node.target) if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm2d) or not norm.track_running_stats:
            continue
        before = node.args[0]
        conv = modules.get(before.target) if before.op == "call_module" else None
        if not isinstance(conv, nn.Conv2d) or len(before.users) > 1 or convolutions[before.target] > 1:
            continue  # somebody else reads the convolution's own output, or it is called twice
        with torch.no_grad():
            _replace(folded, before.target, torch.nn.utils.fuse_conv_bn_eval(conv.eval(), norm.eval()))
        _replace(folded, node.target, getattr(norm, "act", nn.Identity()))
    folded.recompile()
    return folded.eval()


_BRANCHED = ("byobnet", "fastvit", "repvit")  # of timm.models: MobileOne and RepVGG are in the first


def has_branches(model: nn.Module) -> bool:
    """Whether ``model`` is one of timm's networks that train with parallel branches and run with one convolution."""
    names = {f"timm.models.{name}" for name in _BRANCHED}
    methods = ("reparameterize", "fuse")
    return any(type(m).__module__ in names and any(hasattr(m, name) for name in methods) for m in model.modules())


def merge_branches(model: nn.Module) -> nn.Module:
    """An eval-mode copy of ``model`` whose parallel branches are summed into one convolution: the same function.

    Ding et al. 2021, RepVGG, arXiv 2101.03697, section 3.3, by timm's own ``reparameterize_model``.  What is merged
    already stays.
    """
    from timm.models import reparameterize_model

    return reparameterize_model(copy.deepcopy(model).eval(), inplace=True)


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, new)
