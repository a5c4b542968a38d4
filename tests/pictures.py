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
