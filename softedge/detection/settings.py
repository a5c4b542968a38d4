"""The [transfer] section of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from softedge.recipes.section import Fraction, Positive, Section


class Transfer(Section):
    """Detection and instance segmentation; 0, () and "auto" are chosen by data, network and machine (``planning.py``).
    The recipes transfer-voc-c4 and transfer-coco-c4 have MoCo's settings."""

    init: str = "ssl"  # "ssl", "random", "imagenet" (timm downloads them) or a weights file
    head: Literal["auto", "fpn", "c4", "ssdlite"] = "auto"  # auto: C4 for a ResNet on a GPU, else SSDLite
    masks: bool = True  # where the data has them and the head can
    iterations: int = Field(default=0, ge=0)
    minutes: float = Field(default=0.0, ge=0.0)  # at most, where iterations is 0; 0: 15 on a CPU, no limit on a GPU
    batch: int = Field(default=0, ge=0)
    lr: float = Field(default=0.02, gt=0.0)  # at the batch above; at 16 pictures where that is chosen
    momentum: Fraction = 0.9
    weight_decay: float = Field(default=1e-4, ge=0.0)
    warmup: int = Field(default=100, ge=0)  # iterations
    clip_norm: float = Field(default=0.0, ge=0.0)  # 0: no clipping
    short_sides: tuple[Positive, ...] = ()  # pixels, one drawn for each image; ssdlite: side of the square input
    test_short_side: int = Field(default=0, ge=0)
    long_side: Positive = 1333
    rois: Positive = 512  # proposals per image that the box head is trained on
    evaluate_every: int = Field(default=0, ge=0)  # iterations; 0: at the end only
    checkpoint_every: Positive = 500  # iterations, and every minute
    workers: int = Field(default=2, ge=0)
