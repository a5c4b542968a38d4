"""ExecuTorch's int8 layers against its float layers on this processor: where a network's time goes.

    python benchmarks/executorch_layers.py

Each row is one kind of layer with its ReLU: XNNPACK's quantizer with its defaults, batch 1, one thread, processor time.
A row of four such layers is timed against one of them, in turn, so that the image's way in and out does not count; the
medians of ``--rounds`` rounds.  Layers are those of EfficientNet-Lite0 at 224 pixels and their neighbours.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from int8_mobile import xnnpack_program
from torch import Tensor, nn

from softedge.export.quiet import quiet
from softedge.progress import say

_DEPTH = 4  # layers in a row
_CALLS = 4  # in a round
DEPTHWISE = [(kernel, *shape) for kernel in (3, 5) for shape in ((96, 56), (240, 28), (480, 14), (672, 14), (1152, 7))]
POINTWISE = [(32, 112), (96, 56), (240, 28), (480, 14), (1152, 7)]


def program(network: nn.Module, image: Tensor, int8: bool) -> Any:
    """The network's program, loaded, every operator that XNNPACK has handed to it."""
    from executorch.extension.pybindings.portable_lib import _load_for_executorch

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.pte"
        path.write_bytes(xnnpack_program(network, image, image if int8 else None))
        return _load_for_executorch(str(path))


def layers(channels: int, kernel: int, groups: int, count: int) -> nn.Module:
    convolutions = [nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=groups) for _ in range(count)]
    return nn.Sequential(*(part for each in convolutions for part in (each, nn.ReLU()))).eval()


def microseconds(run: Any, image: Tensor) -> float:
    start = time.process_time_ns()
    for _ in range(_CALLS):
        run.forward([image])
    return (time.process_time_ns() - start) / _CALLS / 1e3


def of_one_layer(channels: int, side: int, kernel: int, groups: int, rounds: int) -> dict[bool, float]:
    """Microseconds of a layer in float (False) and in int8 (True)."""
    image = torch.randn(1, channels, side, side)
    with quiet():
        runs = {
            (count, int8): program(layers(channels, kernel, groups, count), image, int8)
            for count in (1, _DEPTH)
            for int8 in (False, True)
        }
    taken: dict[tuple[int, bool], list[float]] = {key: [] for key in runs}
    for _ in range(rounds + 1):
        for key, run in runs.items():
            taken[key].append(microseconds(run, image))
    median = {key: statistics.median(values[1:]) for key, values in taken.items()}
    return {int8: (median[_DEPTH, int8] - median[1, int8]) / (_DEPTH - 1) for int8 in (False, True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    from executorch.extension.pybindings import portable_lib

    portable_lib._unsafe_reset_threadpool(1)
    torch.manual_seed(0)
    say("| layer | channels, side | float, us | int8, us | int8 over float |")
    say("|---|---|---|---|---|")
    kinds = [
        (f"depthwise {kernel} x {kernel}", channels, side, kernel, channels) for kernel, channels, side in DEPTHWISE
    ]
    kinds += [("pointwise", channels, side, 1, 1) for channels, side in POINTWISE]
    for name, channels, side, kernel, groups in kinds:
        found = of_one_layer(channels, side, kernel, groups, options.rounds)
        ratio = found[True] / found[False]
        say(f"| {name} | {channels}, {side} | {found[False]:.0f} | {found[True]:.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
