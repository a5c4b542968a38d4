"""Networks that Core ML's converter stumbles over, converted and run by the interpreter."""

from __future__ import annotations

import numpy as np
import pytest

from softedge import backbones, config
from softedge.export.base import open_format
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
