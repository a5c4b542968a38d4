"""A training step with and without the layers that ``softedge.ssl.cpu_layers`` changes on a CPU.

    python benchmarks/small_maps.py               forward and backward
    python benchmarks/small_maps.py --frozen      forward alone, in eval mode, as the linear protocols run it
    python benchmarks/small_maps.py --joint       both with the changed layers: two views in two passes against one

One thread, processor time, both forms in turn; an image is one view, with ``--joint`` two.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from statistics import median

import timm
import torch
from torch import Tensor, nn

from softedge.machine.memory import keep_freed
from softedge.ssl import cpu_layers

CASES = (  # network, pixels, batch
    ("mobilenetv3_small_100", 32, 256),
    ("mobilenetv3_small_050", 64, 64),
    ("mobilenetv3_small_100", 96, 64),
    ("mobilenetv3_large_100", 32, 64),
    ("tf_efficientnet_lite0", 64, 32),
    ("tf_efficientnet_lite0", 96, 32),
    ("tf_efficientnet_lite0", 128, 32),
    ("efficientnet_b0", 128, 32),
    ("mobilenetv3_small_100", 224, 32),
)


SMALL = (
    ("mobilenetv3_small_100", 32, 256),
    ("mobilenetv3_small_100", 32, 64),
    ("mobilenetv3_small_050", 64, 64),
    ("mobilenetv3_large_100", 32, 128),
    ("efficientnet_b0", 32, 64),
)


def step(network: nn.Module, *batches: Tensor) -> None:
    """A forward pass for each batch, and one backward pass."""
    network.zero_grad(set_to_none=True)
    sum(network(images).square().mean() for images in batches).backward()  # type: ignore[union-attr]


@torch.inference_mode()
def forward(network: nn.Module, images: Tensor) -> None:
    network(images)


def seconds(work: Callable[[], None]) -> float:
    """Processor seconds."""
    began = time.process_time()
    work()
    return time.process_time() - began


def contenders(name: str, size: int, batch: int, asked: argparse.Namespace) -> tuple[Callable[[], None], ...]:
    """The two forms of a case."""
    plain = timm.create_model(name, num_classes=6).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    changed = copy.deepcopy(plain)
    cpu_layers.put_on(changed, torch.float32)
    images, others = (
        torch.randn(2, batch, 3, size, size).flatten(0, 1).contiguous(memory_format=torch.channels_last).split(batch)
    )
    if asked.joint:
        return lambda: step(changed, images, others), lambda: step(changed, torch.cat([images, others]))
    if asked.frozen:
        plain.eval(), changed.eval()
        return lambda: forward(plain, images), lambda: forward(changed, images)
    return lambda: step(plain, images), lambda: step(changed, images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--frozen", action="store_true")
    form.add_argument("--joint", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed()
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, one thread, {asked.turns} turns\n")
    names = ("two passes", "one pass") if asked.joint else ("torch's layers", "changed")
    print(f"| network | pixels | batch | {names[0]}, ms per image | {names[1]}, ms per image | speed |")
    print("|---|---|---|---|---|---|")
    for name, size, batch in SMALL if asked.joint or asked.frozen else CASES:
        first, second = contenders(name, size, batch, asked)
        first(), second()
        taken = [(seconds(first), seconds(second)) for _ in range(asked.turns)]
        ratios = [one / other for one, other in taken]
        before, after = (1000 * median(times) / batch for times in zip(*taken))
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(
            f"| {name} | {size} | {batch} | {before:.2f} | {after:.2f} | {median(ratios):.2f}× ({spread}) |", flush=True
        )


if __name__ == "__main__":
    main()
