"""Where the time of a worker goes: each part of making two views of a JPEG photo alone.

    python benchmarks/loader_parts.py --photos FOLDER [--count 64] [--repeats 7]

Processor milliseconds per image, medians over the rounds, one thread. The parts take turns.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np
import simplejpeg
import torch
from loader_peers import load_images

from softedge.config import Augment
from softedge.data import image_views
from softedge.data.decoding import read
from softedge.data.draws import draw, two_views
from softedge.data.images import FileImages
from softedge.machine.memory import keep_freed
from softedge.machine.provenance import cpu_name


def parts(images: FileImages, size: int) -> dict[str, Callable[[int], object]]:
    """Name -> what is done with image i."""
    count = len(images)
    files = [images.read(i) for i in range(count)]
    pixels = [simplejpeg.decode_jpeg(data, "RGB") for data in files]
    draws = draw(0, 0, np.arange(count), two_views(size, Augment()))
    crops = [[image_views.crop(pixels[i], each, i, size) for each in draws] for i in range(count)]

    return {
        "reading the file": lambda i: read(images.path(i)),
        "simplejpeg, 1/8 of the size (entropy decoding)": lambda i: simplejpeg.decode_jpeg(
            files[i], "RGB", min_height=1, min_width=1, min_factor=8
        ),
        "simplejpeg, whole": lambda i: simplejpeg.decode_jpeg(files[i], "RGB"),
        "two crops of an image in memory": lambda i: [image_views.crop(pixels[i], each, i, size) for each in draws],
        "colouring two crops": lambda i: [image_views.colour(crop, each, i) for crop, each in zip(crops[i], draws)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    keep_freed()  # as in our workers
    images, size = load_images(options.photos, options.count, large=True)
    assert isinstance(images, FileImages)
    todo = parts(images, size)
    times: dict[str, list[float]] = {name: [] for name in todo}
    for _ in range(options.repeats + 1):  # the first round warms up
        for name, work in todo.items():
            began = time.process_time()
            for i in range(len(images)):
                work(i)
            times[name].append((time.process_time() - began) / len(images) * 1e3)
    print(f"{cpu_name()}, one thread, {options.repeats} rounds, {len(images)} photos\n")
    print("| part | ms per image (min to max) |\n|---|---|")
    for name, values in times.items():
        kept = values[1:]
        print(f"| {name} | {np.median(kept):.3f} ({min(kept):.3f} to {max(kept):.3f}) |")


if __name__ == "__main__":
    main()
