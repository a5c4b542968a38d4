"""LiteRT files through an environment of their own: the same contract, or one line that says how to make it."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

import softedge.bench.board
from softedge.errors import UserError
from softedge.export.contract import artifact_of
from softedge.export.deployed import Deployed
from softedge.export.finishing import finish
from softedge.export.litert import candidates as litert_candidates
from softedge.export.litert import environment as litert
from softedge.export.litert import strict
from softedge.export.litert.format import LiteRt
from softedge.export.onnx.ranges import Statistics
from softedge.export.parity import compare


def observed(names, lows, highs):
    """What the worker saw, without histograms: those that need one have the widest ranges."""
    return Statistics(tuple(names), lows, highs, None, np.tile([-np.inf, np.inf], (len(names), 1)))


def test_without_the_environment_one_line_says_how_to_make_it(monkeypatch, tmp_path, deployed, pictures):
    monkeypatch.setenv("SOFTEDGE_LITERT", str(tmp_path / "none"))
    assert "make it with: softedge setup litert" in (LiteRt().missing() or "")
    with pytest.raises(UserError, match="needs an environment of its own"):
        LiteRt().convert(deployed, "fp32", pictures[:0], tmp_path)
    assert not list(tmp_path.iterdir())


def test_failing_installation_is_one_line_and_is_not_taken_for_a_finished_one(monkeypatch, tmp_path):
    monkeypatch.setenv("SOFTEDGE_LITERT", str(tmp_path / "env"))
    monkeypatch.setattr(litert, "CONVERTER", "--no-index")
    with pytest.raises(UserError, match="LiteRT's environment could not be made in"):
        litert.make()
    assert LiteRt().missing() is not None


@pytest.fixture
def installing(monkeypatch, tmp_path):
    """LiteRT's environment without its packages: what pip is asked for, and what the worker does."""
    monkeypatch.setenv("SOFTEDGE_LITERT", str(tmp_path / "env"))
    packages, asked, called = tmp_path / "env/lib/python3/site-packages", [], litert._called

    def install(*names):
        asked.append(names)
        (packages / "litert_torch").mkdir(parents=True, exist_ok=True)

    def call(command):
        if command[-1] == litert._NEEDS:
            return "numpy\ntorchao>=0.17.0"
        if command[1] == "-c":
            return str(packages)
        return called([*command[:3], "--without-pip", *command[3:]])

    monkeypatch.setattr(litert, "_install", install)
    monkeypatch.setattr(litert, "_called", call)
    return asked, packages / "softedge-torch.pth"


def test_the_environment_borrows_torch_where_conversions_work_with_it(installing, monkeypatch):
    asked, link = installing
    states = []
    monkeypatch.setattr(litert, "work", lambda *_: states.append(litert.complete()))
    litert.make()
    assert asked == [("--no-deps", litert.CONVERTER), ("numpy", "torchao>=0.17.0")] and link.exists()
    assert states == [False] and litert.complete(), "an installation that is stopped is not complete"


def test_the_environment_gets_a_torch_of_its_own_where_they_do_not(installing, monkeypatch, capsys):
    asked, link = installing

    def work(verb, path):
        if link.exists():
            raise UserError("LiteRT cannot try tried.tflite: no such symbol")

    monkeypatch.setattr(litert, "work", work)
    litert.make()
    assert asked[-1] == (litert.CONVERTER, litert.TORCH) and not link.exists() and litert.complete()
    assert "no such symbol; LiteRT's environment gets a torch of its own" in capsys.readouterr().err


def test_all_that_the_converter_needs_but_torch_is_installed(monkeypatch, capsys):
    lines = [
        "absl-py",
        "torch<2.15.0,>=2.4.0",
        "torchao>=0.17.0",
        "ai-edge-litert[x]<2.4.0",
        'x; extra == "y"',
    ]
    monkeypatch.setattr("importlib.metadata.requires", lambda name: lines)
    exec(litert._NEEDS)
    assert capsys.readouterr().out.split() == ["absl-py", "torchao>=0.17.0", "ai-edge-litert[x]<2.4.0"]


