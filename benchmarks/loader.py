"""Time per image and core: our loader against lightly, torchvision and albumentations, on the same files in one run.

    python benchmarks/loader.py --photos FOLDER        JPEG photos, two views at 224 pixels, from file to views
    python benchmarks/loader.py --small FOLDER         small images, already in memory, two views at their own size

Every contender is a process of its own with one thread, as a worker of a data loader is; they take turns, so that
whatever else the machine does hits all of them; what is counted is processor time. Peers that are not installed are
left out and named. The result is a table in Markdown.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import numpy as np
from loader_peers import CONTENDERS, FILES_ONLY, load_images

BATCH = 32
VERSIONS_OF = ("torch", "torchvision", "pillow", "opencv-python-headless", "simplejpeg", "lightly", "albumentations")


def contend(name: str, folder: Path, count: int, large: bool, pipe: Connection) -> None:
    """Child process: answer "ready" or why not, then a time in milliseconds per image for each "go"."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    images, size = load_images(folder, count, large)
    batches = [np.arange(start, min(start + BATCH, len(images))) for start in range(0, len(images), BATCH)]
    try:
        run = CONTENDERS[name](images, size)
        run(batches[0])
    except ImportError as error:
        pipe.send(str(error))
        return
    pipe.send("ready")
    while pipe.recv() == "go":
        began = time.process_time()
        for batch in batches:
            run(batch)
        pipe.send((time.process_time() - began) / len(images) * 1e3)


def measure(folder: Path, count: int, large: bool, repeats: int) -> tuple[dict[str, list[float]], list[str]]:
    """Processor milliseconds per image (two views) of every contender in every round, and who is missing and why."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    missing: list[str] = []
    for name in CONTENDERS:
        if name in FILES_ONLY and not large:
            continue
        pipe, child = context.Pipe()
        context.Process(target=contend, args=(name, folder, count, large, child), daemon=True).start()
        child.close()  # so that a child that dies is noticed
        try:
            answer = pipe.recv()
        except EOFError:
            answer = "it ended with an error"
        if answer == "ready":
            pipes[name] = pipe
        else:
            missing.append(f"{name}: not run ({answer})")
    times: dict[str, list[float]] = {name: [] for name in pipes}
    for round_ in range(repeats):
        for name, pipe in pipes.items():
            pipe.send("go")
            times[name].append(pipe.recv())
        print(f"round {round_ + 1} of {repeats}", file=sys.stderr)
    for pipe in pipes.values():
        pipe.send("stop")
    return times, missing


def table(times: dict[str, list[float]], against: tuple[str, ...] = ("lightly", "torchvision v1 on Pillow")) -> str:
    """Medians, spread, and the median of the ratios within each round."""
    others = [name for name in against if name in times]
    lines = [
        "| loader | ms per image (min to max) |" + "".join(f" × {name} |" for name in others),
        "|---|---|" + "---|" * len(others),
    ]
    for name, values in times.items():
        ratios = [np.median(np.array(times[other]) / values) for other in others]
        spread = f"{np.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"
        lines.append(f"| {name} | {spread} |" + "".join(f" {ratio:.1f} |" for ratio in ratios))
    return "\n".join(lines)


def versions() -> str:
    found = []
    for name in VERSIONS_OF:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def main() -> None:
    from softedge.machine.provenance import cpu_name

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--small", type=Path)
    parser.add_argument("--count", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    if options.photos is None and options.small is None:
        parser.error("give --photos FOLDER, --small FOLDER or both")
    print(f"{cpu_name()}, one thread, {options.repeats} rounds; {versions()}")
    for folder, large in ((options.photos, True), (options.small, False)):
        if folder is not None:
            count = options.count if large else 8 * options.count
            times, missing = measure(folder, count, large, options.repeats)
            where = "JPEG files, two views at 224 pixels" if large else "images in memory, two views at their own size"
            print(f"\n{count} {where}\n\n{table(times)}\n" + "\n".join(missing))


if __name__ == "__main__":
    main()
