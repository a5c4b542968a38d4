"""Networks that Core ML's converter stumbles over, converted and run by the interpreter."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch

from softedge import backbones, config
from softedge.export.base import open_format
from softedge.export.coreml.format import CoreMl
from softedge.export.coreml.interpreter import Program
from softedge.export.coreml.predict import interpreted, planes
from softedge.export.deployed import Deployed
from softedge.records import InputSpec

pytest.importorskip("coremltools")


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tf_mobilenetv3_small_100"])
def test_networks_with_tensorflows_padding_are_converted_and_answer_as_in_pytorch(tmp_path, name):
    """Their padding is computed in the traced graph, from constants of shape (1,)."""
    spec = InputSpec(33, 33, (0.5,) * 3, (0.5,) * 3, "bicubic")
    classifier = backbones.Classifier(backbones.build(config.Backbone(name=name)), ("a", "b", "c"), spec).eval()
    deployed = Deployed(classifier, spec)
    images = np.random.default_rng(0).integers(0, 256, (2, 33, 33, 3), dtype=np.uint8)
    format_ = open_format("coreml")
    artifact = format_.convert(deployed, "fp32", images[:0], tmp_path)
    np.testing.assert_allclose(format_.load(artifact)(images), deployed.predict(images), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "at_once"), [("mobilevit_xxs", 1), ("edgenext_xx_small", 16), ("vit_tiny_patch16_224", 1)]
)
def test_networks_with_attention_answer_as_in_pytorch_one_image_at_a_time_where_shapes_ask_for_it(
    tmp_path, name, at_once
):
    """MobileViT folds patches into the batch, by the shapes of one image."""
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=3, **({"img_size": 64, "depth": 2} if name.startswith("vit") else {}))
    deployed = Deployed(net, InputSpec(64, 64, (0.5,) * 3, (0.5,) * 3), labels=("a", "b", "c"))
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    artifact = CoreMl().convert(deployed, "fp32", images[:0], tmp_path)
    assert Program(artifact.path).at_once(planes(images)) == at_once
    np.testing.assert_allclose(interpreted(artifact)(images), deployed.predict(images), atol=1e-4)
