"""OpenVINO IR, read back from disk, against PyTorch."""

from __future__ import annotations

import re

import numpy as np
import openvino as ov
import pytest

from softedge.errors import UserError
from softedge.export.openvino import OpenVino
from softedge.export.openvino_int8 import layers
from softedge.export.parity import compare


@pytest.mark.parametrize(("precision", "largest"), [("fp32", 1e-5), ("fp16", 2e-2), ("int8", 0.4)])
def test_reloaded_file_agrees_with_pytorch(deployed, pictures, tmp_path, precision, largest):
    target = OpenVino()
    artifact = target.convert(deployed, deployed.spec, precision, pictures[:40], tmp_path)
    found = compare(target.load(artifact)(pictures), deployed.predict(pictures))
    assert found.max_abs_diff <= largest and found.sqnr_db > 15
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.bin", "model.xml"]
    text = artifact.path.read_text()
    assert 'names="image"' in text and 'names="probabilities"' in text and "&quot;a&quot;" in text
    if precision == "int8":
        assert text.count('type="FakeQuantize"') >= 6
        assert len(re.findall(r'element_type="i8"', text)) >= 6
    if precision == "fp16":
        assert 'element_type="f16"' in text


def test_batch_one_runs_many_images(deployed, pictures, tmp_path):
    target = OpenVino(batch="one")
    artifact = target.convert(deployed, deployed.spec, "fp32", pictures[:0], tmp_path)
    assert np.abs(target.load(artifact)(pictures[:3]) - deployed.predict(pictures[:3])).max() < 1e-5


def test_int8_without_images_and_a_damaged_file_are_one_clear_line(deployed, pictures, tmp_path):
    with pytest.raises(UserError, match="needs calibration images, found none"):
        OpenVino().convert(deployed, deployed.spec, "int8", pictures[:0], tmp_path)
    artifact = OpenVino().convert(deployed, deployed.spec, "fp32", pictures[:0], tmp_path)
    artifact.path.write_text(artifact.path.read_text()[:300])
    with pytest.raises(UserError, match="cannot be loaded by OpenVINO"):
        OpenVino().load(artifact)


def test_limits_of_a_rounding_are_stored_once(deployed, pictures, tmp_path):
    artifact = OpenVino().convert(deployed, deployed.spec, "int8", pictures[:8], tmp_path)
    text = artifact.path.read_text()
    constants = len(re.findall(r'name="[^"]*/(?:input|output)_(?:low|high)"', text))
    assert constants == 2 * text.count('type="FakeQuantize"')
    assert "nncf" not in text
    assert text.count("<dim>") == 4 + 2  # of the image and the probabilities; the runtime infers the others


def test_the_safe_file_has_weights_of_7_bits_where_products_are_added_in_pairs(deployed, pictures, tmp_path):
    largest = {}
    for safe in (False, True):
        folder = tmp_path / str(safe)
        folder.mkdir()
        artifact = OpenVino(safe=safe).convert(deployed, deployed.spec, "int8", pictures[:40], folder)
        network = ov.Core().read_model(artifact.path)
        dense = [op for op in layers(network).values() if op.get_type_name() != "GroupConvolution"]
        rounded = [op for op in dense if reads_rounded(op)]
        assert len(rounded) >= 3
        largest[safe] = [np.abs(weight_of(op).astype(int)).max() for op in rounded]
        assert compare(OpenVino().load(artifact)(pictures), deployed.predict(pictures)).sqnr_db > 15
    assert max(largest[True]) <= 64 < max(largest[False])


def reads_rounded(op):
    return op.input_value(0).get_node().get_type_name() == "FakeQuantize"


def weight_of(op):
    node = op.input_value(1).get_node()
    while node.get_type_name() != "Constant":
        node = node.input_value(0).get_node()
    return node.get_data()
