"""Small stand-ins for the tests of this folder: a network, pictures with two obvious classes, a recipe."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from softedge import config
from softedge.data.images import ArrayImages, Data
from softedge.records import InputSpec
from softedge.ssl.light_moco import LightMoCo, MoCoV2

SPEC = InputSpec(32, 32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


class TinyBackbone(nn.Module):
    """A convolution with BatchNorm and a pool: (N, 3, H, W) -> (N, 8)."""

    num_features = 8

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net(images).flatten(1)


def check_same_function(plain: nn.Module, changed: nn.Module, size: int) -> None:
    """Outputs and gradients of two networks in float64 are equal on the same random images."""
    images = torch.randn(4, 3, size, size, dtype=torch.float64).to(memory_format=torch.channels_last)
    outputs = [network(images) for network in (plain, changed)]
    assert torch.allclose(*outputs, rtol=1e-9, atol=1e-12)
    for output in outputs:
        output.square().mean().backward()
    for one, other in zip(plain.parameters(), changed.parameters()):
        assert torch.allclose(one.grad, other.grad, rtol=1e-7, atol=1e-12)


def method(kind: type[MoCoV2] = LightMoCo, queue: int = 32, seed: int = 0, **settings) -> MoCoV2:
    """A method on the tiny backbone with reproducible weights."""
    torch.manual_seed(seed)
    section = kind.Settings
    values = {"queue": queue, "projector": (16, 4), "neighbors": 5} | settings
    values = {k: v for k, v in values.items() if k in section.model_fields}
    return kind(section(**values), TinyBackbone(), queue, seed)  # type: ignore[arg-type]


def views(count: int = 8, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two normalised views of ``count`` generated pictures."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(count, 3, 12, 12, generator=generator)
    first, second = (base + 0.1 * torch.randn(base.shape, generator=generator) for _ in range(2))
    return first, second


def data(count: int = 48, labelled: bool = True) -> Data:
    """Reddish pictures (class 0) and greenish ones (class 1) with noise, 32 pixels."""
    rng = np.random.default_rng(0)
    labels = np.arange(count, dtype=np.int64) % 2
    array = rng.integers(0, 120, (count, 32, 32, 3), dtype=np.uint8)
    array[np.arange(count), :, :, labels] += 100
    images = ArrayImages(array, labels, [str(i) for i in range(count)])
    none = images.subset([])
    classes = ("red", "green") if labelled else ()
    return Data("generated", classes, SPEC, images, images if labelled else none, none)


def recipe(**overrides) -> config.Recipe:
    """Three epochs of three steps on ``data()``; overrides like ``{"ssl.epochs": 2}`` as keyword ``ssl__epochs=2``."""
    values = {
        "data": {"size": 32, "resize": 32, "workers": 0},
        "backbone": {"name": "mobilenetv3_small_050"},
        "ssl": {
            "epochs": 3,
            "batch": 16,
            "queue": 64,
            "neighbors": 5,
            "projector": [16, 8],
            "key_norm_groups": 2,
            "knn_every": 3,
        },
        "optim": {"lr": 0.05, "warmup_epochs": 1},
    }
    sets = [f"{name.replace('__', '.')}={value}" for name, value in overrides.items()]
    return config.build(values, sets)
