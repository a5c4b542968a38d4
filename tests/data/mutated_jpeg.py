"""Damaged JPEG files for the native decoder: what it takes must be what the other decoders make of it.

The test suite runs a few hundred. For more, with the sanitizers of the compiler (on Linux; each failure ends the run):

    gcc -g -O1 -fsanitize=address,undefined -fno-sanitize-recover -shared -fPIC -o /tmp/jpeg.so softedge/data/jpeg.c
    LD_PRELOAD=$(gcc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc \\
        python tests/data/mutated_jpeg.py --library /tmp/jpeg.so --minutes 15 --photos FOLDER
"""

from __future__ import annotations

import argparse
import ctypes
import io
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from softedge.data import native_jpeg
from softedge.data.decoding import BadImage, decode
from softedge.data.native_jpeg import Native

SIDES = (1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 48, 70)
KINDS: tuple[dict[str, object], ...] = (
    {"quality": 90, "subsampling": 2},
    {"quality": 75, "subsampling": 1},
    {"quality": 95, "subsampling": 0},
    {"quality": 100, "subsampling": 2, "optimize": True},
    {"quality": 30, "subsampling": 0, "optimize": True},
    {"quality": 60, "subsampling": 2, "restart_marker_blocks": 2},
    {"quality": 85, "subsampling": 0, "restart_marker_rows": 1},
    {"quality": 80, "grey": True},
)


def picture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Smooth colours, edges and noise: long and short runs, small and large coefficients. uint8 (height, width, 3)."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / rng.uniform(1, 20) + rng.uniform(0, 6)) * np.cos(y / rng.uniform(1, 20)) for _ in range(3)]
    image = 128 + 127 * np.stack(waves, 2) + rng.normal(0, rng.choice([0, 2, 40]), (height, width, 3))
    image[height // 3 :, width // 2 :] += rng.choice([-200, 0, 200])
    return np.clip(image, 0, 255).astype(np.uint8)


def encoded(image: np.ndarray, grey: bool = False, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).convert("L" if grey else "RGB").save(buffer, "JPEG", **options)
    return buffer.getvalue()


def generated(rng: np.random.Generator) -> bytes:
    """A sound file of a random kind and size."""
    return encoded(picture(rng, *rng.choice(SIDES, 2).tolist()), **KINDS[rng.integers(len(KINDS))])  # type: ignore[arg-type]


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes changed, bits flipped, pieces removed, repeated or swapped, or the end cut off."""
    changed = bytearray(data)
    for _ in range(int(rng.choice([1, 1, 1, 2, 5, 30]))):
        # As often in the header as in all of the rest.
        at = int(rng.integers(min(700, len(changed)) if rng.random() < 0.5 else len(changed)))
        length = int(rng.integers(1, 20))
        how = rng.integers(8)
        if how < 3:
            changed[at] = int(
                rng.choice([0, 1, 2, 0x11, 0x22, 0x7F, 0x80, 0xC4, 0xD0, 0xD9, 0xFE, 0xFF, rng.integers(256)])
            )
        elif how == 3:
            changed[at] ^= 1 << int(rng.integers(8))
        elif how == 4:
            del changed[at : at + length]
        elif how == 5:
            changed[at:at] = changed[at : at + length]
        elif how == 6:
            other = int(rng.integers(len(changed)))
            changed[at : at + length] = changed[other : other + length]
        elif rng.random() < 0.3:
            del changed[at:]
        if len(changed) < 8:
            break
    return bytes(changed)


def pixels(native: Native, data: bytes, box: tuple[int, int, int, int] | None = None) -> np.ndarray | None:
    """What the native decoder makes of (a part of) a file, or None."""
    head = native.head(data)
    return None if head is None else native.decode(data, box or (0, 0, head.width, head.height))


def without_native(data: bytes) -> np.ndarray | None:
    """What the other decoders make of it, or None for a bad file. Exif is not looked at by what is compared."""
    there, native_jpeg.decoder = native_jpeg.decoder, lambda: None  # type: ignore[assignment]
    try:
        return decode(data.replace(b"Exif\0", b"Axif\0"))
    except BadImage:
        return None
    finally:
        native_jpeg.decoder = there


def check(native: Native, data: bytes, rng: np.random.Generator) -> str:
    """Compare one file, whole and two parts and crops of it; returns what happened to it."""
    head = native.head(data)
    if head is None:
        return "left because of its header"
    if head.width * head.height > 4_000_000:
        return "too large to compare"
    whole, expected = pixels(native, data), None
    if whole is not None:
        expected = without_native(data)
        assert expected is not None, "taken, though bad"
        assert np.array_equal(whole, expected), "other pixels"
    boxes = []
    for _ in range(2):
        left, top = int(rng.integers(head.width)), int(rng.integers(head.height))
        boxes.append(
            (left, top, int(rng.integers(1, head.width - left + 1)), int(rng.integers(1, head.height - top + 1)))
        )
    for left, top, width, height in boxes:
        part = pixels(native, data, (left, top, width, height))
        assert part is not None or whole is None, "a part is left, but the whole is taken"
        if part is not None:
            expected = without_native(data) if expected is None else expected
            assert expected is not None, "a part is taken, though the file is bad"
            assert np.array_equal(part, expected[top : top + height, left : left + width]), "other pixels in a part"
    size = int(rng.choice([1, 7, 32, 50]))
    views = [np.empty((size, size, 3), np.uint8) for _ in boxes]
    if native.crops(data, boxes, [True, False], views):
        expected = without_native(data) if expected is None else expected
        assert expected is not None, "crops are taken, though the file is bad"
        for view, box, flip in zip(views, boxes, (True, False)):
            assert np.array_equal(view, native.resize(expected, box, flip, size)), "other crops"
    else:
        assert whole is None, "crops are left, but the whole is taken"
    return "left because of its scan" if whole is None else "taken"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, required=True)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    library = ctypes.CDLL(str(options.library))
    natives = [Native(library), Native(library, plain=True)]
    photos = [path.read_bytes() for path in sorted(options.photos.iterdir())] if options.photos else []
    rng, seen = np.random.default_rng(options.seed), Counter[str]()
    while time.process_time() < 60 * options.minutes:
        photo = photos and rng.random() < 0.3
        data = mutate(photos[rng.integers(len(photos))] if photo else generated(rng), rng)
        try:
            seen[check(natives[rng.integers(2)], data, rng)] += 1
        except AssertionError:
            Path("mutated.jpg").write_bytes(data)
            raise
    print(dict(seen))


if __name__ == "__main__":
    main()
