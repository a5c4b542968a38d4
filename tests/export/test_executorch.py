"""ExecuTorch programs, an optional extra: the same contract, or one line that says what to install."""

from __future__ import annotations

import importlib.util
import sys
import types

import numpy as np
import pytest
import torch
from tiny_network import SPEC
from torch import nn

from softedge import progress
from softedge.errors import UserError
from softedge.export.contract import artifact_of
from softedge.export.deployed import Deployed
from softedge.export.executorch import format as executorch
from softedge.export.executorch.candidates import ExecuTorchCandidates
from softedge.export.executorch.format import ExecuTorch
from softedge.export.executorch.quantizer import ANNOTATION, round_behind_clamps, without_first
from softedge.export.parity import compare

installed = importlib.util.find_spec("executorch") is not None


@pytest.mark.skipif(installed, reason="executorch is installed here")
def test_without_the_package_one_line_says_what_to_install(deployed, tmp_path):
    absent = " and ".join(name for name in ("executorch", "torchao") if not importlib.util.find_spec(name))
    assert ExecuTorch().missing() == (
        f"exporting to ExecuTorch needs {absent}; install it with: pip install 'softedge[executorch]'"
    )
    (tmp_path / "model.pte").write_bytes(b"")
    artifact = artifact_of(tmp_path / "model.pte", "executorch", "fp32", deployed.spec)
    with pytest.raises(UserError, match="running an ExecuTorch file needs executorch"):
        ExecuTorch().load(artifact)


def test_precisions_it_does_not_have_and_missing_images_are_refused(deployed, pictures, tmp_path):
    with pytest.raises(UserError, match="no precision 'fp16'"):
        ExecuTorch().convert(deployed, "fp16", pictures, tmp_path)
    with pytest.raises(UserError, match="needs calibration images, found none"):
        ExecuTorch().convert(deployed, "int8", pictures[:0], tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not installed, reason="needs executorch: pip install 'softedge[executorch]'")
@pytest.mark.parametrize(("precision", "largest"), [("fp32", 1e-5), ("int8", 0.4)])
def test_reloaded_program_agrees_with_pytorch(deployed, pictures, tmp_path, precision, largest):
    target = ExecuTorch()
    artifact = target.convert(deployed, precision, pictures[:20], tmp_path)
    found = compare(target.load(artifact)(pictures), deployed.predict(pictures))
    assert found.max_abs_diff <= largest and found.agreement >= 0.9


