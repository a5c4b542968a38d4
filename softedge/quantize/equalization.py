"""Cross-layer equalization: move scale between layers where the function allows it; one range then fits all channels.

Nagel et al. 2019, arXiv 1906.04721, section 4.1, with activation ranges in place of the producer's weight ranges: with
weights quantized per channel, what an unbalanced channel spoils is the one range of its activation (SmoothQuant, Xiao
et al. 2022, arXiv 2211.10438).
"""

from __future__ import annotations

import copy
import operator

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from softedge.data.images import Uint8
from softedge.export.deployed import Deployed

# f(s x) = s f(x) for s > 0 per channel: scale passes through.
_HOMOGENEOUS_MODULES = (nn.ReLU, nn.Identity, nn.Dropout, nn.AdaptiveAvgPool2d, nn.MaxPool2d, nn.AvgPool2d)
_HOMOGENEOUS_CALLS = {"relu", "relu_", "mean", "contiguous", functional.relu, functional.dropout, torch.relu}
_STRENGTH = 0.5  # of the activation's range against the consumer's weights where the consumer is dense
_LARGEST = 1e4


def equalize(deployed: Deployed, images: Uint8) -> tuple[Deployed, int]:
    """Balance the channels between convolutions that only ReLU, pooling or a squeeze-excite product separate.

        W1'[i] = W1[i] / s_i,  b1'[i] = b1[i] / s_i,  W2'[:, i] = W2[:, i] s_i
        s_i = r_i / geometric mean of r,   r_i = max |activation i|^a / max |W2[:, i]|^(1 - a)

    a = 1 into depthwise convolutions (their weights have a scale per channel anyway), 1/2 into dense ones.
    images: uint8 (N, S, S, 3).  Returns an equal function and how many pairs were balanced; it cannot pass hard-swish,
    SiLU, ReLU6 (a clamp at 6 would be one at another number for each channel) or additions, so networks of those come
    back unchanged.
    """
    network = copy.deepcopy(deployed.folded().model)
    if not isinstance(network, fx.GraphModule):
        return deployed, 0
    modules = dict(network.named_modules())
    called: dict[str, int] = {}
    for node in network.graph.nodes:
        if node.op == "call_module":
            called[str(node.target)] = called.get(str(node.target), 0) + 1
    planes = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    largest = _channel_maxima(network, (planes - deployed.shift) / deployed.scale)
    pairs = 0
    with torch.no_grad():
        for node in network.graph.nodes:
            producer = modules.get(str(node.target)) if node.op == "call_module" else None
            if not isinstance(producer, nn.Conv2d) or called[str(node.target)] > 1:
                continue
            consumers = _consumers(node, modules)
            if not consumers or any(called[str(c.target)] > 1 for c in consumers):
                continue
            into = [modules[str(c.target)] for c in consumers]
            scale = _scale(largest[node], into)  # type: ignore[arg-type]
            _divide(producer, scale)
            for consumer in into:
                _multiply(consumer, scale)  # type: ignore[arg-type]
            pairs += 1
    return Deployed(network.eval(), deployed.spec, deployed.labels, deployed.output), pairs


def _consumers(node: fx.Node, modules: dict[str, nn.Module]) -> list[fx.Node] | None:
    """Convolutions that read ``node``'s channels through homogeneous operations; None if anything else reads them."""
    convolutions: list[fx.Node] = []
    stack, seen = list(node.users), set()
    scaled = {node}
    while stack:
        user = stack.pop()
        if user in seen:
            continue
        seen.add(user)
        module = modules.get(str(user.target)) if user.op == "call_module" else None
        if isinstance(module, nn.Conv2d):
            if module.groups not in (1, module.in_channels):
                return None
            convolutions.append(user)
        elif isinstance(module, _HOMOGENEOUS_MODULES) or (
            user.op in ("call_method", "call_function") and user.target in _HOMOGENEOUS_CALLS
        ):
            scaled.add(user)
            stack += list(user.users)
        elif user.target in (operator.mul, torch.mul, "mul"):
            if sum(argument in scaled for argument in user.all_input_nodes) != 1 or not _gate(user, scaled):
                return None
            scaled.add(user)
            stack += list(user.users)
        else:
            return None
    return convolutions


