"""The first half hour on a GPU, most valuable part first: checks, CIFAR-10 from nothing, throughput, additive study.

    python benchmarks/gpu.py --data CIFAR10 --out runs/gpu [--minutes 28] [--parts checks cifar10 speed additive]
    python benchmarks/gpu.py --data CIFAR10 --pack cifar10.npz     one file of its JPEGs, easier to carry than 60,000
    python benchmarks/gpu.py --dry-run --out runs/dry              all parts on a CPU, tiny, on generated pictures

Every row is printed and kept (OUT/rows.jsonl) as it is measured; the same command goes on where it was stopped, and
what does not fit into --minutes is named as not run. Trainings that are cut off keep their checkpoint.

checks    pytest -m gpu --slow; loss and gradients of one step of every method on CUDA against the CPU, in float32.
cifar10   MobileNetV3-Large without labels for 2 and then for 8 minutes, k-NN (k = 200) and Ang's linear protocol on the
          10,000 test images. The epochs are planned once, from the pace of the first steps, and kept in plan.json.
speed     224 pixels, views made on the GPU, bfloat16, compiled and not; then ``loss.py`` on the GPU.
additive  the seven recipes of Light-MoCo's Table II on CIFAR-10, a seed at a time, MobileNetV3-Small, then the others.

DATA is what softedge takes (class folders in train/ and test/) or a packed file. Needs torch, timm, numpy, Pillow,
OpenCV, pydantic and safetensors; no export or runtime package, and no network.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
NEEDED = ("torch", "torchvision", "timm", "numpy", "PIL", "cv2", "pydantic", "safetensors")
PARTS = ("checks", "cifar10", "speed", "additive")
WHOLE = ("checks", "speed")  # their rows cannot go on where they were stopped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="CIFAR-10: a folder with train/ and test/, or a packed file")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--minutes", type=float, default=28.0, help="of all parts together")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pack", type=Path, help="only write this file")
    parser.add_argument("--dry-run", action="store_true")
    asked = parser.parse_args()
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        sys.exit(f"gpu.py needs {', '.join(missing)}: install or carry wheels (pip install --no-deps --target DIR)")
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    import gpu_parts
    from gpu_session import Session

    if asked.pack:
        gpu_parts.pack(asked.data, asked.pack)
        return
    if not asked.dry_run and not asked.data:
        parser.error("give --data, or --dry-run")
    session = Session(asked.out, time.monotonic() + 60 * asked.minutes, asked.dry_run, tuple(asked.seeds))
    session.note("environment", **gpu_parts.environment())
    data = gpu_parts.generated() if asked.dry_run else gpu_parts.read(asked.data)
    for part in asked.parts:
        for name, limit, work in getattr(gpu_parts, part)(session, data):
            session.row(part, name, limit, work, whole=part in WHOLE)


if __name__ == "__main__":
    print(f"Python {platform.python_version()}", file=sys.stderr)
    main()
