"""What a board of 2 GB needs for each runtime, on a whole Debian for arm64 that qemu makes up: memory, never time.

    python tests/bench/debian_board.py && python benchmarks/board.py --memory 2048 --cpu cortex-a72

Exports a network with random weights (they decide neither memory nor closeness) at 224 pixels in every format that is
installed here, sends files and runtimes by ssh to the board of tests/bench/debian_board.py, and prints a table.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "bench"))
import debian_board

from softedge import config, registry
from softedge.backbones import Classifier, build
from softedge.bench.base import TimingPlan, open_device
from softedge.export.base import open_format
from softedge.export.deployed import Deployed
from softedge.records import Artifact, InputSpec

SIZE, IMAGES, PRECISIONS = 224, 16, ("fp32", "int8")


def export(network: str, folder: Path) -> tuple[list[Artifact], dict[str, float], np.ndarray, np.ndarray]:
    """Every file that can be made here; MB by its name; images, uint8 (N, 224, 224, 3); PyTorch's answers to them."""
    torch.manual_seed(0)
    spec = InputSpec(SIZE, SIZE, config.IMAGENET_MEAN, config.IMAGENET_STD)
    labels = tuple(f"class {i}" for i in range(1000))
    model = Classifier(build(config.Backbone(name=network)), labels, spec).eval()
    deployed = Deployed(model, spec, labels=labels)
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, SIZE, SIZE, 3), dtype=np.uint8)
    made, sizes = [], {}
    for kind in registry.formats():
        format_ = open_format(kind.name).without_timing()
        if kind.special_device or not kind.board_packages:
            continue
        if why := format_.missing():
            print(f"without {kind.title}: {why}", file=sys.stderr)
            continue
        for precision in PRECISIONS:
            out = folder / f"{kind.name}-{precision}"
            out.mkdir()
            artifact = format_.convert(deployed, precision, images, out)
            sizes[artifact.name] = sum(path.stat().st_size for path in format_.files(artifact.path)) / 1e6
            made.append(artifact)
    return made, sizes, images[:4], deployed.predict(images[:4])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="mobilenetv3_large_100")
    parser.add_argument("--memory", type=int, default=debian_board.MEMORY_MB, help="of the board, MB")
    parser.add_argument("--cpu", default=debian_board.CPU)
    asked = parser.parse_args()
    if why := debian_board.why_not():
        sys.exit(why)
    with tempfile.TemporaryDirectory() as temporary:
        files, sizes, images, wanted = export(asked.network, Path(temporary))
        np.save(Path(temporary) / "images.npy", images)
        plan = TimingPlan.of("quick", Path(temporary) / "images.npy", files[0].spec, warmup=1, time_limit_s=1200.0)
        with debian_board.running(asked.memory, asked.cpu) as address, open_device(address) as device:
            device.prepare(files)
            facts, measured = device.describe(), device.run(files, plan)
    print(f"{facts['cpu']}, {facts['memory_bytes'] / 1e6:.0f} MB, {facts['os']}, Python {facts['python']}\n")
    print("| file | MB | runtime | peak memory, MB | largest difference of a probability to PyTorch |")
    print("|---|---|---|---|---|")
    for file, found in zip(files, measured, strict=True):
        name, size = file.name, sizes[file.name]
        if found.outputs is None or found.peak_memory_bytes is None:
            print(f"| {name} | {size:.1f} | {found.skipped} | not run | not run |")
            continue
        apart = np.abs(found.outputs - wanted).max()
        print(f"| {name} | {size:.1f} | {found.runtime} | {found.peak_memory_bytes / 1e6:.0f} | {apart:.1e} |")


if __name__ == "__main__":
    main()