def test_the_worker_finds_softedges_torch_before_the_packages_of_its_own(tmp_path):
    """What the .pth file does, in an interpreter that reads it."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own/softedge-torch.pth").write_text(litert._LINK)
    code = f"import site, sys; site.addsitedir({str(tmp_path / 'own')!r}); print(sys.path[-2:])"
    for borrowed, last in ((litert.borrowed(), True), ({}, False)):
        env = {**os.environ, **borrowed}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
        wanted = [*borrowed.values(), str(tmp_path / "own")]
        assert done.stdout.strip().endswith(f"{str(wanted)[1:]}") and (len(wanted) == 2) == last


def test_worker_that_fails_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(litert, "interpreter", lambda: sys.executable)
    with pytest.raises(UserError, match="LiteRT cannot run none.tflite: "):
        litert.work("run", tmp_path / "none.tflite", tmp_path / "none.npy", tmp_path / "out.npy")


@pytest.mark.parametrize("worker", ["worker", "rounding_worker", "given_worker"])
def test_workers_import_nothing_of_softedge(worker):
    code = f"import sys; import {worker}; print([m for m in sys.modules if m.startswith(('softedge', 'torch'))])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=litert.WORKER.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
@pytest.mark.hardware
@pytest.mark.parametrize(
    ("precision", "largest", "layers"),
    [
        ("fp32", 1e-5, "float"),
        ("fp16", 0.02, "float"),
        ("int8", 0.4, ""),
        ("w8a16", 0.3, "weights"),
        ("w8a32", 0.3, "weights"),
    ],
)
def test_reloaded_file_agrees_with_pytorch(deployed, pictures, tmp_path, precision, largest, layers):
    target = LiteRt()
    if (why := target.missing()) is not None:
        pytest.skip(why)
    artifact = target.convert(deployed, precision, pictures[:20], tmp_path)
    found = compare(target.load(artifact)(pictures), deployed.predict(pictures))
    assert found.max_abs_diff <= largest and found.agreement >= 0.9
    kinds = {name.partition("_")[2] for name in target.integer_operations(artifact)}
    assert layers in kinds and (layers == "" or len(kinds) == 1)


def test_precisions_without_a_choice_ask_for_the_widest_ranges_where_they_round_activations(monkeypatch, deployed):
    candidates = litert_candidates.NetworkCandidates(deployed, None)
    lows, highs = np.array([[-1.0, 0.0], [-3.0, 1.0]]), np.array([[2.0, 5.0], [1.0, 4.0]])
    candidates.statistics = observed(["a", "b"], lows, highs)
    options = {precision: candidates.of(precision) for precision in ("w8a16", "w8a32", "fp16")}
    assert options["w8a16"].model.ranges == {"a": (-3.0, 2.0), "b": (0.0, 5.0)}
    assert options["w8a32"].model.ranges == options["fp16"].model.ranges == {}
    grids = {name: candidates.largest_weight(option) for name, option in options.items()}
    assert grids == {"w8a16": 127, "w8a32": 127, "fp16": None}
    target = LiteRt()
    assert {name: target.calibrates(name) for name in options} == {"w8a16": True, "w8a32": True, "fp16": False}
    needs = {name: target.needs_calibration(name) for name in options}
    assert needs == {"w8a16": True, "w8a32": False, "fp16": False}, "weights alone can keep the nearest steps"


@pytest.mark.slow
@pytest.mark.hardware
def test_rounded_weights_and_the_file_itself_say_what_computes_in_integers(deployed, pictures, tmp_path):
    target = LiteRt()
    if (why := target.missing()) is not None:
        pytest.skip(why)
    artifact = target.convert(deployed, "int8", pictures[:40], tmp_path)
    counts = target.integer_operations(artifact)
    assert sum(counts.values()) == 7 and counts.get("conv", 0) >= 4 and set(counts) <= {"conv", "conv_float", "linear"}
    assert compare(target.load(artifact)(pictures), deployed.predict(pictures)).sqnr_db > 20


def test_a_network_that_converts_to_other_layers_gives_no_weights_and_one_is_converted_once(monkeypatch, deployed):
    made = []
    monkeypatch.setattr(litert_candidates, "converted", lambda network, path: made.append(network))

    def described(path):
        layers = ["a", "b"] if path.name == "float.tflite" or made[-1] is alike else ["a"]
        operators = [{"kind": "CONV_2D", "outputs": [name], "weights": "float32"} for name in layers]
        end = {"kind": "SOFTMAX", "outputs": ["end"], "weights": None}
        return {"operators": [*operators, end], "outputs": [{"name": "end"}]}

    monkeypatch.setattr(litert_candidates, "described", described)
    alike, unlike = (Deployed(deployed.model, deployed.spec, deployed.labels) for _ in range(2))
    candidates = litert_candidates.NetworkCandidates(deployed, None)
    options = [litert_candidates.Option("", litert_candidates.Quantization({"a": (0.0, 1.0)})) for _ in range(2)]
    assert candidates.file.layers == ("a", "b") and candidates.file.floats == ("end",)
    first, second = (candidates.reweighted(option, alike, {"b": (0.0, 2.0)}) for option in options)
    assert first.model.source == second.model.source and first.model.ranges == {"a": (0.0, 1.0), "b": (0.0, 2.0)}
    assert made == [deployed, alike]
    assert candidates.reweighted(options[0], unlike, {}) is None


def test_softmax_and_hard_swish_stay_in_float_whatever_else_does_and_the_image_with_the_first_layer(
    monkeypatch, deployed, pictures
):
    operators = [
        {"kind": kind, "outputs": [name], "weights": "float32" if kind == "CONV_2D" else None}
        for kind, name in [
            *(("SUB", "less"), ("MUL", "normalised"), ("CONV_2D", "a")),
            *(("HARD_SWISH", "b"), ("CONV_2D", "c"), ("MUL", "d"), ("SOFTMAX", "e")),
        ]
    ]
    monkeypatch.setattr(
        litert_candidates, "described", lambda path: {"operators": operators, "outputs": [{"name": "e"}]}
    )
    monkeypatch.setattr(litert_candidates, "converted", lambda network, path: None)
    plans = []
    monkeypatch.setattr(litert_candidates, "work", lambda verb, *files, **_: plans.append((verb, files)))
    candidates = litert_candidates.NetworkCandidates(deployed, pictures[:4])
    candidates.statistics = observed(["a"], np.zeros((4, 1)), np.ones((4, 1)))
    asked = []
    for option in candidates.calibrations():
        candidates._made(option.model)
        asked.append(set(json.loads(plans[-1][1][1].read_text())["float"]))
    image = {"^less;$", "^normalised;$"}  # in float with the first layer, which would see a rounded image else
    assert asked[0] == {"^b;$", "^e;$"} and asked[1] == {"^a;$", "^b;$", "^e;$"} | image
    assert asked[2] == {"^a;$", "^c;$", "^b;$", "^e;$"} | image


def test_the_network_from_grey_levels_gives_the_logits_whose_softmax_is_deployed(deployed, pictures):
    module = strict.FromPixels(deployed)
    with torch.no_grad():
        logits = torch.cat([module(torch.from_numpy(picture[None]).float()) for picture in pictures[:4]])
    np.testing.assert_allclose(finish(logits.numpy(), "probabilities"), deployed.predict(pictures[:4]), atol=1e-5)


class Converted(strict.StrictCandidates):
    """Of a file with two layers, whose activations are known.  first: what the first one gives for images."""

    def __init__(self, network, images, first):
        super().__init__(network, images)
        self.file = litert_candidates.File(Path("float.tflite"), None, network.spec, ("first", "a"))
        found = first(images).reshape(len(images), -1)
        lows, highs = np.full((len(images), 3), 7.0), np.full((len(images), 3), 90.0)
        lows[:, 1], highs[:, 1] = found.min(1), found.max(1)
        self.statistics = observed(["image", "first", "a"], lows, highs)


def normalised(spec):
    return lambda images: (images / 255 - np.array(spec.mean)) / np.array(spec.std)


def test_integers_alone_get_the_ranges_of_all_images_not_only_of_those_that_were_seen(deployed, pictures):
    spec = deployed.spec
    ends = [(value - mean) / std for mean, std in zip(spec.mean, spec.std) for value in (0.0, 1.0)]
    images = pictures[:4].clip(20, 200)
    options = list(Converted(deployed, images, normalised(spec)).calibrations())
    methods = ("mean", "minmax", "percentile", "mse")
    assert [option.what for option in options] == [f"calibration by {m}, integers alone" for m in methods]
    for option in options:
        assert option.model.scheme == "int8-strict" and option.model.in_float == () and option.tier == 0
        assert option.model.ranges["image"] == (0.0, 255.0) and option.model.ranges["a"] == (7.0, 90.0)
        assert option.model.ranges["first"] == pytest.approx((min(ends), max(ends)))


def test_normalised_images_have_the_ranges_of_all_images_in_mixed_files_too(deployed, pictures):
    """Beside them a tensor that holds something else: its ranges are those that were seen."""
    images, spec = pictures[:4].clip(20, 200), deployed.spec
    candidates = litert_candidates.NetworkCandidates(deployed, images)
    candidates.file = litert_candidates.File(Path("float.tflite"), None, spec, ("first", "a"))
    found = normalised(spec)(images).reshape(4, -1)
    lows, highs = np.stack([found.min(1), found.min(1) - 1], 1), np.stack([found.max(1), found.max(1)], 1)
    candidates.statistics = observed(["normalised", "other"], lows, highs)
    ends = [(value - mean) / std for mean, std in zip(spec.mean, spec.std) for value in (0.0, 1.0)]
    for option in candidates.calibrations():
        assert option.model.ranges["normalised"] == pytest.approx((min(ends), max(ends)))
        assert option.model.ranges["other"][1] <= found.max()


def test_the_search_puts_nothing_of_integers_alone_in_float(deployed, pictures):
    candidates = Converted(deployed, pictures[:2], normalised(deployed.spec))
    option = next(candidates.calibrations())
    assert candidates.layers() == () and candidates.weights_only() is None
    assert candidates.with_float(option, ()) is option and candidates.roundings(option, pictures[:1]) == ()


def test_where_the_converter_makes_something_else_of_the_normalisation_its_ranges_are_measured(deployed, pictures):
    images = pictures[:4]
    *_, widest = Converted(deployed, images, lambda images: images / 100).calibrations()
    assert widest.model.ranges["first"] == (images.min() / 100, images.max() / 100)
    assert widest.model.ranges["image"] == (0.0, 255.0)


@pytest.mark.parametrize(
    ("kinds", "why"), [((), ""), (("DEQUANTIZE", "GELU", "GELU", "SUM"), "2 GELU, 1 SUM have no integer form")]
)
def test_a_network_with_operators_that_stay_in_float_is_refused_by_name(monkeypatch, deployed, pictures, kinds, why):
    operators = [{"kind": "CONV_2D", "output": "int8"}, *({"kind": kind, "output": "float32"} for kind in kinds)]
    monkeypatch.setattr(strict, "described", lambda path: {"operators": operators})
    monkeypatch.setattr(litert_candidates, "work", lambda *_, **__: None)
    monkeypatch.setattr(strict, "run", lambda path, images: np.zeros((len(images), 2), np.float32))
    candidates = Converted(deployed, pictures[:2], normalised(deployed.spec))
    option = next(candidates.calibrations())
    if not why:
        assert np.allclose(candidates.predict(option, np.zeros((3, 1), np.uint8)), 0.5)
        return
    with pytest.raises(UserError, match=f"cannot run in integers alone: {why}"):
        candidates.predict(option, np.zeros((3, 1), np.uint8))


def test_the_contract_of_integers_alone_has_both_grids_and_reading_gives_probabilities(monkeypatch, deployed, tmp_path):
    answer = {"name": "logits", "kind": "uint8", "scale": 0.04, "zero_point": 3}
    monkeypatch.setattr(litert_candidates, "described", lambda path: {"outputs": [answer]})
    logits = np.array([[0.0, 1.0, 2.0]], np.float32)
    monkeypatch.setattr(litert_candidates, "run", lambda path, images: logits)
    monkeypatch.setattr(LiteRt, "missing", lambda self: None)
    path = tmp_path / "model.tflite"
    path.write_bytes(b"")
    artifact = artifact_of(path, "litert", "int8-strict", deployed.spec, ("a", "b", "c"))
    assert LiteRt().integer_edges(artifact) == {
        "input": {"scale": 1.0, "zero_point": 0},
        "output": {
            "tensor": "logits",
            "dtype": "uint8",
            "scale": 0.04,
            "zero_point": 3,
            "activation_by": "the app",
        },
    }
    found = LiteRt().load(artifact)(np.zeros((1, 2, 2, 3), np.uint8))
    np.testing.assert_allclose(found, np.exp(logits) / np.exp(logits).sum(), rtol=1e-6)
    mixed = artifact_of(path, "litert", "int8", deployed.spec, ("a", "b", "c"))
    assert LiteRt().integer_edges(mixed) == {} and LiteRt().board_settings(mixed, {}) == {}
    assert LiteRt().load(mixed)(np.zeros((1, 2, 2, 3), np.uint8)) is logits


@pytest.mark.parametrize("kind", ["probabilities", "scores", "features"])
def test_on_a_board_integers_become_what_other_files_answer(monkeypatch, kind):
    class Interpreter:
        def __init__(self, path, num_threads):
            self.values = None

        def allocate_tensors(self):
            pass

        def get_input_details(self):
            return [{"index": 0, "dtype": np.uint8, "shape": [1, 2, 2, 3]}]

        def get_output_details(self):
            return [{"index": 1, "dtype": np.uint8, "quantization": (0.5, 10)}]

        def set_tensor(self, index, value):
            self.values = value

        def invoke(self):
            pass

        def get_tensor(self, index):
            return np.array([[10, 12, 8]], np.uint8)

    monkeypatch.setitem(sys.modules, "ai_edge_litert", types.ModuleType("ai_edge_litert"))
    module = types.ModuleType("ai_edge_litert.interpreter")
    module.Interpreter = Interpreter
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", module)
    monkeypatch.syspath_prepend(str(Path(softedge.bench.board.__file__).parent))  # what travels with it lies beside it
    code = runpy.run_path(str(LiteRt().board_runtime()))
    runtime = code["Runtime"]("model.tflite", {"threads": 1, "finish": kind})
    found = runtime.infer(np.zeros((1, 2, 2, 3), np.uint8))
    np.testing.assert_allclose(found, finish(np.array([[0.0, 1.0, -1.0]], np.float32), kind), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.hardware
def test_a_file_in_integers_alone_holds_no_float_and_agrees_with_pytorch(deployed, pictures, tmp_path):
    target = LiteRt()
    if (why := target.missing()) is not None:
        pytest.skip(why)
    artifact = target.convert(deployed, "int8-strict", pictures[:20], tmp_path)
    about = litert_candidates.described(artifact.path)
    assert {one[end] for one in about["operators"] for end in ("input", "output")} == {"int8", "uint8"}
    assert [about[end][0]["kind"] for end in ("inputs", "outputs")] == ["uint8", "uint8"]
    found = compare(target.load(artifact)(pictures), deployed.predict(pictures))
    assert found.max_abs_diff <= 0.4 and found.agreement >= 0.9


@pytest.mark.parametrize(("held", "in_float"), [(["int8"] * 3, 0), (["float32", "int8", "int8"], 1)])
def test_the_search_keeps_what_the_exported_file_leaves_in_float(monkeypatch, deployed, pictures, held, in_float):
    operators = [{"kind": "CONV_2D", "outputs": [str(i)], "weights": kind} for i, kind in enumerate(held)]
    monkeypatch.setattr(
        litert_candidates, "described", lambda path: {"operators": operators, "outputs": [{"name": "2"}]}
    )
    monkeypatch.setattr(litert_candidates, "converted", lambda network, path: None)
    like = artifact_of(Path(__file__), "litert", "int8", deployed.spec)
    candidates = litert_candidates.NetworkCandidates(deployed, pictures[:4], like)
    candidates.statistics = observed(["0"], np.zeros((4, 1)), np.ones((4, 1)))
    floats = {option.model.in_float for option in candidates.calibrations()}
    assert floats == {("0", "1", "2")[:in_float]}
