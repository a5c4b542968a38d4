"""Faster R-CNN and Mask R-CNN on a backbone: a feature pyramid (FPN), or one map of stride 16 (C4)."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from softedge.backbones import Backbone
from softedge.detection.features import features
from softedge.errors import UserError

_RATIOS = (0.5, 1.0, 2.0)
_SIZES = (32, 64, 128, 256, 512)  # of anchors, pixels


class Resize(nn.Module):
    """torchvision's resizing with a test size of its own."""

    def __init__(self, test_short_side: int, transform: Any):
        super().__init__()
        self.transform, self.test_short_side, self.sides = transform, test_short_side, transform.min_size

    def forward(self, images: list[Tensor], targets: Any = None) -> Any:
        self.transform.min_size = self.sides if self.training else (self.test_short_side,)
        return self.transform(images, targets)

    def postprocess(self, *values: Any) -> Any:
        return self.transform.postprocess(*values)


class Maps(nn.Module):
    """A timm feature extractor with named outputs, behind a feature pyramid (Lin et al. 2017, arXiv 1612.03144)."""

    def __init__(self, net: nn.Module, channels: list[int], width: int):
        super().__init__()
        from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

        self.net = net
        self.pyramid = FeaturePyramidNetwork(channels, width, LastLevelMaxPool(), nn.BatchNorm2d)
        self.out_channels = width

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.pyramid(OrderedDict((str(i), x) for i, x in enumerate(self.net(images))))


def fpn(backbone: Backbone, classes: int, masks: bool, rois: int, common: dict[str, Any]) -> nn.Module:
    """Strides 4 to 64, 256 channels. Box head: four convolutions with BatchNorm for ResNets, two linear layers else."""
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.faster_rcnn import (
        FasterRCNN,
        FastRCNNConvFCHead,
        FastRCNNPredictor,
        RPNHead,
        TwoMLPHead,
    )
    from torchvision.models.detection.mask_rcnn import MaskRCNN, MaskRCNNHeads, MaskRCNNPredictor

    width = 256
    net: Any = features(backbone, (1, 2, 3, 4))
    maps = Maps(net, net.feature_info.channels(), width)
    anchors = AnchorGenerator(tuple((size,) for size in _SIZES), (_RATIOS,) * len(_SIZES))
    box_head: nn.Module = TwoMLPHead(width * 49, 1024)
    if backbone.settings.name.startswith("resnet"):
        box_head = FastRCNNConvFCHead((width, 7, 7), [width] * 4, [1024], norm_layer=nn.BatchNorm2d)
    parts: dict[str, Any] = {
        "rpn_anchor_generator": anchors,
        "rpn_head": RPNHead(width, len(_RATIOS)),
        "box_head": box_head,
        "box_predictor": FastRCNNPredictor(1024, classes + 1),
        "box_batch_size_per_image": rois,
    }
    if not masks:
        return FasterRCNN(maps, **common, **parts)
    parts["mask_head"] = MaskRCNNHeads(width, [width] * 4, 1, norm_layer=nn.BatchNorm2d)
    return MaskRCNN(maps, **common, **parts, mask_predictor=MaskRCNNPredictor(width, 256, classes + 1))


class Stride16(nn.Module):
    """conv1 to layer3 of a ResNet: one map of stride 16."""

    def __init__(self, net: Any):
        super().__init__()
        self.stem = nn.Sequential(net.conv1, net.bn1, net.act1, net.maxpool)
        self.layer1, self.layer2, self.layer3 = net.layer1, net.layer2, net.layer3
        self.out_channels = net.feature_info[3]["num_chs"]

    def forward(self, images: Tensor) -> Tensor:
        return self.layer3(self.layer2(self.layer1(self.stem(images))))


class Aligned(nn.Module):
    """RoIAlign without the half-pixel shift (ROIAlignV2 of Detectron2) on one map of stride 16: (R, C, 14, 14)."""

    def forward(self, maps: dict[str, Tensor], boxes: list[Tensor], image_shapes: Any) -> Tensor:
        from torchvision.ops import roi_align

        return roi_align(maps["0"], boxes, 14, spatial_scale=1 / 16, sampling_ratio=-1, aligned=True)


class Stage5(nn.Module):
    """layer4 and the extra BatchNorm of MoCo's C4 head, on pooled regions: (R, 256, 14, 14) -> (R, 512, 7, 7)."""

    def __init__(self, layer4: nn.Module, channels: int):
        super().__init__()
        self.layer4, self.norm = layer4, nn.BatchNorm2d(channels)

    def forward(self, regions: Tensor) -> Tensor:
        return self.norm(self.layer4(regions))


class Pooled(nn.Module):
    """Stage 5, averaged over each region: (R, 512)."""

    def __init__(self, stage: Stage5):
        super().__init__()
        self.stage = stage

    def forward(self, regions: Tensor) -> Tensor:
        return self.stage(regions).mean((2, 3))


def c4(backbone: Backbone, classes: int, masks: bool, rois: int, common: dict[str, Any]) -> nn.Module:
    """R-CNN on stride 16 with the network's last stage as the head: MoCo's setting, and the paper's for ResNet-18."""
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, RPNHead
    from torchvision.models.detection.mask_rcnn import MaskRCNN, MaskRCNNPredictor

    if not backbone.settings.name.startswith("resnet"):
        raise UserError(f"the c4 head is for ResNets, not {backbone.settings.name}; use --set transfer.head=fpn")
    features(backbone, (4,))  # the same refusals
    net: Any = copy.deepcopy(backbone.net)
    body, channels = Stride16(net), net.feature_info[4]["num_chs"]
    stage = Stage5(net.layer4, channels)
    parts: dict[str, Any] = {
        "rpn_anchor_generator": AnchorGenerator((_SIZES,), (_RATIOS,)),
        "rpn_head": RPNHead(body.out_channels, len(_SIZES) * len(_RATIOS)),
        "rpn_pre_nms_top_n_train": 12000,
        "rpn_pre_nms_top_n_test": 6000,
        "box_head": Pooled(stage),
        "box_predictor": FastRCNNPredictor(channels, classes + 1),
        "box_batch_size_per_image": rois,
    }
    model: nn.Module
    if masks:
        predictor = MaskRCNNPredictor(channels, 256, classes + 1)
        model = MaskRCNN(body, **common, **parts, mask_head=stage, mask_predictor=predictor)
        model.roi_heads.mask_roi_pool = Aligned()  # type: ignore[union-attr]
    else:
        model = FasterRCNN(body, **common, **parts)
    model.roi_heads.box_roi_pool = Aligned()  # type: ignore[union-attr]
    return model
