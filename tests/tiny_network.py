"""A network small enough to export in a second, with every block that makes mobile networks hard to quantize."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from softedge.export.deployed import Deployed
from softedge.records import InputSpec


def _saturates() -> bool:
    """Whether sums of u8 x s8 products are cut to 16 bits here: x86 without VNNI (int8 files then answer otherwise)."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    words = set(Path("/proc/cpuinfo").read_text().split()) if Path("/proc/cpuinfo").exists() else set()
    return not words & {"avx512_vnni", "avx_vnni"}


exact_integers = pytest.mark.skipif(_saturates(), reason="u8 x s8 sums saturate on this x86 processor without VNNI")


def planes_to_logits(network: nn.Module, path: Path, free: dict[int, str], **names: list[str]) -> Path:
    """Write a network of 16 pixels to ONNX as other exporters do: normalised planes in, logits out.

    free: dimensions of any size.  names: ``input_names`` and ``output_names``.
    """
    torch.onnx.export(
        network,
        (torch.zeros(2, 3, 16, 16),),
        path,
        dynamo=True,
        opset_version=18,
        dynamic_shapes=(free,),
        external_data=False,
        verbose=False,
        **names,
    )
    return path


SPEC = InputSpec(16, 18, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


class Tiny(nn.Module):
    """Stem, depthwise block of 24 channels with squeeze-excite and hard-swish, residual, pool, linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.expand = nn.Sequential(nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24), nn.Hardswish())
        self.depthwise = nn.Sequential(nn.Conv2d(24, 24, 3, 1, 1, groups=24, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.reduce, self.restore = nn.Conv2d(24, 8, 1), nn.Conv2d(8, 24, 1)
        self.project = nn.Sequential(nn.Conv2d(24, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.depthwise(self.expand(x))
        gate = torch.relu(self.reduce(y.mean((2, 3), keepdim=True)))
        y = y * nn.functional.hardsigmoid(self.restore(gate))
        return self.head((x + self.project(y)).mean((2, 3)))


def images(count: int, seed: int = 0) -> np.ndarray:
    """Smooth random pictures, uint8 (count, 16, 16, 3): 4 x 4 patches of one colour."""
    small = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return small.repeat(4, axis=1).repeat(4, axis=2)


@pytest.fixture(scope="session")
def deployed() -> Deployed:
    """``Tiny`` with BatchNorm statistics of real activations and logits that spread over the classes."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = Tiny()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.3)
        whole = Deployed(net, SPEC, labels=("a", "b", "c", "d", "e"))
        net.train()
        with torch.no_grad():
            whole(torch.from_numpy(images(64)))
            net.head.weight *= 8
        whole.eval()
    whole.about = {"checkpoint_sha256": "0" * 64}
    return whole


@pytest.fixture(scope="session")
def pictures() -> np.ndarray:
    return images(64, seed=7)


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 of them as files, of 32 pixels."""
    folder = tmp_path_factory.mktemp("pictures")
    for index, pixels in enumerate(images(160, seed=3)):
        Image.fromarray(pixels.repeat(2, 0).repeat(2, 1)).save(folder / f"{index:03d}.png")
    return folder
