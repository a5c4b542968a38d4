"""ncnn networks, an optional extra: the same contract, or one line that says what to install."""

from __future__ import annotations

import dataclasses
import errno
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import softedge
from softedge import backbones, config
from softedge.backbones import Classifier
from softedge.bench.base import TimingPlan, open_device
from softedge.errors import UserError
from softedge.export import contract, parity, snippet
from softedge.export.contract import artifact_of
from softedge.export.deployed import Deployed
from softedge.export.ncnn import convert
from softedge.export.ncnn.format import Ncnn
from softedge.export.parity import compare
from softedge.records import Artifact, InputSpec

PACKAGE = Path(softedge.__file__).parent
absent = [name for name in ("ncnn", "pnnx") if importlib.util.find_spec(name) is None]
needs_both = pytest.mark.skipif(bool(absent), reason="needs ncnn and pnnx: pip install 'softedge[ncnn]'")


@pytest.mark.skipif("ncnn" not in absent, reason="ncnn is installed here")
def test_without_the_packages_one_line_says_what_to_install(deployed, pictures, tmp_path):
    line = f"exporting to ncnn needs {' and '.join(absent)}; install it with: pip install 'softedge[ncnn]'"
    assert Ncnn().missing() == line
    with pytest.raises(UserError, match="exporting to ncnn needs ncnn"):
        Ncnn().convert(deployed, "fp32", pictures[:0], tmp_path)
    for name in ("model.param", "model.bin"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match="running an ncnn file needs ncnn"):
        Ncnn().load(artifact_of(tmp_path / "model.param", "ncnn", "fp32", deployed.spec))


def test_precisions_it_does_not_have_and_missing_images_are_refused(deployed, pictures, tmp_path):
    with pytest.raises(UserError, match="no precision 'w8a16'; known: fp32, fp16, int8"):
        Ncnn().convert(deployed, "w8a16", pictures, tmp_path)
    with pytest.raises(UserError, match="needs calibration images, found none"):
        Ncnn().convert(deployed, "int8", pictures[:0], tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, deployed: Deployed, pictures: np.ndarray) -> dict[str, Artifact]:
    """The tiny network in every precision."""
    found = {}
    for precision in Ncnn.precisions:
        folder = tmp_path_factory.mktemp(precision)
        found[precision] = Ncnn().convert(deployed, precision, pictures[:40], folder)
    return found


def network_of(name: str) -> Deployed:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Classifier(backbones.build(config.Backbone(name=name)), ("a", "b", "c"), SPEC).eval()
        nn.init.normal_(next(m for m in reversed(list(net.modules())) if isinstance(m, nn.Linear)).weight, 0, 1)
    return Deployed(net, SPEC)


