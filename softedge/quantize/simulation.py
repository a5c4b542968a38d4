"""The arithmetic of a quantized file inside PyTorch, so that gradients can pass through its rounding.

Which activations are rounded, and to what, the format says; they are matched to the traced network by value.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from softedge.data.images import Uint8
from softedge.errors import UserError
from softedge.export.candidates import Rounding
from softedge.export.deployed import Deployed

Ranges = dict[str, tuple[float, float]]
LEVELS = 255  # of an unsigned 8-bit activation


class RoundedWeight(nn.Module):
    """Symmetric int8 per output channel, straight-through: w -> s round(w / s), s = max |w| / 127."""

    def forward(self, weight: Tensor) -> Tensor:
        scale = weight.detach().abs().flatten(1).amax(1).clamp_min(1e-12) / 127
        scale = scale.reshape(-1, *[1] * (weight.dim() - 1))
        return weight + ((weight / scale).round() * scale - weight).detach()


class RoundedActivation(nn.Module):
    """Unsigned 8-bit with learnable range: gradients reach values inside the range, and its two ends.

        y = s (clip(round(x / s) + z, 0, 255) - z),   s = (high - low) / 255,   z = round(-low / s)

    Learned step size quantization (Esser et al. 2020, arXiv 1902.08153), with an offset.
    """

    def __init__(self, low: float, high: float):
        super().__init__()
        self.low = nn.Parameter(torch.tensor(min(low, 0.0)))
        self.high = nn.Parameter(torch.tensor(max(high, 1e-6)))

    def forward(self, x: Tensor) -> Tensor:
        low, high = self.low.clamp(max=0.0), self.high.clamp(min=1e-6)
        scale = (high - low) / LEVELS
        zero = (-low / scale).round().detach()
        grid = (x / scale + zero).clamp(0, LEVELS)
        rounded = grid + (grid.round() - grid).detach()
        return (rounded - zero) * scale


class Simulation(nn.Module):
    """``network`` computes as the quantized file does; ``tensors`` says which activation each rounding stands for."""

    def __init__(self, network: fx.GraphModule, tensors: dict[str, str]):
        super().__init__()
        self.network = network
        self.tensors = tensors

    def forward(self, planes: Tensor) -> Tensor:
        return self.network(planes)

    def rounding(self) -> dict[str, RoundedActivation]:
        """Name of an activation -> its rounding."""
        return {name: cast(RoundedActivation, getattr(self.network, key)) for key, name in self.tensors.items()}

    def ranges(self) -> Ranges:
        """Name of an activation -> the (low, high) it has learned."""
        with torch.no_grad():
            return {n: (min(float(r.low), 0.0), max(float(r.high), 1e-6)) for n, r in self.rounding().items()}

    def float_network(self) -> fx.GraphModule:
        """A copy without any rounding: the weights as they are now, in float."""
        network = copy.deepcopy(self.network)
        for module in list(network.modules()):
            if parametrize.is_parametrized(module):
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
        for node in list(network.graph.nodes):
            if node.op == "call_module" and node.target in self.tensors:
                node.replace_all_uses_with(node.args[0])
                network.graph.erase_node(node)
        network.delete_all_unused_submodules()
        network.recompile()
        return network


def simulate(deployed: Deployed, roundings: Sequence[Rounding], image: Uint8) -> Simulation:
    """The network of ``deployed`` with its activations rounded.

    roundings: what ``Candidates.roundings`` says about ``image``, uint8 (1, S, S, 3), to match activations on.
    """
    network = deployed.folded().model
    if not isinstance(network, fx.GraphModule):
        raise UserError(
            "this network cannot be traced by torch.fx; quantization-aware fine-tuning is not available for it"
        )
    ranges = {rounding.name: (rounding.low, rounding.high) for rounding in roundings}
    matched = match(network, deployed, roundings, image)
    tensors: dict[str, str] = {}
    for number, (node, name) in enumerate(matched.items()):
        key = f"rounding_{number}"
        network.add_module(key, RoundedActivation(*ranges[name]))
        with network.graph.inserting_after(node):
            rounded = network.graph.call_module(key, (node,))
        node.replace_all_uses_with(rounded)
        rounded.args = (node,)
        tensors[key] = name
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):  # all are stored in 8 bits, those computed in float too
            parametrize.register_parametrization(module, "weight", RoundedWeight())
    network.recompile()
    return Simulation(network, tensors)


class _Recorder(fx.Interpreter):
    """Keeps the value of every node."""

    def __init__(self, module: fx.GraphModule):
        super().__init__(module)
        self.values: dict[fx.Node, np.ndarray] = {}

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if isinstance(value, Tensor) and n.op != "output":
            self.values[n] = value.clone().numpy()  # activations may work in place
        return value


def match(
    network: fx.GraphModule, deployed: Deployed, roundings: Sequence[Rounding], image: Uint8
) -> dict[fx.Node, str]:
    """Node of the traced network -> the rounded activation that has the same values on ``image``."""
    recorder = _Recorder(network)
    with torch.inference_mode():
        planes = torch.from_numpy(image).permute(0, 3, 1, 2).float()
        recorder.run((planes - deployed.shift) / deployed.scale)
    matched: dict[fx.Node, str] = {}
    for rounding in roundings:
        value = rounding.values
        near = [
            (float(np.abs(own - value[:, : own.shape[1]]).max()), node)
            for node, own in recorder.values.items()
            if node not in matched and _same_but_padding(own.shape, value.shape)
        ]
        best, node = min(near, key=lambda pair: pair[0], default=(np.inf, None))
        if node is not None and best <= 1e-3 * max(float(np.abs(value).max()), 1e-3):
            matched[node] = rounding.name
    return matched


def _same_but_padding(shape: tuple[int, ...], padded: tuple[int, ...]) -> bool:
    """Equal but for the channels: a format may add channels of zeros, which integer kernels take in groups."""
    return (
        len(shape) == len(padded) > 1
        and shape[0] == padded[0]
        and shape[2:] == padded[2:]
        and 0 <= padded[1] - shape[1] < 16
    )
