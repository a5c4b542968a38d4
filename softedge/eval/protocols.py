"""The linear evaluations of the papers, as their own code runs them.

simsiam   Chen & He 2021 (arXiv 2011.10566), which Light-MoCo follows: LARS, rate 0.1 · batch / 256, cosine by epoch,
          batch 4096, 90 epochs, random resized crop and flip, no weight decay, weights N(0, 0.01²).
ang-2022  Ang 2022 on leftthomas/SimCLR: Adam 1e-3, batch 512, 100 epochs, features of unit length.

Both report here the accuracy after the last epoch; their code keeps the best epoch on the test set. The augmentation of
leftthomas/SimCLR's probe (colour jitter and grey beside crop and flip) is left at crop and flip, and the network is in
eval mode (theirs keeps BatchNorm on the statistics of the batch while the layer trains). Light-MoCo's own code leaves
the bias out of LARS's scaling; SimSiam's, which the paper names, does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from softedge.backbones import Backbone, normalise
from softedge.data.images import Data, Images
from softedge.eval.crops import Crops
from softedge.eval.features import extract
from softedge.progress import track
from softedge.records import InputSpec
from softedge.ssl import cpu_layers


@dataclass(frozen=True)
class Protocol:
    """How a linear layer is trained on the frozen network."""

    epochs: int
    batch: int
    optimizer: Callable[[list[nn.Parameter], float], torch.optim.Optimizer]
    rate: Callable[[int], float]  # of the batch
    cosine: bool
    unit_length: bool
    min_area: float
    initial_std: float | None  # None: PyTorch's own


def _lars(parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """LARS on all tensors alike, biases too, as NVIDIA's LARC does around PyTorch's SGD."""
    from timm.optim import Lars

    return Lars(parameters, lr, momentum=0.9, always_adapt=True)


PROTOCOLS: dict[Literal["simsiam", "ang-2022"], Protocol] = {
    "simsiam": Protocol(90, 4096, _lars, lambda batch: 0.1 * batch / 256, True, False, 0.08, 0.01),
    "ang-2022": Protocol(100, 512, lambda p, lr: torch.optim.Adam(p, lr), lambda _: 1e-3, False, True, 0.08, None),
}


def train(
    protocol: Protocol,
    backbone: Backbone,
    images: Images,
    data: Data,
    epochs: int,
    batch: int,
    seed: int,
    flip: float,
) -> tuple[nn.Linear, list[float]]:
    """Train the linear layer; the backbone stays in eval mode, its BatchNorm statistics too.

    flip: probability of a mirrored image (the papers' 0.5; a recipe without flips, as for digits, sets 0).
    """
    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone = backbone.to(place, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    if place.type == "cpu":
        cpu_layers.put_on(backbone, torch.float32)
    crops = Crops(images, data.spec, batch, seed, min_area=protocol.min_area, flip=flip, workers=2)

    def features(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for pictures, labels in crops.epoch(epoch):
            with torch.no_grad():
                pooled = backbone(normalise(pictures.to(place), data.spec))
            yield pooled, labels.to(place)

    head, losses = fit(protocol, features, (backbone.num_features, len(data.classes)), epochs, batch, seed)
    cpu_layers.take_off(backbone.cpu())
    return head, losses


def fit(
    protocol: Protocol,
    features: Callable[[int], Iterable[tuple[Tensor, Tensor]]],
    shape: tuple[int, int],
    epochs: int,
    batch: int,
    seed: int,
) -> tuple[nn.Linear, list[float]]:
    """Train a linear layer of ``shape`` (features, classes) on the batches that ``features`` gives for each epoch:
    float (B, features) and int64 (B,). Returns it on the CPU with the loss of every step.
    """
    torch.manual_seed(seed)
    head = nn.Linear(*shape)
    if protocol.initial_std is not None:
        nn.init.normal_(head.weight, std=protocol.initial_std)
        nn.init.zeros_(head.bias)
    head = head.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    full = protocol.rate(batch)
    optimizer = protocol.optimizer(list(head.parameters()), full)
    losses = []
    for epoch in track(range(epochs), "linear", total=epochs):
        for group in optimizer.param_groups:  # by epoch, not by step, as the papers' code does
            group["lr"] = full * (0.5 * (1 + math.cos(math.pi * epoch / epochs)) if protocol.cosine else 1.0)
        for inputs, labels in features(epoch):
            loss = functional.cross_entropy(head(_features(protocol, inputs)), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return head.cpu(), losses


def _features(protocol: Protocol, features: Tensor) -> Tensor:
    return functional.normalize(features, dim=1) if protocol.unit_length else features


@torch.inference_mode()
def evaluate(
    protocol: Protocol, backbone: Backbone, head: nn.Linear, images: Images, spec: InputSpec
) -> NDArray[np.float32]:
    """Logits float32 (N, classes) on centre crops."""
    features = torch.from_numpy(extract(backbone, images, spec))
    return head(_features(protocol, features)).numpy()