def _gate(product: fx.Node, scaled: set[fx.Node]) -> bool:
    """The other factor is a squeeze-excite gate, which does not carry the scale itself."""
    other = next((n for n in product.all_input_nodes if n not in scaled), None)
    return other is not None and other.op != "placeholder"


class _Maxima(fx.Interpreter):
    def __init__(self, module: fx.GraphModule):
        super().__init__(module)
        self.largest: dict[fx.Node, Tensor] = {}

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if n.op == "call_module" and isinstance(value, Tensor) and value.dim() == 4:
            self.largest[n] = (
                value.clamp(min=0).flatten(2).amax((0, 2)) if _before_relu(n, self) else value.abs().amax((0, 2, 3))
            )
        return value


def _before_relu(node: fx.Node, interpreter: fx.Interpreter) -> bool:
    users = [interpreter.submodules.get(str(u.target)) for u in node.users if u.op == "call_module"]
    return len(users) == len(node.users) and all(isinstance(u, nn.ReLU) for u in users)


def _channel_maxima(network: fx.GraphModule, planes: Tensor) -> dict[fx.Node, Tensor]:
    """Largest magnitude of each channel behind each module over images and positions, after the ReLU if one follows."""
    with torch.inference_mode():
        total: dict[fx.Node, Tensor] = {}
        for start in range(0, len(planes), 32):
            interpreter = _Maxima(network)
            interpreter.run(planes[start : start + 32])
            for node, value in interpreter.largest.items():
                total[node] = torch.maximum(total[node], value) if node in total else value
    return {node: value.clone() for node, value in total.items()}


def _scale(activation: Tensor, consumers: list[nn.Conv2d]) -> Tensor:
    """The divisor of each channel, of geometric mean 1; channels that are always zero keep theirs."""
    depthwise = all(consumer.groups > 1 for consumer in consumers)
    strength = 1.0 if depthwise else _STRENGTH
    weights = torch.stack([_input_maxima(c) for c in consumers if depthwise or c.groups == 1]).amax(0)
    active = (activation > 1e-6) & (weights > 1e-8)
    ratio = activation.clamp_min(1e-6) ** strength / weights.clamp_min(1e-8) ** (1 - strength)
    if not bool(active.any()):
        return torch.ones_like(ratio)
    ratio = ratio / ratio[active].log().mean().exp()
    return torch.where(active, ratio.clamp(1 / _LARGEST, _LARGEST), torch.ones_like(ratio))


def _input_maxima(conv: nn.Conv2d) -> Tensor:
    """Largest weight that each input channel meets."""
    return conv.weight.abs().amax((1, 2, 3)) if conv.groups > 1 else conv.weight.abs().amax((0, 2, 3))


def _divide(producer: nn.Conv2d, scale: Tensor) -> None:
    producer.weight /= scale.reshape(-1, 1, 1, 1)
    if producer.bias is not None:
        producer.bias /= scale


def _multiply(consumer: nn.Conv2d, scale: Tensor) -> None:
    consumer.weight *= scale.reshape(-1, 1, 1, 1) if consumer.groups > 1 else scale.reshape(1, -1, 1, 1)


def imbalance(deployed: Deployed, largest: float = 64.0, seed: int = 0) -> Deployed:
    """The same function with channels thrown out of balance by up to ``largest`` in every pair ``equalize`` repairs.

    A stress test: weights from elsewhere come like this, and per-tensor int8 falls apart on them.
    """
    network = copy.deepcopy(deployed.folded().model)
    assert isinstance(network, fx.GraphModule)
    modules, rng = dict(network.named_modules()), np.random.default_rng(seed)
    with torch.no_grad():
        for node in network.graph.nodes:
            producer = modules.get(str(node.target)) if node.op == "call_module" else None
            if isinstance(producer, nn.Conv2d) and (consumers := _consumers(node, modules)):
                exponent = rng.uniform(-0.5, 0.5, producer.out_channels)
                scale = torch.from_numpy(largest**exponent).float()
                _divide(producer, scale)
                for consumer in consumers:
                    _multiply(modules[str(consumer.target)], scale)  # type: ignore[arg-type]
    return Deployed(network.eval(), deployed.spec, deployed.labels, deployed.output)