SPEC = InputSpec(64, 64, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@needs_both
@pytest.mark.parametrize("name", ["mobilenetv3_small_100", "tf_efficientnet_lite0"])
def test_reloaded_files_agree_with_pytorch(name, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    network = network_of(name)
    wanted = network.predict(images)
    for precision, largest in (("fp32", 1e-4), ("fp16", 1e-2)):
        (tmp_path / precision).mkdir()
        artifact = Ncnn().convert(network, precision, images[:0], tmp_path / precision)
        assert compare(Ncnn().load(artifact)(images), wanted).max_abs_diff <= largest
        assert sorted(path.name for path in (tmp_path / precision).iterdir()) == ["model.bin", "model.param"]
    sizes = [(tmp_path / precision / "model.bin").stat().st_size for precision in ("fp32", "fp16")]
    assert 0.5 <= sizes[1] / sizes[0] < 0.52


@needs_both
def test_two_exports_have_the_same_bits(made, deployed, pictures, tmp_path):
    for precision, artifact in made.items():
        (tmp_path / precision).mkdir()
        assert Ncnn().convert(deployed, precision, pictures[:40], tmp_path / precision).sha256 == artifact.sha256


@needs_both
def test_int8_agrees_and_is_counted(made, deployed, pictures):
    found = compare(Ncnn().load(made["int8"])(pictures), deployed.predict(pictures))
    assert found.agreement >= 0.9 and found.sqnr_db > 20
    counted = Ncnn().integer_operations(made["int8"])
    assert counted["conv"] >= 3 and sum(counted.values()) == 7
    assert Ncnn().integer_operations(made["fp32"]) == {"conv_float": 6, "linear_float": 1}
    assert Ncnn().notes(made["int8"])["calibration"].endswith(" of 40 images") and Ncnn().notes(made["fp32"]) == {}


@needs_both
def test_files_compute_in_float32_whatever_the_options_say(made, pictures):
    """Left alone ncnn takes fp16 where the processor has it; bf16 stands for it here, which every processor has."""
    import ncnn

    from softedge.export.ncnn.predict import blob, extractor

    def answers(artifact: Artifact, bf16: bool) -> np.ndarray:
        net = ncnn.Net()
        net.opt.use_bf16_storage = bf16
        assert net.load_param(str(artifact.path)) == 0
        assert net.load_model(str(artifact.path.with_suffix(".bin"))) == 0
        return np.stack([blob(extractor(net, image), "probabilities") for image in pictures])

    for artifact in made.values():
        np.testing.assert_array_equal(answers(artifact, True), answers(artifact, False))
    path = made["fp32"].path
    path.with_name("free.param").write_text(path.read_text().replace(" 31=7", ""))
    path.with_name("free.bin").write_bytes(path.with_suffix(".bin").read_bytes())
    free = dataclasses.replace(made["fp32"], path=path.with_name("free.param"))
    assert np.abs(answers(free, True) - answers(free, False)).max() > 1e-4


@needs_both
def test_the_contract_names_both_files_and_a_change_in_either_is_found(made, deployed, pictures, tmp_path):
    artifact = Ncnn().convert(deployed, "fp32", pictures[:0], tmp_path)
    outputs = Ncnn().load(artifact)(pictures[:2])
    contract.write(tmp_path, artifact, contract.Golden(pictures[:2], outputs, outputs))
    values = contract.describe(tmp_path)
    assert values["files"] == ["model.param", "model.bin"] and "from_pixels" in values["input"]["given_as"]
    assert values["size_bytes"] == sum((tmp_path / name).stat().st_size for name in values["files"])
    assert softedge.verify(tmp_path)["passed"]
    for name in values["files"]:
        before = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(before[:-8] + b"11111111")
        with pytest.raises(UserError, match="was changed after the export"):
            contract.read(tmp_path)
        (tmp_path / name).write_bytes(before)
    contract.read(tmp_path)


@needs_both
def test_files_that_ncnn_does_not_take_are_one_line(made, tmp_path):
    artifact = made["fp32"]
    for name in ("model.param", "model.bin"):
        (tmp_path / name).write_bytes((artifact.path.parent / name).read_bytes())
    (tmp_path / "model.bin").write_bytes((tmp_path / "model.bin").read_bytes()[:100])
    damaged = artifact_of(tmp_path / "model.param", "ncnn", "fp32", artifact.spec, artifact.labels)
    with pytest.raises(UserError, match=r"model\.bin does not hold the weights of the network beside it"):
        Ncnn().load(damaged)
    (tmp_path / "model.param").write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match="is not an ncnn network"):
        Ncnn().load(damaged)


@needs_both
@pytest.mark.parametrize(
    ("network", "weights"), [("fp32", "int8"), ("int8", "fp32"), ("fp16", "int8"), ("int8", "fp16")]
)
def test_weights_of_another_precision_are_one_line_where_ncnn_would_crash(made, tmp_path, network, weights):
    shutil.copyfile(made[network].path, tmp_path / "model.param")
    shutil.copyfile(made[weights].path.with_suffix(".bin"), tmp_path / "model.bin")
    artifact = made[network]
    swapped = artifact_of(tmp_path / "model.param", "ncnn", network, artifact.spec, artifact.labels)
    with pytest.raises(UserError, match="does not hold the weights of the network beside it"):
        Ncnn().load(swapped)


ON_A_BOARD = (
    "import json, sys, numpy as np; sys.path[:0] = sys.argv[1:3]; from board_runtime import Runtime;"
    "model = Runtime(sys.argv[3], json.loads(sys.argv[4])); images = np.load(sys.argv[5]);"
    "np.save(sys.argv[6], np.concatenate([model.infer(image[None]) for image in images]));"
    "assert not [m for m in sys.modules if m.startswith(('softedge', 'torch'))];"
    "print(json.dumps(model.effective(images[:1])))"
)


def on_a_board(
    artifact: Artifact, images: np.ndarray, folder: Path, options: Mapping[str, str] = MappingProxyType({})
) -> tuple[np.ndarray, dict[str, Any]]:
    """The answers of the worker's half of a benchmark, in a process without softedge, and what it says of itself."""
    np.save(folder / "images.npy", images)
    settings = json.dumps({**Ncnn().board_settings(artifact, options), "threads": 2})
    folders = [PACKAGE / "export" / "ncnn", PACKAGE / "bench" / "board"]
    words = [*folders, artifact.path, settings, folder / "images.npy", folder / "found.npy"]
    command = [sys.executable, "-P", "-c", ON_A_BOARD, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return np.load(folder / "found.npy"), json.loads(done.stdout)


@needs_both
def test_a_board_answers_as_this_machine_does(made, pictures, tmp_path):
    precisions = {"fp32": "f32", "int8": "f32 + int8", "fp16": "f32"}
    for precision, artifact in made.items():
        found, row = on_a_board(artifact, pictures[:4], tmp_path)
        assert found.dtype == np.float32 and found.shape == (4, 5)
        np.testing.assert_allclose(found, Ncnn().load(artifact)(pictures[:4]), atol=1e-6)
        assert row["runtime"] == Ncnn().runtime() and row["threads"] == 2
        assert sorted(row["effective_precision"].split(" + ")) == precisions[precision].split(" + ")


@needs_both
def test_this_machine_runs_and_times_it_as_a_device(made, pictures, tmp_path):
    np.save(tmp_path / "images.npy", pictures[:4])
    plan = TimingPlan("", 2, 0.0, tmp_path / "images.npy", made["int8"].spec, end_to_end_count=0, slice_ms=1.0)
    (measured,) = open_device("local").run([made["int8"]], plan)
    assert not measured.skipped and measured.outputs is not None and len(measured.samples_ms) >= 2
    np.testing.assert_allclose(measured.outputs, Ncnn().load(made["int8"])(pictures[:4]), atol=1e-6)
    assert measured.runtime == Ncnn().runtime() and measured.threads == 1


@needs_both
def test_a_device_may_be_left_to_choose_its_arithmetic(made, pictures, tmp_path):
    """bf16 stands for the fp16 of other processors."""
    for precision in ("fp32", "int8"):
        exact = Ncnn().load(made[precision])(pictures[:4])
        found, row = on_a_board(made[precision], pictures[:4], tmp_path, {"precision": "bf16"})
        assert 1e-4 < np.abs(found - exact).max() < 0.1 and "effective_precision" not in row


@needs_both
def test_layers_before_their_activations_are_pytorchs(made, deployed, pictures):
    wanted = parity.reference_layers(deployed, pictures[:1])
    found = dict(Ncnn().layer_outputs(made["fp32"], pictures, deployed))
    assert list(found) == list(wanted) and len(found) == 7
    for name, value in found.items():
        np.testing.assert_allclose(value.reshape(-1), wanted[name].reshape(-1), atol=1e-4)


@needs_both
def test_the_python_snippet_passes_and_fails_when_the_expected_output_is_another(made, deployed, pictures, tmp_path):
    artifact = Ncnn().convert(deployed, "fp16", pictures[:0], tmp_path)
    golden = contract.Golden(pictures[:2], Ncnn().load(artifact)(pictures[:2]), deployed.predict(pictures[:2]))
    contract.write(tmp_path, artifact, golden)
    snippet.write(tmp_path)
    command = [sys.executable, str(tmp_path / "snippets" / "run.py")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.split()[0] in "abcde", done.stderr
    np.save(tmp_path / "golden" / "expected.npy", np.zeros((2, 5), np.float32))
    assert subprocess.run(command, capture_output=True).returncode == 1


class Odd(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.erfinv(torch.tanh(x.mean((2, 3))))


@needs_both
def test_an_operator_that_ncnn_has_not_is_named(tmp_path):
    network = Deployed(Odd(), InputSpec(16, 18, (0.5,) * 3, (0.25,) * 3), output="features")
    with pytest.raises(UserError, match="ncnn has no operator for aten::erfinv, which this network needs"):
        Ncnn().convert(network, "fp32", np.empty((0, 16, 16, 3), np.uint8), tmp_path)
    assert not list(tmp_path.iterdir())


@needs_both
@pytest.mark.parametrize(
    ("script", "line"),
    [
        (
            "#!/bin/sh\necho 'cannot read that' >&2; exit 3\n",
            r"\(exit code 3\): cannot read that",
        ),
        ("#!/bin/sh\nexit 0\n", r"cannot convert the network \(exit code 0\): it said nothing"),
        ("#!/bin/sh\ntouch network.ncnn.bin\n", r"cannot convert the network \(exit code 0\): it said nothing"),
        ("#!/bin/sh\nprintf '\\377\\376 broken'; exit 4\n", r"\(exit code 4\): \ufffd\ufffd broken"),
        ("#!/bin/sh\nexec sleep 60\n", "within 0 minutes; it was stopped"),
        ("", "pnnx cannot be started"),
    ],
)
def test_a_converter_that_fails_is_one_line(monkeypatch, deployed, pictures, tmp_path, script, line):
    program, out = tmp_path / "pnnx", tmp_path / "out"
    program.write_text(script)
    program.chmod(0o755 if script else 0o644)
    out.mkdir()
    monkeypatch.setattr(convert, "program", lambda: program)
    monkeypatch.setattr(convert, "LIMIT_S", 0.5)
    with pytest.raises(UserError, match=line):
        Ncnn().convert(deployed, "fp32", pictures[:0], out)
    assert not list(out.iterdir())


@needs_both
def test_a_disk_that_the_converter_fills_is_told_as_such(monkeypatch, deployed, pictures, tmp_path):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0))
    with pytest.raises(OSError) as caught:
        Ncnn().convert(deployed, "fp32", pictures[:0], tmp_path)
    assert caught.value.errno == errno.ENOSPC


@needs_both
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_disk_that_is_full_before_the_converter_begins_does_not_end_the_process(deployed):
    with pytest.raises(OSError) as caught:
        convert._trace(deployed, Path("/dev/full"))
    assert caught.value.errno == errno.ENOSPC


@needs_both
def test_a_last_layer_with_half_of_the_weights_is_never_left_in_float():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = backbones.build(config.Backbone(name="mobilenetv3_small_050", weights="random"))
    options = Ncnn().candidates(Deployed(backbone, SPEC, output="features"), "int8", np.zeros((1, 64, 64, 3), np.uint8))
    sizes = {name: blocks[0].values.size for name, blocks in options.float_files[1].items() if blocks}
    last = options.layers()[-1]
    assert sizes[last] > 0.4 * sum(sizes.values())
    kept = {options.float_layers(option) for option in options.calibrations()}
    assert len(kept) == 3 and not any(last in part for part in kept)
