"""Checkpoints and weights files: what is read is what was written, or nothing is read."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from softedge import backbones, config
from softedge.errors import UserError
from softedge.records import InputSpec
from softedge.weights import checkpoints

SPEC = InputSpec(32, 32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
CONTENT = {"weights": torch.arange(40.0).view(8, 5), "step": 7, "state": (1, [2.5])}


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_no_bit_of_a_checkpoint_can_change_unnoticed(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoints.write(path, CONTENT)
    assert torch.equal(checkpoints.read(path)["weights"], CONTENT["weights"])
    data = path.read_bytes()
    for bit in range(0, 8 * len(data), 3):
        path.write_bytes(flipped(data, bit))
        with pytest.raises(checkpoints.Damaged):
            checkpoints.read(path)


def test_no_length_of_a_cut_checkpoint_is_read(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoints.write(path, CONTENT)
    data = path.read_bytes()
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(checkpoints.Damaged):
            checkpoints.read(path)


def test_a_checkpoint_is_still_a_file_of_torch(tmp_path: Path) -> None:
    checkpoints.write(tmp_path / "last.pt", CONTENT)
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 7


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoints.write(path, CONTENT)
    with pytest.raises(AttributeError):
        checkpoints.write(path, {"function": lambda: None})  # cannot be pickled
    assert checkpoints.read(path)["step"] == 7
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def small_classifier() -> backbones.Classifier:
    backbone = backbones.build(config.Backbone(name="mobilenetv3_small_050", stem_stride=2))
    return backbones.Classifier(backbone, ("cat", "dog"), SPEC)


def test_a_changed_bit_in_a_file_of_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "classifier.safetensors"
    written = small_classifier()
    backbones.save(path, written, SPEC)
    assert torch.equal(backbones.load_classifier(path).head.weight, written.head.weight)
    data, draws = path.read_bytes(), random.Random(0)
    first = 8 + int.from_bytes(data[:8], "little")  # of the weights, after the header
    for bit in [draws.randrange(8 * first, 8 * len(data)) for _ in range(8)]:
        path.write_bytes(flipped(data, bit))
        with pytest.raises(UserError, match=r"classifier\.safetensors cannot be read as weights \(damaged"):
            backbones.load_classifier(path)
    path.write_bytes(data.replace(b"cat", b"cow", 1))
    with pytest.raises(UserError, match="damaged"):
        backbones.load_classifier(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_never_written(tmp_path: Path, value: float) -> None:
    classifier = small_classifier()
    with torch.no_grad():
        classifier.head.bias[1] = value
    with pytest.raises(UserError, match=r"classifier\.safetensors is not written: 'head\.bias' holds NaN"):
        backbones.save(tmp_path / "classifier.safetensors", classifier, SPEC)
    assert list(tmp_path.iterdir()) == []
