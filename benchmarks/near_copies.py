"""Near-duplicates: recall and precision on copies made from photos, and the pair search on many thumbnails.

python benchmarks/near_copies.py --photos FOLDER --skip 1200     # photos that no threshold was chosen on
python benchmarks/near_copies.py --photos FOLDER --side 56      # of photos shrunk to a shorter side of 56 pixels
python benchmarks/near_copies.py --synthetic 50000               # time and memory of the pair search
python benchmarks/near_copies.py --photos FOLDER --files 50000 --out NEW   # ``softedge data`` on files
"""

from __future__ import annotations

import argparse
import csv
import io
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from softedge.data.decoding import decode
from softedge.data.inventory import EXTENSIONS
from softedge.data.near_copies import SIDE, Uint8, pairs, thumbnail


def saved(image: Uint8, quality: int) -> Uint8:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return decode(stream.getvalue())


def changes(rng: np.random.Generator) -> dict[str, Callable[[Uint8], Uint8]]:
    def cropped(image: Uint8) -> Uint8:
        height, width = (round(side * 0.95) for side in image.shape[:2])
        y, x = rng.integers(image.shape[0] - height + 1), rng.integers(image.shape[1] - width + 1)
        return saved(image[y : y + height, x : x + width], 85)

    return {
        "saved at quality 50": lambda image: saved(image, 50),
        "resized to 50 %": lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
        "cropped by 5 %": cropped,
        "brightened by 10 %": lambda image: saved(np.clip(image * 1.1, 0, 255).astype(np.uint8), 85),
    }


def shrunk(image: Uint8, side: int) -> Uint8:
    """The picture with a shorter side of ``side`` pixels; 0: as it is."""
    if not side:
        return image
    height, width = (max(side, round(length * side / min(image.shape[:2]))) for length in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def photos(folder: Path, skip: int, side: int) -> None:
    """Every photo and four copies of it; pairs of two different photos count as wrong."""
    rng = np.random.default_rng(0)
    paths = sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)
    chosen = [paths[i] for i in rng.permutation(len(paths))[skip:]]
    made = changes(rng)
    kinds = ["original", *made]
    thumbnails, source, kind, plain = [], [], [], 0
    for number, path in enumerate(chosen):
        image = shrunk(decode(path), side)
        for name, variant in (("original", image), *((name, change(image)) for name, change in made.items())):
            small = thumbnail(variant)
            if small is None:
                plain += 1
                if name == "original":
                    break
                continue
            thumbnails.append(small)
            source.append(number)
            kind.append(name)
    began = time.process_time()
    found = pairs(np.stack(thumbnails))
    seconds = time.process_time() - began
    right = [pair for pair in found if source[pair.first] == source[pair.second]]
    hit = {(source[p.first], kind[p.first], kind[p.second]) for p in right}
    hit |= {(number, second, first) for number, first, second in hit}
    taking_part = [number for number, name in zip(source, kind) if name == "original"]
    print(f"{len(chosen)} photos, {len(taking_part)} take part; {plain} originals or copies do not; {seconds:.1f} s")
    for name in kinds[1:]:
        print(f"  {name:22} recall {np.mean([(n, 'original', name) in hit for n in taking_part]):.4f}")
    different = {frozenset((source[p.first], source[p.second])) for p in found if p not in set(right)}
    print(f"  precision {len(right) / max(1, len(found)):.4f} of {len(found)} pairs; "
          f"{len(different)} pairs of different photos")  # fmt: skip
    for number, other in sorted(tuple(sorted(pair)) for pair in different):
        print(f"    {Path(chosen[number]).name} and {Path(chosen[other]).name}")


def synthetic(number: int) -> None:
    """Random pictures with the spectrum of photos (amplitude 1 / frequency), every 50th of them copied with noise."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None])
    amplitude = 1 / np.maximum(frequency, 1 / SIDE)
    thumbnails = np.empty((number, SIDE, SIDE), np.uint8)
    for start in range(0, number, 1000):
        shape = (min(1000, number - start), *amplitude.shape)
        noise = np.fft.irfft2(amplitude * (rng.normal(size=shape) + 1j * rng.normal(size=shape)), s=(SIDE, SIDE))
        noise -= noise.mean((1, 2), keepdims=True)
        thumbnails[start : start + 1000] = np.clip(128 + 50 * noise / noise.std((1, 2), keepdims=True), 0, 255)
    copies = number // 50
    copied = thumbnails[:copies] * 0.9 + rng.normal(0, 3, (copies, SIDE, SIDE))
    thumbnails[number - copies :] = np.clip(copied, 0, 255)
    began = time.process_time()
    found = pairs(thumbnails)
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    right = sum(pair.second - pair.first == number - copies for pair in found)
    print(f"{number} thumbnails: {seconds:.1f} s, peak {peak:.0f} MB, {right} of {copies} copies, {len(found)} pairs")


def make_files(number: int, folder: Path, out: Path) -> None:
    """JPEG files of 256 x 256 pixels in ten classes, each the mean of crops of two photos, so that no two are alike.

    One in 50 has a copy of quality 50 in its class.
    """
    rng = np.random.default_rng(0)
    paths = sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)
    some = [shrunk(decode(paths[i]), 320) for i in rng.permutation(len(paths))[:2000]]

    def crop() -> Uint8:
        photo = some[rng.integers(len(some))]
        y, x = (rng.integers(length - 255) for length in photo.shape[:2])
        return photo[y : y + 256, x : x + 256][:, :: rng.choice([1, -1])]

    for label in range(10):
        (out / f"class{label}").mkdir(parents=True)
    copies = number // 50
    for index in range(number - copies):
        picture = Image.fromarray((crop() // 2 + crop() // 2).astype(np.uint8))
        picture.save(out / f"class{index % 10}" / f"{index}.jpg", quality=90)
        if index < copies:
            picture.save(out / f"class{index % 10}" / f"{index}-copy.jpg", quality=50)


def files(number: int, folder: Path, out: Path) -> None:
    """``softedge data`` on ``make_files``, on one core: time, memory and how many of the copies it names."""
    # In a process of its own: the peak memory of a process includes that of the one it came from.
    making = multiprocessing.get_context("spawn").Process(target=make_files, args=(number, folder, out))
    making.start()
    making.join()
    if making.exitcode:
        raise SystemExit(making.exitcode)
    table = out.with_suffix(".csv")
    command = [sys.executable, "-m", "softedge", "data", str(out), "--pairs", str(table)]
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    began = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    wall = time.perf_counter() - began
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    with open(table, newline="") as rows:
        names = [(row["name"], row["other_name"]) for row in csv.DictReader(rows)]
    right = sum(a.removesuffix(".jpg") == b.removesuffix("-copy.jpg") for pair in names for a, b in (pair, pair[::-1]))
    print(
        f"{number} files: {used.ru_utime + used.ru_stime:.0f} processor seconds, {wall:.0f} s by the clock, peak "
        f"{used.ru_maxrss / 1e3:.0f} MB, {right} of {number // 50} copies, {len(names)} pairs"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--side", type=int, default=0)
    parser.add_argument("--synthetic", type=int, default=0)
    parser.add_argument("--files", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.photos and options.files:
        files(options.files, options.photos, options.out)
    elif options.photos:
        photos(options.photos, options.skip, options.side)
    if options.synthetic:
        synthetic(options.synthetic)
