"""The MoCo-v2 view as its authors' code makes it, with Pillow and torchvision, one step after another.

``view`` follows given draws, to compare pixels. ``random_view`` draws by itself, to compare distributions.
"""

from __future__ import annotations

import random

import numpy as np
from PIL import Image, ImageFilter
from torchvision import transforms
from torchvision.transforms import functional as F

from softedge.config import Augment
from softedge.data.draws import Draws, box

_ADJUST = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)


def view(image: np.ndarray, draws: Draws, row: int, size: int) -> np.ndarray:
    """The view of ``image`` that row ``row`` of ``draws`` describes, uint8 (size, size, 3)."""
    left, top, width, height = box(draws, row, image.shape[1], image.shape[0])
    picture = Image.fromarray(image).crop((left, top, left + width, top + height))
    picture = picture.resize((size, size), Image.Resampling.BILINEAR)
    if draws.jitter[row]:
        for operation in draws.order[row]:
            picture = _ADJUST[operation](picture, float(draws.factors[row, operation]))
    if draws.grey[row]:
        picture = F.to_grayscale(picture, 3)
    if draws.sigma[row] > 0:
        picture = picture.filter(ImageFilter.GaussianBlur(float(draws.sigma[row])))
    return np.asarray(F.hflip(picture) if draws.flip[row] else picture)


class _Blur:
    """As in MoCo-v2's loader.py."""

    def __init__(self, sigma: tuple[float, float]):
        self.sigma = sigma

    def __call__(self, picture: Image.Image) -> Image.Image:
        return picture.filter(ImageFilter.GaussianBlur(radius=random.uniform(*self.sigma)))


def random_view(size: int, augment: Augment) -> transforms.Compose:
    """The transform of MoCo-v2's main_moco.py, without the conversion to a tensor."""
    jitter = transforms.ColorJitter(augment.brightness, augment.contrast, augment.saturation, augment.hue)
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=(augment.min_area, 1.0)),
            transforms.RandomApply([jitter], p=augment.jitter),
            transforms.RandomGrayscale(p=augment.grey),
            transforms.RandomApply([_Blur(augment.blur_sigma)], p=augment.blur),
            transforms.RandomHorizontalFlip(p=augment.flip),
        ]
    )
