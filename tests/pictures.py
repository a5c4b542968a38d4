"""Generated images for the data tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def photo(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A smooth colourful picture with some texture, uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return np.clip(smooth + rng.integers(-20, 21, (height, width, 1)), 0, 255).astype(np.uint8)


def save(path: Path, seed: int, **options: int) -> Path:
    """Write a photo; the format follows from the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo(seed, **options)).save(path)
    return path


def class_folders(root: Path, per_class: dict[str, int], start: int = 0, **options: int) -> Path:
    """root/<class>/<number>.jpg with different pictures everywhere."""
    seed = start
    for name, count in per_class.items():
        for number in range(count):
            save(root / name / f"{number}.jpg", seed, **options)
            seed += 1
    return root


def stripes(rng: np.random.Generator, label: int) -> Image.Image:
    """40 x 36 pixels of stripes: horizontal, vertical or diagonal by the label, in random colours."""
    y, x = np.mgrid[0:36, 0:40]
    phase = (y, x, x + y)[label] / rng.uniform(1.5, 2.5) + rng.uniform(0, 6)
    wave = (np.sin(phase)[..., None] + 1) / 2
    low, high = rng.integers(0, 90, 3), rng.integers(150, 256, 3)
    return Image.fromarray((low + wave * (high - low)).astype(np.uint8))


def turned(stored: Image.Image, orientation: int) -> Image.Image:
    """Upright, by Pillow, from the EXIF orientation that it is stored in."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    return stored.transpose(undo[orientation]) if orientation > 1 else stored
