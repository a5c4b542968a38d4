"""All six architectures at 224 pixels: every format reads back as the same function, int8 is a quarter of the size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from softedge import config
from softedge.backbones import Classifier, build, normalise
from softedge.export.deployed import Deployed
from softedge.export.onnx.format import Onnx
from softedge.export.onnx.quantizer import Scheme, quantized_ops
from softedge.export.openvino.format import OpenVino
from softedge.export.parity import compare
from softedge.records import InputSpec

NAMES = (
    "mobilenetv3_large_100",
    "mobilenetv3_small_100",
    "efficientnet_b0",
    "efficientnet_b1",
    "resnet18",
    "resnet50",
)
SPEC = InputSpec(224, 256, config.IMAGENET_MEAN, config.IMAGENET_STD)

pytestmark = pytest.mark.slow


def pictures() -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (8, 28, 28, 3), dtype=np.uint8)
    return small.repeat(8, axis=1).repeat(8, axis=2)


@pytest.fixture(scope="module", params=NAMES)
def network(request) -> Classifier:
    """Random weights, with BatchNorm statistics of the pictures: activations spread as in a trained network."""
    net = Classifier(build(config.Backbone(name=request.param)), tuple("abcdefghij"), SPEC)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    net.train()
    with torch.no_grad():
        for _ in range(2):
            net(normalise(torch.from_numpy(pictures()), SPEC))
        net.head.weight *= 5
    return net.eval()


def test_onnx_and_openvino_files_read_back_as_the_same_function(network, tmp_path):
    images, deployed = pictures(), Deployed(network, SPEC)
    reference = deployed.predict(images)
    sizes = {}
    for target in (Onnx(scheme=Scheme()), OpenVino()):
        for precision, largest in (("fp32", 1e-4), ("fp16", 2e-2)):
            folder = tmp_path / f"{target.name}-{precision}"
            folder.mkdir()
            artifact = target.convert(deployed, precision, images[:0], folder)
            found = compare(target.load(artifact)(images), reference)
            assert found.max_abs_diff < largest, (artifact.name, found)
            sizes[artifact.name] = artifact.size_bytes
    artifact = Onnx(scheme=Scheme()).convert(deployed, "int8", images, tmp_path)
    import onnx

    counts = quantized_ops(onnx.load(artifact.path))
    convolutions = sum(isinstance(m, nn.Conv2d) for m in network.modules())
    assert counts["Conv"] == convolutions and counts["Gemm"] == 1
    assert artifact.size_bytes < 0.30 * sizes["onnx-fp32"]
    assert compare(Onnx().load(artifact)(images), reference).sqnr_db > 5


def test_embedding_export_gives_the_pooled_features(network, tmp_path):
    images, deployed = pictures()[:2], Deployed(network.backbone, SPEC)
    reference = deployed.predict(images)
    artifact = Onnx().convert(deployed, "fp32", images[:0], tmp_path)
    found = Onnx().load(artifact)(images)
    assert artifact.output == "features" and found.shape == (2, network.backbone.num_features)
    assert np.abs(found - reference).max() < 1e-4 * np.abs(reference).max()
