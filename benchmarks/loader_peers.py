"""MoCo-v2 views as the peers make them, and ours: each a function from image numbers to two batches.

Every peer gets its own recommended building blocks and the recipe's parameters; images come from files through the
decoder that the peer's examples use, or from memory.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter

from softedge.backbones import normalise
from softedge.config import IMAGENET_MEAN, IMAGENET_STD, Augment
from softedge.data import sources
from softedge.data.draws import two_views
from softedge.data.images import ArrayImages, FileImages, Images
from softedge.data.loading import ViewMaker
from softedge.data.pixel_store import open_store
from softedge.data.views import ViewLoader
from softedge.machine.memory import keep_freed
from softedge.records import InputSpec

Contender = Callable[[np.ndarray], Any]


def load_images(folder: Path, count: int, large: bool) -> tuple[Images, int]:
    """Images spread over a folder, and the size of the views: files at 224 pixels, or an array at its own size."""
    images: Images = next(iter(sources.find(str(folder)).splits.values()))
    images = images.subset(np.linspace(0, len(images) - 1, min(count, len(images))).astype(int))
    if large:
        return images, 224
    pixels = np.stack([images.decode(i) for i in range(len(images))])
    return ArrayImages(pixels, images.labels, images.names), pixels.shape[1]


class PillowBlur:
    """GaussianBlur of MoCo-v2's loader.py."""

    def __call__(self, picture: Image.Image) -> Image.Image:
        return picture.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


def _picture(images: Images, index: int) -> Image.Image:
    """As torchvision's datasets hand an image to a transform."""
    if isinstance(images, FileImages):
        with open(images.path(index), "rb") as file:
            return Image.open(file).convert("RGB")
    return Image.fromarray(images.decode(index))


def _in_pairs(
    images: Images, load: Callable[[Images, int], Any], transform: Callable[[Any], torch.Tensor]
) -> Contender:
    def run(index: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        loaded = [load(images, i) for i in index.tolist()]
        return tuple(torch.stack([transform(image) for image in loaded]) for _ in range(2))  # type: ignore[return-value]

    return run


def torchvision_v1(images: Images, size: int) -> Contender:
    from torchvision import transforms as t

    transform = t.Compose(
        [
            t.RandomResizedCrop(size, scale=(0.2, 1.0)),
            t.RandomApply([t.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            t.RandomGrayscale(p=0.2),
            t.RandomApply([PillowBlur()], p=0.5),
            t.RandomHorizontalFlip(),
            t.ToTensor(),
            t.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    return _in_pairs(images, _picture, transform)


def torchvision_v2(images: Images, size: int) -> Contender:
    """v2 on uint8 tensors, as its documentation recommends for speed."""
    from torchvision.io import decode_jpeg, read_file
    from torchvision.transforms import v2 as t

    transform = t.Compose(
        [
            t.RandomResizedCrop(size, scale=(0.2, 1.0), antialias=True),
            t.RandomApply([t.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            t.RandomGrayscale(p=0.2),
            t.RandomApply([t.GaussianBlur(kernel_size=13, sigma=(0.1, 2.0))], p=0.5),
            t.RandomHorizontalFlip(),
            t.ToDtype(torch.float32, scale=True),
            t.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )

    def load(images: Images, index: int) -> torch.Tensor:
        if isinstance(images, FileImages):
            return decode_jpeg(read_file(str(images.path(index))), mode="RGB")
        return torch.from_numpy(images.decode(index)).permute(2, 0, 1)

    return _in_pairs(images, load, transform)


def lightly(images: Images, size: int) -> Contender:
    from lightly.transforms import MoCoV2Transform

    transform = MoCoV2Transform(input_size=size)

    def run(index: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        pairs = [transform(_picture(images, i)) for i in index.tolist()]
        return tuple(torch.stack(views) for views in zip(*pairs))  # type: ignore[return-value]

    return run


def albumentations(images: Images, size: int) -> Contender:
    """With area downscaling: its default (bilinear without antialiasing) draws other views."""
    import albumentations as a
    import cv2

    transform = a.Compose(
        [
            a.RandomResizedCrop((size, size), scale=(0.2, 1.0), area_for_downscale="image"),
            a.ColorJitter((0.6, 1.4), (0.6, 1.4), (0.6, 1.4), (-0.1, 0.1), p=0.8),
            a.ToGray(p=0.2),
            a.GaussianBlur(blur_limit=0, sigma_limit=(0.1, 2.0), p=0.5),
            a.HorizontalFlip(p=0.5),
            a.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )

    def load(images: Images, index: int) -> np.ndarray:
        if isinstance(images, FileImages):
            return cv2.cvtColor(cv2.imread(str(images.path(index))), cv2.COLOR_BGR2RGB)
        return images.decode(index)

    return _in_pairs(images, load, lambda image: torch.from_numpy(transform(image=image)["image"]).permute(2, 0, 1))


def ours(
    images: Images,
    size: int,
    normalised: bool = False,
    crops_only: bool = False,
    cached: bool = False,
    stored: bool = False,
) -> Contender:
    """What one of our workers does; for images in memory, what the training process does.

    cached: decoded once, in memory.  stored: decoded once, in a store on disk.
    """
    spec = InputSpec(size, size, IMAGENET_MEAN, IMAGENET_STD)
    keep_freed()  # as in our workers
    if isinstance(images, FileImages):
        maker = ViewMaker(images, two_views(size, Augment()), seed=0, crops_only=crops_only)
        if cached and not maker.fill_cache(4 << 30):
            raise ImportError("the images do not fit into the cache")
        if stored:
            images.hashes = [hashlib.sha256(images.read(i)).hexdigest() for i in range(len(images))]
            maker.store = open_store(images, maker.at_least)

        def views(index: np.ndarray) -> list[torch.Tensor]:
            return maker[0, index].views
    else:
        loader = ViewLoader(images, two_views(size, Augment()), batch=len(images), seed=0)

        def views(index: np.ndarray) -> list[torch.Tensor]:
            return loader._in_process(0, index)[0]

    def run(index: np.ndarray) -> tuple[torch.Tensor, ...]:
        return tuple(normalise(view, spec) if normalised else view for view in views(index))

    return run


CONTENDERS: dict[str, Callable[[Images, int], Contender]] = {
    "lightly": lightly,
    "torchvision v1 on Pillow": torchvision_v1,
    "torchvision v2 on tensors": torchvision_v2,
    "albumentations, area downscale": albumentations,
    "ours, normalised floats": partial(ours, normalised=True),
    "ours, uint8 (normalised on the device)": ours,
    "ours, cached: decoded once": partial(ours, cached=True),
    "ours, decoded once, from disk": partial(ours, stored=True),
    "ours, crops only (the rest on a GPU)": partial(ours, crops_only=True),
}
FILES_ONLY = ("ours, cached: decoded once", "ours, decoded once, from disk", "ours, crops only (the rest on a GPU)")