class Clamped(nn.Module):
    """A convolution whose outputs go far beyond 6, as in networks trained with ReLU6."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 16, 16), nn.Linear(16, 5)
        self.conv.weight.data *= 30

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(nn.functional.relu6(self.conv(x)).flatten(1))


def test_the_rounding_of_an_output_that_a_clamp_reads_moves_behind_the_clamp():
    pytest.importorskip("torchao")
    from torchao.quantization.pt2e import MinMaxObserver
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec

    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.Conv2d(4, 4, 3)).eval()
    graph = torch.export.export(network, (torch.zeros(1, 3, 8, 8),), strict=True).module()
    spec = QuantizationSpec(torch.int8, MinMaxObserver)
    nodes = {str(node.target): node for node in graph.graph.nodes}  # of the two convolutions the second
    convolutions = [node for node in graph.graph.nodes if str(node.target) == "aten.conv2d.default"]
    for node in convolutions:
        node.meta[ANNOTATION] = QuantizationAnnotation(output_qspec=spec, _annotated=True)
    round_behind_clamps(graph)
    assert convolutions[0].meta[ANNOTATION].output_qspec is None
    assert nodes["aten.hardtanh.default"].meta[ANNOTATION].output_qspec is spec
    assert convolutions[1].meta[ANNOTATION].output_qspec is spec, "no clamp reads it"


@pytest.mark.slow
@pytest.mark.skipif(not installed, reason="needs executorch: pip install 'softedge[executorch]'")
def test_int8_of_a_relu6_network_spends_its_levels_between_0_and_6(pictures, tmp_path):
    """38 dB; rounded before the clamp, with steps several times as wide, 34 dB."""
    network = Deployed(Clamped(), SPEC, labels=tuple("abcde"))
    target = ExecuTorch()
    artifact = target.convert(network, "int8", pictures[:20], tmp_path)
    assert compare(target.load(artifact)(pictures), network.predict(pictures)).sqnr_db > 36


def test_the_first_layers_are_left_in_float_up_to_the_input_of_the_next():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 5)).eval()
    graph = torch.export.export(network, (torch.zeros(1, 3, 8, 8),), strict=True).module()
    rounded = ("aten.conv2d.default", "aten.hardtanh.default", "aten.flatten.using_ints", "aten.linear.default")

    def annotated(count):
        for node in graph.graph.nodes:
            node.meta.pop(ANNOTATION, None)
            if str(node.target) in rounded:
                node.meta[ANNOTATION] = "8 bits"
        without_first(graph, count)
        return [str(node.target).split(".")[1] for node in graph.graph.nodes if ANNOTATION in node.meta]

    assert annotated(0) == ["conv2d", "hardtanh", "conv2d", "flatten", "linear"]
    assert annotated(1) == ["conv2d", "flatten", "linear"]
    assert annotated(2) == ["linear"]
    assert annotated(3) == annotated(0), "a network without any integers would be no int8 file"


def test_options_are_lowered_with_their_layers_in_float_and_their_own_weights(deployed, pictures, tmp_path):
    asked = []

    def lower(network, calibration, in_float):
        asked.append((network, len(calibration), in_float))
        return b"program"

    candidates = ExecuTorchCandidates(
        deployed, pictures[:20], lower, lambda path: lambda some: np.array([path.read_bytes()])
    )
    options = list(candidates.calibrations())
    assert [option.tier for option in options] == [0, 1, 2] and asked == []
    assert candidates.predict(options[2], pictures).tolist() == [b"program"] * len(pictures)
    assert candidates.write(options[2], tmp_path).read_bytes() == b"program"
    other = candidates.reweighted(options[1], "rounded", {})
    candidates.predict(other, pictures)
    assert asked == [(deployed, 20, 2), ("rounded", 20, 1)], "what is written after it was asked is made once"


def test_what_is_lowered_casts_the_image_first_and_answers_as_the_network(deployed, pictures):
    program = executorch._cast_first(deployed)
    with torch.no_grad():
        answers = program(torch.from_numpy(pictures)).numpy()
    np.testing.assert_allclose(answers, deployed.predict(pictures), atol=1e-6)
    nodes = torch.export.export(program, (torch.from_numpy(pictures[:1]),)).graph.nodes
    made = [value for node in nodes if isinstance(value := node.meta.get("val"), torch.Tensor)]
    assert next(value for value in made if value.dtype == torch.float32 and value.dim() == 4).shape[-1] == 3


class Talking:
    """ExecuTorch's Python module: its C++ prints to Python's ``sys.stderr``, and raises a code."""

    lines: tuple[str, ...] = ("[cpuinfo_utils.cpp:71] Reading file /sys/devices/soc0/image_version",)
    error: Exception | None = None

    def forward(self, inputs):
        for line in self.lines:
            print(line, file=sys.stderr)
        if self.error is not None:
            raise self.error
        return [inputs[0].float().mean((1, 2))]


@pytest.fixture
def talking(monkeypatch):
    program, module = Talking(), types.ModuleType("portable_lib")
    module._load_for_executorch = lambda path: program
    for name in ("executorch", "executorch.extension", "executorch.extension.pybindings"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "executorch.extension.pybindings.portable_lib", module)
    monkeypatch.setattr(executorch, "needs", lambda *packages, **extra: None)
    return program


def test_what_the_runtime_prints_at_the_first_image_is_not_shown(talking, pictures, tmp_path, capfd):
    answers = executorch.load_model(tmp_path / "model.pte")(pictures)
    np.testing.assert_allclose(answers, pictures.mean((1, 2)), rtol=1e-6)
    assert capfd.readouterr() == ("", "")


def test_the_error_of_an_image_that_does_not_run_says_what_the_runtime_printed_about_it(talking, pictures, tmp_path):
    talking.lines = (*talking.lines, "[method.cpp:1243] Error resizing tensor at input 0")
    talking.error = RuntimeError("Failed to execute method forward, error: 0x10")
    with pytest.raises(RuntimeError) as failed:
        executorch.load_model(tmp_path / "model.pte")(pictures)
    assert str(failed.value) == (
        "ExecuTorch: Failed to execute method forward, error: 0x10: [method.cpp:1243] Error resizing tensor at input 0"
    )


def test_int8_shows_how_far_along_its_images_are(deployed, pictures, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_PLAIN_EVERY_SECONDS", -1.0)
    candidates = ExecuTorchCandidates(deployed, pictures, lambda *asked: b"", lambda path: deployed.predict)
    candidates.predict(next(candidates.calibrations()), pictures[:2])
    assert capsys.readouterr().err.splitlines() == ["running int8: 1/2", "running int8: 2/2"]


def test_the_progress_of_an_export_is_shown_and_what_other_libraries_print_is_not(
    deployed, pictures, tmp_path, monkeypatch, capsys
):
    class Observed(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            print("an observer's warning", file=sys.stderr)
            return image

    pt2e = types.ModuleType("quantize_pt2e")
    pt2e.prepare_pt2e, pt2e.convert_pt2e = lambda model, how: Observed(), lambda model: model
    for name in ("torchao", "torchao.quantization", "torchao.quantization.pt2e"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "torchao.quantization.pt2e.quantize_pt2e", pt2e)
    monkeypatch.setattr(executorch, "quantizer", lambda in_float: None)

    def lower(network, calibration, in_float):
        executorch._quantize(nn.Identity(), (torch.from_numpy(pictures[:1]),), calibration, in_float)
        return b""

    monkeypatch.setattr(progress, "_PLAIN_EVERY_SECONDS", -1.0)
    monkeypatch.setattr(executorch, "_lower", lower)
    monkeypatch.setattr(executorch, "load_model", lambda path: deployed.predict)
    ExecuTorch().convert(deployed, "int8", pictures[:4], tmp_path)
    said = capsys.readouterr().err
    assert "calibrating: 4/4" in said and "running int8: 4/4" in said and "observer" not in said
