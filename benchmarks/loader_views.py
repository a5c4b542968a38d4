"""Are a loader's views those of MoCo-v2's own code? A boosted tree tries to tell them from Pillow and torchvision v1.

    python benchmarks/loader_views.py --photos FOLDER [--small FOLDER] [--each 1500]

The area under its ROC curve: 0.5 where it cannot. The first row is the reference against itself, drawn anew.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "data"))

import cv2
import numpy as np
import torch
from loader_peers import CONTENDERS, load_images
from two_sample import auc, statistics

from softedge.config import IMAGENET_MEAN, IMAGENET_STD, Augment
from softedge.data import batch_views
from softedge.data.draws import draw, two_views
from softedge.data.images import ArrayImages, Images

REFERENCE = "torchvision v1 on Pillow"
COMPARED = ("lightly", "torchvision v2 on tensors", "albumentations, area downscale")
BATCH = 25


def to_levels(views: torch.Tensor) -> np.ndarray:
    """Normalised floats (N, 3, S, S), or uint8 (N, S, S, 3), to uint8 (N, S, S, 3)."""
    if views.dtype == torch.uint8:
        return views.numpy()
    mean, std = torch.tensor(IMAGENET_MEAN)[:, None, None], torch.tensor(IMAGENET_STD)[:, None, None]
    return ((views * std + mean) * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def sample(name: str, images: Images, size: int, each: int, seed: int) -> np.ndarray:
    """Statistics of ``each`` views, two of every image and then from the start again."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - albumentations' and torchvision's own state
    torch.manual_seed(seed)
    run = CONTENDERS[name](images, size)
    found: list[np.ndarray] = []
    at = 0
    while sum(map(len, found)) < each:
        index = np.arange(at, at + BATCH) % len(images)
        found += [statistics(to_levels(view)) for view in run(index)]
        at += BATCH
    return np.concatenate(found)[:each]


def ours(images: Images, size: int, each: int, batched: bool) -> np.ndarray:
    """Our views in fresh epochs: one after another, or with the tensor operations that a GPU runs."""
    from softedge.data.loading import ViewMaker
    from softedge.data.small_views import views as small

    found: list[np.ndarray] = []
    for epoch in range(each // len(images) + 1):
        for start in range(0, len(images), BATCH):
            index = np.arange(start, min(start + BATCH, len(images)))
            draws = draw(5, epoch, index, two_views(size, Augment()))
            if isinstance(images, ArrayImages) and not batched:
                made = [small(images.array[index], part, size) for part in draws]
            elif isinstance(images, ArrayImages):
                rows = batch_views.to_rows(torch.from_numpy(images.array[index]))
                made = [batch_views.views(rows, part, size).numpy() for part in draws]
            else:
                chunk = ViewMaker(images, two_views(size, Augment()), 5, crops_only=batched)[epoch, index]
                made = [view.numpy() for view in chunk.views]
                if batched:
                    rows2 = [batch_views.to_rows(torch.from_numpy(m)).float() for m in made]
                    made = [batch_views.to_uint8(batch_views.colour(r, p)).numpy() for r, p in zip(rows2, draws)]
            found += [statistics(view) for view in made]
        if sum(map(len, found)) >= each:
            break
    return np.concatenate(found)[:each]


def compare(folder: Path, large: bool, count: int, each: int) -> None:
    images, size = load_images(folder, count, large)
    expected = sample(REFERENCE, images, size, each, seed=0)
    print(f"\n{each} views of {len(images)} images at {size} pixels\n\n| views | AUC against {REFERENCE} |\n|---|---|")
    print(f"| the same, drawn anew | {auc(sample(REFERENCE, images, size, each, seed=1), expected):.3f} |", flush=True)
    for batched in (False, True):
        name = "ours, tensor operations (as on a GPU)" if batched else "ours, on a CPU"
        print(f"| {name} | {auc(ours(images, size, each, batched), expected):.3f} |", flush=True)
    for name in COMPARED:
        try:
            print(f"| {name} | {auc(sample(name, images, size, each, seed=2), expected):.3f} |", flush=True)
        except ImportError as error:
            print(f"| {name} | not run ({error}) |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--small", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--each", type=int, default=1500)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    for folder, large in ((options.photos, True), (options.small, False)):
        if folder is not None:
            compare(folder, large, options.count, options.each)


if __name__ == "__main__":
    main()
