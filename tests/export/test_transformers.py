"""Networks whose weights are matrices behind tokens: quantized like convolutions, or not called int8."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import timm
import torch
from torch import nn

from softedge.errors import UserError
from softedge.export.base import open_format
from softedge.export.deployed import Deployed
from softedge.records import InputSpec
from softedge.stages.artifact import refuse_float

SPEC = InputSpec(32, 32, (0.5,) * 3, (0.5,) * 3)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 64, "num_heads": 2, "num_classes": 5}
    network = Deployed(timm.create_model("vit_tiny_patch16_224", **sizes), SPEC, labels=tuple("abcde"))
    with torch.no_grad():
        network.model.head.weight *= 50
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    format_ = open_format("onnx")
    files = {}
    for precision in ("fp32", "fp16", "int8"):
        folder = tmp_path_factory.mktemp(precision)
        files[precision] = format_.convert(network, precision, images, folder)
    return format_, files, network, images


def test_linear_layers_of_a_transformer_compute_in_integers(exported):
    """Two blocks of four layers, and the classifier; attention has no weights and stays in float."""
    format_, files, *_ = exported
    assert format_.integer_operations(files["int8"]) == {"conv": 1, "linear": 9}
    assert format_.integer_operations(files["fp32"]) == {"conv_float": 1, "linear_float": 9}
    assert files["int8"].size_bytes < 0.4 * files["fp32"].size_bytes
    graph = onnx.load(files["int8"].path).graph
    stored = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    assert not [node for node in graph.node if node.op_type == "MatMul" and node.input[1] in stored]


def test_a_quantized_transformer_answers_like_its_fp32(exported):
    format_, files, network, images = exported
    found, wanted = format_.load(files["int8"])(images), network.predict(images)
    assert np.abs(found - wanted).mean() < 0.05
    assert (found.argmax(1) == wanted.argmax(1)).mean() >= 0.9


def test_a_transformer_in_half_precision_keeps_its_shapes_in_integers(exported):
    """The batch size that the tracer reads from the image is no number to be halved."""
    format_, files, network, images = exported
    assert np.abs(format_.load(files["fp16"])(images) - network.predict(images)).max() < 0.02
    assert files["fp16"].size_bytes < 0.6 * files["fp32"].size_bytes


class Table(nn.Module):
    """Most of its weights are no layer's: no format stores them in 8 bits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.table = nn.Conv2d(3, 8, 8, 8), nn.Parameter(torch.randn(1, 8, 128, 128))
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head((nn.functional.interpolate(x, 128) * self.table).mean((2, 3)))


def test_a_file_whose_weights_stayed_in_float_is_not_called_int8(tmp_path):
    network = Deployed(Table(), SPEC, labels=tuple("abcde"))
    images = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    artifact = open_format("onnx").convert(network, "int8", images, tmp_path)
    with pytest.raises(
        UserError, match="most weights stayed in float, in operators that this format does not quantize"
    ):
        refuse_float(artifact, network)


def test_an_int8_file_is_called_int8(exported):
    _, files, network, _ = exported
    refuse_float(files["int8"], network)
