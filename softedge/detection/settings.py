"""The [transfer] section of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from softedge.section import Fraction, Positive, Section


class Transfer(Section):
    """Detection and instance segmentation; 0, () and "auto" are the task's own, after MoCo's Detectron2 settings:
    24k iterations at 480 to 800 pixels on VOC, 90k (1x) at 640 to 800 on COCO."""

    init: str = "ssl"  # "ssl", "random", "imagenet" (timm downloads them) or a weights file
    head: Literal["auto", "fpn", "c4", "ssdlite"] = "auto"  # auto: C4 for ResNet (the paper's), FPN for the others
    masks: bool = True  # where the data has them and the head can
    iterations: int = Field(default=0, ge=0)
    batch: Positive = 16
    lr: float = Field(default=0.02, gt=0.0)  # at the batch above
    momentum: Fraction = 0.9
    weight_decay: float = Field(default=1e-4, ge=0.0)
    warmup: int = Field(default=100, ge=0)  # iterations
    clip_norm: float = Field(default=0.0, ge=0.0)  # 0: no clipping
    short_sides: tuple[Positive, ...] = ()  # pixels, one drawn for each image; ssdlite: side of the square input
    test_short_side: Positive = 800
    long_side: Positive = 1333
    rois: Positive = 512  # proposals per image that the box head is trained on
    evaluate_every: int = Field(default=0, ge=0)  # iterations; 0: at the end only
    checkpoint_every: Positive = 500  # iterations
    workers: int = Field(default=2, ge=0)
