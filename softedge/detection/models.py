"""A pretrained backbone inside torchvision's detectors: Faster / Mask R-CNN with FPN or C4, and SSDLite for phones."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from softedge.backbones import Backbone
from softedge.detection.settings import Transfer
from softedge.errors import UserError
from softedge.records import InputSpec

Head = Literal["fpn", "c4", "ssdlite"]
_RATIOS = (0.5, 1.0, 2.0)
_SIZES = (32, 64, 128, 256, 512)  # of anchors, pixels


def build(
    backbone: Backbone, head: Head, classes: int, masks: bool, settings: Transfer, spec: InputSpec, short_sides: Any
) -> nn.Module:
    """A detector that takes lists of float (3, H, W) in 0..1, with targets while training (torchvision's interface).

    classes: without the background.  masks: add a mask head; SSDLite has none.  All BatchNorms are trained, those of
    the heads too (He et al. 2020, arXiv 1911.05722, section 4.2).
    """
    common: dict[str, Any] = {"num_classes": None, "image_mean": list(spec.mean), "image_std": list(spec.std)}
    if head == "ssdlite":
        if masks:
            raise UserError("the ssdlite head has no masks; use --set transfer.head=fpn, or transfer.masks=false")
        return _ssdlite(features(backbone, (3, 4)), classes, short_sides[0], spec)
    sides = {"min_size": tuple(short_sides), "max_size": settings.long_side}
    model = (_c4 if head == "c4" else _fpn)(backbone, classes, masks, settings.rois, {**common, **sides})
    # torchvision tests at the last training size; the papers test at 800.
    model.transform = _Resize(settings.test_short_side, model.transform)
    return model


def features(backbone: Backbone, stages: tuple[int, ...]) -> nn.Module:
    """The same network with its feature maps as outputs; stage i has stride 2^(i + 1). Weights are copied."""
    import timm

    if backbone.settings.stem_stride == 1 and backbone.settings.name.startswith("resnet"):
        raise UserError(
            f"{backbone.settings.name} with a stem for small images (backbone.stem_stride = 1) has no detector here; "
            "pretrain it with backbone.stem_stride = 2"
        )
    net = timm.create_model(backbone.settings.name, features_only=True, out_indices=stages, pretrained=False)
    state = backbone.net.state_dict()
    missing = net.load_state_dict({k: v for k, v in state.items() if k in net.state_dict()}, strict=False).missing_keys
    if missing:
        raise UserError(
            f"{backbone.settings.name}: {len(missing)} weights of the feature maps are missing: {missing[0]}"
        )
    return net


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


def _fpn(backbone: Backbone, classes: int, masks: bool, rois: int, common: dict[str, Any]) -> nn.Module:
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


def _c4(backbone: Backbone, classes: int, masks: bool, rois: int, common: dict[str, Any]) -> nn.Module:
    """R-CNN on stride 16 with the network's last stage as the head: MoCo's setting, and the paper's for ResNet-18."""
    import copy

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


def _ssdlite(net: nn.Module, classes: int, side: int, spec: InputSpec) -> nn.Module:
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


class _Resize(nn.Module):
    """torchvision's resizing with a test size of its own."""

    def __init__(self, test_short_side: int, transform: Any):
        super().__init__()
        self.transform, self.test_short_side, self.sides = transform, test_short_side, transform.min_size

    def forward(self, images: list[Tensor], targets: Any = None) -> Any:
        self.transform.min_size = self.sides if self.training else (self.test_short_side,)
        return self.transform(images, targets)

    def postprocess(self, *values: Any) -> Any:
        return self.transform.postprocess(*values)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """All parameters; those of norm layers without weight decay, as in Detectron2."""
    norms = {
        id(p)
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for p in module.parameters(recurse=False)
    }
    decayed = [p for p in model.parameters() if id(p) not in norms and p.requires_grad]
    plain = [p for p in model.parameters() if id(p) in norms and p.requires_grad]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


@torch.no_grad()
def without_shared(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with each tensor once: the C4 head's last stage serves boxes and masks under two names."""
    seen: set[int] = set()
    state = {}
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen or not tensor.numel():
            seen.add(tensor.data_ptr())
            state[name] = tensor.detach().cpu().contiguous()
    return state
