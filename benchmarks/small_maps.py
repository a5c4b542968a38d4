"""A training step with and without the layers that ``softedge.ssl.cpu_layers`` changes on a CPU.

``python benchmarks/small_maps.py`` · forward and backward, one thread, processor time, both networks in turn.
"""

from __future__ import annotations

import argparse
import copy
import time
from statistics import median

import timm
import torch
from torch import Tensor, nn

from softedge.memory import keep_freed
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


def step(network: nn.Module, images: Tensor) -> float:
    """Processor seconds of a forward and backward pass."""
    network.zero_grad(set_to_none=True)
    began = time.process_time()
    network(images).square().mean().backward()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=7)
    turns = parser.parse_args().turns
    torch.set_num_threads(1)
    keep_freed()
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, one thread, {turns} turns\n")
    print("| network | pixels | batch | torch's layers, ms per image | changed, ms per image | speed |")
    print("|---|---|---|---|---|---|")
    for name, size, batch in CASES:
        plain = timm.create_model(name, num_classes=6).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        changed = copy.deepcopy(plain)
        cpu_layers.put_on(changed, torch.float32)
        images = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
        step(plain, images), step(changed, images)
        taken = [(step(plain, images), step(changed, images)) for _ in range(turns)]
        ratios = [one / other for one, other in taken]
        before, after = (1000 * median(times) / batch for times in zip(*taken))
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(
            f"| {name} | {size} | {batch} | {before:.2f} | {after:.2f} | {median(ratios):.2f}× ({spread}) |", flush=True
        )


if __name__ == "__main__":
    main()
