"""The golden images of exported files on another device: how far are its outputs from those of this machine?

    python benchmarks/golden_images.py RUN --only ncnn --devices emulated:arm64 emulated:arm64,precision=default

Answers, not times: an emulated processor will do.  A row of the table is a file on a device: the largest difference to
the outputs recorded at export, and on how many images it is beyond the contract's tolerance; the same to PyTorch.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from softedge.bench.base import TimingPlan, open_device
from softedge.export import contract
from softedge.export.base import open_format


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--devices", nargs="+", required=True)
    parser.add_argument("--only", default="", help="files whose names begin so: onnx, ncnn-fp16 ...")
    options = parser.parse_args()
    artifacts = [a for a in contract.exported(options.run / "export") if a.name.startswith(options.only)]
    print("| file | device | difference to the export | beyond its tolerance | difference to PyTorch |")
    print("|---|---|---|---|---|")
    for spec in options.devices:
        with open_device(spec) as device:
            for artifact in artifacts:
                folder = artifact.path.parent
                golden = contract.read_golden(folder)
                allowed = open_format(artifact.target).tolerance(artifact.precision).replay
                plan = TimingPlan("", 1, 0.0, folder / "golden" / "images.npy", artifact.spec, end_to_end_count=0)
                (measured,) = device.run([artifact], plan)
                if measured.outputs is None:
                    print(f"| {artifact.name} | {spec} | {measured.skipped} | | |")
                    continue
                gap, to_torch = (np.abs(measured.outputs - x).max(1) for x in (golden.expected, golden.pytorch))
                beyond = f"{int((gap > allowed).sum())} of {len(gap)} ({allowed:g})"
                print(f"| {artifact.name} | {spec} | {gap.max():.1g} | {beyond} | {to_torch.max():.2g} |", flush=True)


if __name__ == "__main__":
    main()
