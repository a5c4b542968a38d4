"""A pretrained backbone as an extractor of feature maps."""

from __future__ import annotations

from torch import nn

from softedge.backbones import Backbone
from softedge.errors import UserError


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
