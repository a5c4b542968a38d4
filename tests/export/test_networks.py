"""The networks that people deploy, from random weights: two training steps, a file, the same answers from the file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from softedge import backbones, config
from softedge.backbones import Classifier, normalise
from softedge.errors import UserError
from softedge.export.deployed import Deployed
from softedge.export.onnx.format import Onnx
from softedge.export.parity import compare
from softedge.records import InputSpec

SPEC = InputSpec(64, 64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
SMALL = (
    "tf_efficientnet_lite0",
    "mobilenetv4_conv_small_050",
    "mobilenetv2_035",
    "mobilenetv3_small_050",
    "efficientnet_b0",
    "resnet18",
    "lcnet_035",
)
LARGER = (
    "tf_efficientnet_lite1",
    "tf_efficientnet_lite2",
    "mobilenetv4_conv_small",
    "mobilenetv4_conv_medium",
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "lcnet_100",
    "resnet50",
    "regnety_002",
    "mnasnet_small",
    "ghostnet_100",
)
NAMES = (*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGER))


def pictures(count: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_trains_two_steps_and_its_file_answers_as_pytorch_does(name, tmp_path):
    classifier = Classifier(backbones.build(config.Backbone(name=name)), ("a", "b", "c"), SPEC).train()
    images, labels = pictures(), torch.arange(8) % 3
    optimizer = torch.optim.SGD(classifier.parameters(), 0.01)
    before = {key: value.clone() for key, value in classifier.named_parameters()}
    for _ in range(2):  # the last norms of a residual block start from 0: its convolutions move in the second step
        optimizer.zero_grad()
        functional.cross_entropy(classifier(normalise(torch.from_numpy(images), SPEC)), labels).backward()
        optimizer.step()
    still = [key for key, value in classifier.named_parameters() if torch.equal(value, before[key])]
    assert not [key for key in still if key.endswith("weight") and before[key].ndim == 4], still
    path = tmp_path / "classifier.safetensors"
    backbones.save(path, classifier, SPEC)
    deployed = Deployed.of(backbones.load_classifier(path), SPEC)
    artifact = Onnx().convert(deployed, "fp32", images[:0], tmp_path)
    assert compare(Onnx().load(artifact)(images), deployed.predict(images)).max_abs_diff < 1e-4


def test_networks_that_do_not_fit_are_one_line():
    with pytest.raises(UserError, match=r"unknown backbone 'mobilenetv9'"):
        backbones.build(config.Backbone(name="mobilenetv9"))
    with pytest.raises(UserError, match="any size .* convolutional one, .* distill RUN --teacher vit_tiny_patch16_224"):
        backbones.build(config.Backbone(name="vit_tiny_patch16_224"))
    with pytest.raises(UserError, match="another kind of stem"):
        backbones.build(config.Backbone(name="regnety_002", stem_stride=1))
