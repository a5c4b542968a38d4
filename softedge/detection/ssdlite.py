"""SSDLite on a backbone: the detector for phones."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from functools import partial
from typing import Any

from torch import Tensor, nn

from softedge.records import InputSpec


class SixMaps(nn.Module):
    """Strides 16 and 32 of the backbone and four more, each half as large, by depthwise blocks (MobileNetV2, 6.2)."""

    def __init__(self, net: Any, norm: Any):
        super().__init__()
        from torchvision.ops import Conv2dNormActivation

        self.net = net
        widths = [*net.feature_info.channels(), 512, 256, 256, 128]
        block = partial(Conv2dNormActivation, norm_layer=norm, activation_layer=nn.ReLU6)
        self.extra = nn.ModuleList(
            nn.Sequential(
                block(before, after // 2, kernel_size=1),
                block(after // 2, after // 2, kernel_size=3, stride=2, groups=after // 2),
                block(after // 2, after, kernel_size=1),
            )
            for before, after in itertools.pairwise(widths[1:])
        )
        for layer in self.extra.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.03)
        self.widths = widths

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = list(self.net(images))
        for block in self.extra:
            maps.append(block(maps[-1]))
        return OrderedDict((str(i), x) for i, x in enumerate(maps))


def ssdlite(net: nn.Module, classes: int, side: int, spec: InputSpec) -> nn.Module:
    """SSD with depthwise heads (Sandler et al. 2018, arXiv 1801.04381) on a square input of ``side`` pixels."""
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.ssd import SSD
    from torchvision.models.detection.ssdlite import SSDLiteHead

    norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
    maps = SixMaps(net, norm)
    anchors = DefaultBoxGenerator([[2, 3]] * len(maps.widths), min_ratio=0.2, max_ratio=0.95)
    head = SSDLiteHead(maps.widths, anchors.num_anchors_per_location(), classes + 1, norm)
    return SSD(
        maps,
        anchors,
        (side, side),
        classes + 1,
        image_mean=list(spec.mean),
        image_std=list(spec.std),
        head=head,
        score_thresh=0.001,
        nms_thresh=0.55,
        detections_per_img=100,
        topk_candidates=300,
    )
