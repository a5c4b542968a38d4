"""ONNX files with names, values and shapes that exporters leave behind: quantized as they are, or refused in a line."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from tiny_network import SPEC, planes_to_logits
from torch import nn
from typer.testing import CliRunner

from softedge.cli import app
from softedge.commands import tables
from softedge.errors import UserError
from softedge.eval import measures
from softedge.export import given_notes
from softedge.export.given import preprocessing
from softedge.export.given_file import Tensor, interface
from softedge.export.onnx import given, rewrite
from softedge.export.onnx.format import Onnx
from softedge.files import write_json
from softedge.records import Result
from softedge.stages.quantize_file import quantize_file

ASKED = {"mean": SPEC.mean, "std": SPEC.std, "crop": 16 / 18}


@pytest.fixture(scope="module")
def float_file(deployed, tmp_path_factory):
    path, names = tmp_path_factory.mktemp("float") / "net.onnx", {"input_names": ["pixels"], "output_names": ["logits"]}
    return planes_to_logits(deployed.model, path, {0: "batch"}, **names)


def rename(model: onnx.ModelProto, old: str, new: str) -> None:
    rewrite.rename(model.graph.node, {old: new})
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        value.name = new if value.name == old else value.name


def behind_a_branch(model: onnx.ModelProto) -> None:
    """The input is called ``image`` and read inside an If."""
    rename(model, "pixels", "inner")
    model.graph.input[0].name = "image"
    none = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("same", "other")]
    same = helper.make_graph([helper.make_node("Identity", ["image"], ["same"])], "then", [], none[:1])
    other = helper.make_graph([helper.make_node("Neg", ["image"], ["other"])], "else", [], none[1:])
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1e9), "large"))
    model.graph.node.insert(0, helper.make_node("If", ["holds"], ["inner"], then_branch=same, else_branch=other))
    model.graph.node.insert(0, helper.make_node("Less", ["sum", "large"], ["holds"]))
    model.graph.node.insert(0, helper.make_node("ReduceSum", ["image"], ["sum"], keepdims=0))


def ours_in_all_nodes(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.name = given.OURS + node.name


def inside(new: str) -> Callable[[onnx.ModelProto], None]:
    return lambda model: rename(model, model.graph.node[2].output[0], new)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda model: rename(model, "pixels", "image"), id="input"),
        pytest.param(lambda model: rename(model, "logits", "image"), id="output"),
        pytest.param(inside("image"), id="inside"),
        pytest.param(inside(f"{given.OURS}shift"), id="a name of softedge's"),
        pytest.param(ours_in_all_nodes, id="nodes with names of softedge's"),
        pytest.param(behind_a_branch, id="read in a branch"),
    ],
)
def test_files_with_names_that_softedge_uses_itself_are_quantized_and_keep_their_own(
    float_file, deployed, pictures, tmp_path, change
):
    model = onnx.load(float_file)
    change(model)
    onnx.save(model, tmp_path / "net.onnx")
    read = given.read(tmp_path / "net.onnx", ASKED)
    assert np.abs(read.predict(pictures) - deployed.predict(pictures)).max() < 1e-5
    candidates = read.candidates(pictures[:8])
    made = candidates.write(next(candidates.calibrations()), tmp_path)
    session = ort.InferenceSession(made)
    assert [value.name for value in session.get_inputs()] == [model.graph.input[0].name]
    assert [value.name for value in session.get_outputs()] == [model.graph.output[0].name]
    found = read.read_back(made)(pictures)
    assert (found.argmax(1) == deployed.predict(pictures).argmax(1)).mean() > 0.8


class Shared(nn.Module):
    """Layers that read the same bias, and two that read the same weights; the depthwise one is padded to 16 lanes."""

    def __init__(self) -> None:
        super().__init__()
        self.begin, self.tied, self.end = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.wide = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.head = nn.Linear(8, 5)
        for layer in (self.begin, self.wide, self.end):
            layer.bias = self.tied.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.begin(x))
        x = torch.relu(self.tied(3 * torch.relu(self.tied(x))))
        return self.head(torch.relu(self.end(torch.relu(self.wide(x)))).mean((2, 3)))


def test_layers_that_share_a_bias_or_weights_have_integers_of_their_own(pictures, tmp_path):
    """onnxruntime refused two nodes of one name, as of every network with equal biases, which exporters store once."""
    torch.manual_seed(0)
    net, names = Shared().eval(), {"input_names": ["pixels"], "output_names": ["logits"]}
    with torch.no_grad():
        net.tied.bias += 0.5
        net.head.weight *= 20
    path = planes_to_logits(net, tmp_path / "net.onnx", {0: "batch"}, **names)
    biases = [node.input[2] for node in onnx.load(path).graph.node if node.op_type == "Conv"]
    assert len(biases) == 5 and len(set(biases)) == 1
    read = given.read(path, ASKED)
    candidates = read.candidates(pictures[:40])
    for option in (plain := next(candidates.calibrations()), candidates.bias_corrected(plain)):
        made = read.read_back(candidates.write(option, tmp_path))
        assert measures.median_sqnr_db(read.predict(pictures), made(pictures), "probabilities") > 25


def with_constant(model: onnx.ModelProto, which: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == which)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)).astype(np.float32), which))


def test_a_network_of_linear_layers_alone_is_quantized(picture_folder, tmp_path):
    torch.manual_seed(0)
    side = SPEC.size
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * side * side, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    path, names = tmp_path / "net.onnx", {"input_names": ["pixels"], "output_names": ["logits"]}
    planes_to_logits(model, path, {0: "batch"}, **names)
    result = quantize_file(path, picture_folder, tmp_path / "out", ASKED, min_agreement=0.5)
    assert result.metrics["passed"] and result.metrics["sqnr_db"] > 20
    assert path.stat().st_size > 2 * (tmp_path / "out/onnx-int8/model.onnx").stat().st_size


@pytest.mark.parametrize("ends", [[], [("Softmax", {"axis": 1})]])
def test_scores_that_are_a_map_of_one_pixel_are_read_as_a_row_and_stay_a_map(
    float_file, deployed, pictures, tmp_path, ends
):
    model = onnx.load(float_file)
    behind(model, ("Reshape", {}), *ends, shape=[0, -1, 1, 1])
    classes = len(deployed.labels)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes, 1, 1]))
    onnx.save(model, tmp_path / "net.onnx")
    read = given.read(tmp_path / "net.onnx", ASKED)
    np.testing.assert_allclose(read.predict(pictures), deployed.predict(pictures), atol=1e-5)
    made = (candidates := read.candidates(pictures[:8])).write(next(candidates.calibrations()), tmp_path)
    assert ort.InferenceSession(made).get_outputs()[0].shape == ["batch", classes, 1, 1]
    found = read.read_back(made)(pictures)
    assert found.shape == (len(pictures), classes)
    assert (found.argmax(1) == deployed.predict(pictures).argmax(1)).mean() > 0.8


def test_a_layer_that_is_zero_on_every_image_has_a_range(float_file, pictures, tmp_path):
    """The gate of a squeeze-excite block can die in training; its range by entropy was a division by zero."""
    model = onnx.load(float_file)
    with_constant(model, "reduce.bias", lambda bias: bias - 1e4)
    onnx.save(model, tmp_path / "dead.onnx")
    read = given.read(tmp_path / "dead.onnx", ASKED)
    by_entropy = [
        option
        for option in read.candidates(pictures[:8]).calibrations()
        if option.what.startswith("calibration by ent")
    ]
    assert by_entropy and all(np.isfinite(ends).all() for ends in by_entropy[0].model.ranges.values())


def test_values_without_a_range_are_named(float_file, pictures, tmp_path):
    model = onnx.load(float_file)
    with_constant(model, "head.bias", lambda bias: np.where(np.arange(len(bias)) == 0, -np.inf, bias))
    onnx.save(model, tmp_path / "masked.onnx")
    read = given.read(tmp_path / "masked.onnx", ASKED)
    with pytest.raises(UserError, match="values of 'logits' in the network are NaN or infinite on real images"):
        next(read.candidates(pictures[:8]).calibrations())


def behind(model: onnx.ModelProto, *nodes: tuple[str, dict[str, object]], shape: list[int] | None = None) -> None:
    """Append nodes to the graph, each on the result of the one before; a ``Reshape`` gets ``shape``."""
    rename(model, "logits", "behind0")
    if shape:
        model.graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), "shape"))
    for index, (kind, attributes) in enumerate(nodes, start=1):
        result = "logits" if index == len(nodes) else f"behind{index}"
        read = [f"behind{index - 1}", *{"Reshape": ["shape"], "TopK": ["shape"], "Clip": ["low", "high"]}.get(kind, [])]
        made = ["unused", result] if kind == "TopK" else [result]
        model.graph.node.append(helper.make_node(kind, read, made, **attributes))
    model.graph.output[0].name = "logits"


@pytest.mark.parametrize(
    ("shape", "line"),
    [
        ([1, 5], r"cannot be run on several images \(.*; export it again with a batch size of one"),
        ([1, -1], "gives 1 rows of scores for 5 images; export it again with a batch size of one"),
    ],
)
def test_a_graph_for_one_image_whose_input_declares_any_number_is_refused(
    float_file, picture_folder, tmp_path, shape, line
):
    model = onnx.load(float_file)
    behind(model, ("Reshape", {}), shape=shape)
    onnx.save(model, tmp_path / "one.onnx")
    (tmp_path / "few").mkdir()
    for path in sorted(picture_folder.iterdir())[:20]:
        shutil.copy(path, tmp_path / "few")
    with pytest.raises(UserError, match=line):
        quantize_file(tmp_path / "one.onnx", tmp_path / "few", tmp_path / "out", ASKED)


def test_a_softmax_that_is_converted_afterwards_is_not_followed_by_another(float_file, deployed, pictures, tmp_path):
    model = onnx.load(float_file)
    behind(model, ("Softmax", {"axis": 1}), ("Cast", {"to": TensorProto.DOUBLE}), ("Cast", {"to": TensorProto.FLOAT}))
    onnx.save(model, tmp_path / "cast.onnx")
    found = given.read(tmp_path / "cast.onnx", ASKED).predict(pictures)
    assert np.abs(found - deployed.predict(pictures)).max() < 1e-5


CLIP = ("Clip", {})
SIGMOID_IN_PARTS = [("Neg", {}), ("Exp", {}), ("Add", {"with": "one"}), ("Reciprocal", {})]
SOFTMAX_IN_PARTS = [("Softmax", {"axis": 1}), ("Mul", {"with": "two"}), ("Div", {"with": "two"})]
HARD = [("Add", {"with": "three"}), ("Clip", {"with": "six"}), ("Div", {"with": "six_alone"})]


def ending_in(float_file, path, ends):
    """The file with nodes behind its logits; ``with``: the constants that a node reads."""
    constants = {"one": [1], "two": [2], "three": [3], "six": [0, 6], "six_alone": [6], "low": [1e-7, 1]}
    model = onnx.load(float_file)
    rename(model, "logits", "behind0")
    for index, (kind, attributes) in enumerate(ends, start=1):
        given = constants[attributes["with"]] if "with" in attributes else []
        names = [f"constant{index}_{number}" for number in range(len(given))]
        model.graph.initializer.extend(numpy_helper.from_array(np.float32(v), k) for k, v in zip(names, given))
        result = "logits" if index == len(ends) else f"behind{index}"
        more = {key: value for key, value in attributes.items() if key != "with"}
        model.graph.node.append(helper.make_node(kind, [f"behind{index - 1}", *names], [result], **more))
    model.graph.output[0].name = "logits"
    onnx.save(model, path)
    return path


def hard_score(logits, slope=1 / 6):
    return torch.sigmoid(6 * (torch.clamp(slope * logits + 0.5, 0, 1) - 0.5))


@pytest.mark.parametrize(
    ("ends", "activation", "output", "expected"),
    [
        ([("Softmax", {"axis": 1}), ("Clip", {"with": "low"})], None, "probabilities", lambda z: z.softmax(1)),
        (SOFTMAX_IN_PARTS, None, "probabilities", lambda z: z.softmax(1)),
        ([("LogSoftmax", {"axis": 1})], None, "probabilities", lambda z: z.softmax(1)),
        ([("Softplus", {})], None, "probabilities", lambda z: nn.functional.softplus(z).softmax(1)),
        ([("Sigmoid", {}), ("Clip", {"with": "low"})], None, "scores", torch.sigmoid),
        (SIGMOID_IN_PARTS, "sigmoid", "scores", torch.sigmoid),
        ([("Identity", {})], "sigmoid", "scores", torch.sigmoid),
        ([("HardSigmoid", {"alpha": 1 / 6})], None, "scores", hard_score),
        ([("HardSigmoid", {}), ("Identity", {})], "sigmoid", "scores", lambda z: hard_score(z, 0.2)),
        (HARD, None, "scores", hard_score),
    ],
)
def test_what_a_file_ends_in_says_what_its_values_are(
    float_file, deployed, pictures, tmp_path, ends, activation, output, expected
):
    """No softmax is put behind probabilities, and labels of sigmoids are judged one by one, not by the largest alone.

    The logits of a hard sigmoid are compared between its two ends: 0 and 1 are no noise of a million.
    """
    read = given.read(ending_in(float_file, tmp_path / "ends.onnx", ends), {**ASKED, "activation": activation})
    with torch.no_grad():
        wanted = expected(deployed.model(deployed.normalised(torch.from_numpy(pictures).permute(0, 3, 1, 2)))).numpy()
    assert read.output == output and np.abs(read.predict(pictures) - wanted).max() < 1e-5
    made = (candidates := read.candidates(pictures[:8])).write(next(candidates.calibrations()), tmp_path)
    assert np.abs(read.read_back(made)(pictures) - wanted).mean() < 0.1


@pytest.mark.parametrize(
    ("ends", "activation", "line"),
    [
        (SIGMOID_IN_PARTS, None, "values between 0 and 1 by 'reciprocal', .*: say --activation sigmoid if .*, softmax"),
        ([("Softmax", {"axis": 1})], "sigmoid", "softmax itself; leave out --activation sigmoid"),
        ([("LogSoftmax", {"axis": 1})], "sigmoid", "logsoftmax itself; leave out --activation sigmoid"),
        ([("HardSigmoid", {})], "softmax", "hardsigmoid itself; leave out --activation softmax"),
        (SOFTMAX_IN_PARTS, "sigmoid", "values that sum to 1, as behind a softmax; leave out --activation sigmoid"),
    ],
)
def test_an_end_that_only_the_user_knows_is_asked_for_and_a_wrong_word_about_it_is_refused(
    float_file, tmp_path, ends, activation, line
):
    with pytest.raises(UserError, match=line):
        given.read(ending_in(float_file, tmp_path / "ends.onnx", ends), {**ASKED, "activation": activation})


@pytest.mark.parametrize(
    ("ends", "line"),
    [
        ([("Identity", {})], "probabilities of one label an image, from its logits; --activation sigmoid for a multi-"),
        ([("LogSoftmax", {"axis": 1})], "probabilities of one label an image, from its logsoftmax"),
        ([("HardSigmoid", {})], "a score for each label by itself, from its hardsigmoid"),
        (SOFTMAX_IN_PARTS, "probabilities of one label an image"),
    ],
)
def test_a_line_says_what_the_values_are_taken_for(float_file, tmp_path, capsys, ends, line):
    given.read(ending_in(float_file, tmp_path / "ends.onnx", ends), ASKED)
    assert f"ends.onnx: the answers are {line}" in capsys.readouterr().err


def resized(opset: int, scale: float, mode: str) -> onnx.ModelProto:
    """Random weights: convolution, a map resized by an old operator, pool, linear layer."""
    rng, shapes = np.random.default_rng(0), {"w": (8, 3, 3, 3), "v": (8, 8, 3, 3), "head": (8, 5)}
    held = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    kind = "Upsample" if opset < 10 else "Resize"
    nodes = [("Conv", ["pixels", "w"], {}), (kind, ["Conv", "scales"], {"mode": mode}), ("Conv", [kind, "v"], {})]
    nodes = [helper.make_node(op, read, [f"{op}2" if "v" in read else op], **more) for op, read, more in nodes]
    for before, op, after, *more in (("Conv2", "GlobalAveragePool", "p"), ("p", "Flatten", "f")):
        nodes.append(helper.make_node(op, [before, *more], [after]))
    nodes.append(helper.make_node("MatMul", ["f", "head"], ["logits"]))
    ends = [("pixels", ["n", 3, 16, 16]), ("logits", ["n", 5])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ends]
    held = {**held, "scales": np.float32([1, 1, scale, scale])}
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(v, k) for k, v in held.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=5)


@pytest.mark.parametrize(("opset", "scale"), [(9, 2), (10, 2), (10, 0.6)])
def test_maps_that_an_old_file_resizes_stay_where_they_were(pictures, tmp_path, opset, scale):
    """Before opset 11 a pixel lay at x / scale, since then at the middle of its cell: onnx's converter moved them."""
    onnx.save(resized(opset, scale, "linear"), tmp_path / "old.onnx")
    planes = ((pictures / 255 - SPEC.mean) / SPEC.std).transpose(0, 3, 1, 2).astype(np.float32)
    logits = ort.InferenceSession(tmp_path / "old.onnx").run(None, {"pixels": planes})[0]
    wanted = torch.from_numpy(logits).softmax(1).numpy()
    assert np.abs(given.read(tmp_path / "old.onnx", ASKED).predict(pictures) - wanted).max() < 1e-4


def test_an_old_file_that_converting_changes_is_refused(tmp_path):
    """onnxruntime rounds the nearest pixel up where such an operator makes a map smaller, the newer one down."""
    onnx.save(resized(10, 0.4, "nearest"), tmp_path / "old.onnx")
    with pytest.raises(UserError, match=r"has opset 10, and its answers change by .* export it again with opset 17"):
        given.read(tmp_path / "old.onnx", ASKED)


def training(model: onnx.ModelProto) -> None:
    """A BatchNorm of the pixels in training mode in front."""
    rename(model, "pixels", "inner")
    model.graph.input[0].name = "pixels"
    for name, value in (("one", 1), ("zero", 0)):
        model.graph.initializer.append(numpy_helper.from_array(np.full(3, value, np.float32), name))
    read, made = ["pixels", "one", "zero", "zero", "one"], ["inner", "new_mean", "new_variance"]
    model.graph.node.insert(0, helper.make_node("BatchNormalization", read, made, training_mode=1))


def over_the_batch(model: onnx.ModelProto) -> None:
    behind(model, ("Softmax", {"axis": 0}))


@pytest.mark.parametrize("change", [training, over_the_batch])
def test_a_file_whose_answers_depend_on_the_other_images_is_refused(float_file, picture_folder, tmp_path, change):
    model = onnx.load(float_file)
    change(model)
    onnx.save(model, tmp_path / "mixed.onnx")
    with pytest.raises(UserError, match="answers differently when an image comes alone and with others"):
        quantize_file(tmp_path / "mixed.onnx", picture_folder, tmp_path / "out", ASKED)


@pytest.mark.parametrize(("sides", "size", "found"), [((16, 0), None, 16), ((0, 16), 16, 16), ((0, 0), 24, 24)])
def test_the_side_that_a_file_states_is_its_size(tmp_path, sides, size, found):
    ends = [Tensor("pixels", (0, 3, *sides), "float")], [Tensor("logits", (0, 5), "float")]
    assert interface(tmp_path, *ends, "gemm", size).size == found
    with pytest.raises(UserError, match=r"images of 16 x \? pixels; --size must be that"):
        interface(tmp_path, [Tensor("pixels", (0, 3, 16, 0), "float")], ends[1], "gemm", 24)


def test_files_without_float_scores_or_without_a_network_are_one_clear_line(float_file, tmp_path):
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(UserError, match="holds no network: it is empty, or damaged"):
        given.read(tmp_path / "empty.onnx", ASKED)
    model = onnx.load(float_file)
    behind(model, ("TopK", {}), shape=[3])
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("logits", TensorProto.INT64, ["batch", 3]))
    onnx.save(model, tmp_path / "top.onnx")
    with pytest.raises(UserError, match="is int64; a classifier gives scores as float"):
        given.read(tmp_path / "top.onnx", ASKED)


def test_weights_that_are_stored_in_half_and_computed_in_float_are_read(float_file, deployed, pictures, tmp_path):
    model = onnx.load(float_file)
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "head.weight")
    half = numpy_helper.from_array(numpy_helper.to_array(weights).astype(np.float16), "half")
    model.graph.node.insert(0, helper.make_node("Cast", ["half"], ["head.weight"], to=TensorProto.FLOAT))
    model.graph.node.insert(0, helper.make_node("Constant", [], ["half"], value=half))
    model.graph.initializer.remove(weights)
    onnx.save(model, tmp_path / "half.onnx")
    found = given.read(tmp_path / "half.onnx", ASKED).predict(pictures)
    assert np.abs(found - deployed.predict(pictures)).max() < 0.01


def in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """All of it, as ``torch.nn.Module.half`` gives it: weights, arithmetic, input and output."""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    tensors = [*model.graph.initializer, *(about.t for node in model.graph.node for about in node.attribute)]
    for tensor in tensors:
        if tensor.data_type == TensorProto.FLOAT:
            array = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model


def with_casts(model: onnx.ModelProto) -> onnx.ModelProto:
    """As converters leave it: float32 in and out, a Cast at both ends."""
    model = in_half(model)
    rename(model, "pixels", "half_pixels")
    rename(model, "logits", "half_logits")
    model.graph.node.insert(0, helper.make_node("Cast", ["pixels"], ["half_pixels"], to=TensorProto.FLOAT16))
    model.graph.node.append(helper.make_node("Cast", ["half_logits"], ["logits"], to=TensorProto.FLOAT))
    for value, name in ((model.graph.input[0], "pixels"), (model.graph.output[0], "logits")):
        value.name, value.type.tensor_type.elem_type = name, TensorProto.FLOAT
    return model


@pytest.mark.parametrize(("change", "kind"), [(in_half, np.float16), (with_casts, np.float32)])
def test_a_file_in_half_precision_is_quantized_and_judged_by_its_own_answers(
    float_file, deployed, pictures, picture_folder, tmp_path, change, kind
):
    onnx.save(change(onnx.load(float_file)), tmp_path / "half.onnx")
    planes = ((pictures / 255 - SPEC.mean) / SPEC.std).transpose(0, 3, 1, 2).astype(kind)
    (logits,) = ort.InferenceSession(tmp_path / "half.onnx").run(None, {"pixels": planes})
    read = given.read(tmp_path / "half.onnx", ASKED)
    own = torch.from_numpy(logits.astype(np.float32)).softmax(1).numpy()
    found = read.predict(pictures)
    assert np.abs(found - own).max() < 1e-6
    assert 1e-5 < np.abs(found - deployed.predict(pictures)).max() < 0.02, "16 bits are a little noise"
    result = quantize_file(tmp_path / "half.onnx", picture_folder, tmp_path / "out", ASKED, min_agreement=0.5)
    told = tables.candidates(result, tmp_path / "out")
    assert told.count("of the answers of fp16") == 2 and "answers of fp32" not in told
    made = tmp_path / "out/onnx-int8/model.onnx"
    answers = ort.InferenceSession(made).run(None, {"pixels": planes})[0]
    assert answers.dtype == kind and result.metrics["sqnr_db"] > 10
    assert np.linalg.norm(answers.astype(np.float32) - logits) < 0.35 * np.linalg.norm(logits.astype(np.float32))
    stored = {tensor.data_type for tensor in onnx.load(made).graph.initializer if len(tensor.dims) == 4}
    assert TensorProto.INT8 in stored and TensorProto.FLOAT16 not in stored


def test_an_fp16_file_of_softedge_is_quantized(deployed, pictures, tmp_path):
    calibration = np.zeros((0, 16, 16, 3), np.uint8)
    made = Onnx().convert(deployed, "fp16", calibration, tmp_path).path
    read = given.read(made, {})
    assert np.abs(read.predict(pictures) - deployed.predict(pictures)).max() < 0.02
    (tmp_path / "int8").mkdir()
    candidates = read.candidates(pictures[:8])
    found = read.read_back(candidates.write(next(candidates.calibrations()), tmp_path / "int8"))(pictures)
    assert (found.argmax(1) == deployed.predict(pictures).argmax(1)).mean() > 0.8


def test_scores_in_64_bits_are_read(float_file, deployed, pictures, tmp_path):
    model = onnx.load(float_file)
    behind(model, ("Cast", {"to": TensorProto.DOUBLE}))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    onnx.save(model, tmp_path / "double.onnx")
    read = given.read(tmp_path / "double.onnx", ASKED)
    assert np.abs(read.predict(pictures) - deployed.predict(pictures)).max() < 1e-5
    made = (candidates := read.candidates(pictures[:8])).write(next(candidates.calibrations()), tmp_path)
    assert ort.InferenceSession(made).get_outputs()[0].type == "tensor(double)"


def test_a_file_in_bfloat16_is_refused(float_file, tmp_path):
    model = onnx.load(float_file)
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "head.weight")
    weights.CopyFrom(helper.make_tensor("head.weight", TensorProto.BFLOAT16, [1], [1.0]))
    onnx.save(model, tmp_path / "brain.onnx")
    with pytest.raises(UserError, match="holds 1 tensors in bfloat16 .'head.weight'.; give the fp32 or fp16 file"):
        given.read(tmp_path / "brain.onnx", ASKED)


class OfLevels(nn.Module):
    """A network for grey levels, [N, 1, S, S] or [N, S, S, 1], bytes or normalised floats."""

    def __init__(self, planes: bool) -> None:
        super().__init__()
        self.planes, self.conv, self.head = planes, nn.Conv2d(1, 8, 3, 2, 1), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (x if self.planes else x.permute(0, 3, 1, 2)).float()
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


@pytest.mark.parametrize("planes", [True, False])
@pytest.mark.parametrize("kind", [torch.float32, torch.uint8])
def test_a_file_for_grey_images_gets_them_as_pillow_makes_them(pictures, picture_folder, tmp_path, planes, kind):
    torch.manual_seed(0)
    net, path = OfLevels(planes).eval(), tmp_path / "grey.onnx"
    with torch.no_grad():
        net.head.weight *= 8 if kind == torch.float32 else 0.1
    example = torch.zeros((2, 1, 16, 16) if planes else (2, 16, 16, 1), dtype=kind)
    names = {"input_names": ["levels"], "output_names": ["logits"], "dynamic_shapes": ({0: "n"},)}
    torch.onnx.export(net, (example,), path, dynamo=True, external_data=False, verbose=False, **names)
    levels = np.stack([np.asarray(Image.fromarray(one).convert("L")) for one in pictures])[:, None]
    x = levels if kind == torch.uint8 else ((levels / 255 - 0.5) / 0.25).astype(np.float32)
    x = x if planes else x.transpose(0, 2, 3, 1)
    asked = {"mean": (0.5,) * 3, "std": (0.25,) * 3} if kind == torch.float32 else {}
    (logits,) = ort.InferenceSession(path).run(None, {"levels": x})
    read = given.read(path, asked)
    assert np.abs(read.predict(pictures) - torch.from_numpy(logits).softmax(1).numpy()).max() < 1e-5
    if planes and kind == torch.float32:
        result = quantize_file(path, picture_folder, tmp_path / "out", asked, min_agreement=0.5)
        found = ort.InferenceSession(tmp_path / "out/onnx-int8/model.onnx").run(None, {"levels": x})[0]
        assert result.metrics["passed"] and np.linalg.norm(found - logits) < 0.2 * np.linalg.norm(logits)
        assert result.details["channels"] == 1
        with pytest.raises(UserError, match="one channel, grey ones: give one value each with --mean and --std"):
            given.read(path, ASKED)


def of_any_size(model: onnx.ModelProto) -> onnx.ModelProto:
    """As Optimum exports: batch, num_channels, height and width are names."""
    for index, dim in enumerate(model.graph.input[0].type.tensor_type.shape.dim):
        dim.Clear()
        dim.dim_param = ("batch", "num_channels", "height", "width")[index]
    del model.graph.value_info[:]
    return model


def test_a_file_of_the_hub_has_its_size_normalisation_and_names_beside_it(
    float_file, deployed, pictures, picture_folder, tmp_path, capsys
):
    (tmp_path / "onnx").mkdir()
    onnx.save(of_any_size(onnx.load(float_file)), tmp_path / "onnx/model.onnx")
    with pytest.raises(UserError, match="takes images of any size; say which with --size"):
        given.read(tmp_path / "onnx/model.onnx", ASKED)
    stated = {"image_mean": SPEC.mean, "image_std": SPEC.std, "do_center_crop": True, "crop_size": 16, "resample": 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": {"shortest_edge": 18}, **stated}))
    (tmp_path / "config.json").write_text(json.dumps({"id2label": dict(enumerate("vwxyz"))}))
    read = given.read(tmp_path / "onnx/model.onnx", {})
    assert read.spec == dataclasses.replace(SPEC, interpolation="bicubic")
    assert np.abs(read.predict(pictures) - deployed.predict(pictures)).max() < 1e-5
    assert read.about["preprocessing_from"] == "from preprocessor_config.json"
    result = quantize_file(tmp_path / "onnx/model.onnx", picture_folder, tmp_path / "out", {}, min_agreement=0.5)
    assert result.details["labels"] == list("vwxyz") and result.details["labels_from"] == "config.json"
    said = capsys.readouterr().err
    assert f"(0.4, 0.5, 0.6)/(0.2, 0.25, 0.3), bicubic, from {tmp_path / 'preprocessor_config.json'}" in said
    assert f"the names of 5 classes, from {tmp_path / 'config.json'}" in said
    (tmp_path / "config.json").write_text(json.dumps({"label_names": ["a", "b"]}))
    with pytest.raises(UserError, match="config.json names 2 classes, and model.onnx has 5"):
        quantize_file(tmp_path / "onnx/model.onnx", picture_folder, tmp_path / "out", {}, min_agreement=0.5, force=True)


def normalising(model: onnx.ModelProto, steps: list[tuple[str, float | tuple[float, ...]]], nhwc: bool) -> None:
    """Nodes in front that normalise; ``nhwc``: the image comes as TensorFlow has it."""
    rename(model, "pixels", "inner")
    nodes, value = [], "pixels"
    for index, (kind, constant) in enumerate(steps):
        array = np.float32(constant).reshape((1, 1, 1, -1) if nhwc else (1, -1, 1, 1))
        model.graph.initializer.append(numpy_helper.from_array(array, f"own{index}"))
        nodes.append(helper.make_node(kind, [value, f"own{index}"], [f"step{index}"]))
        value = f"step{index}"
    nodes.append(
        helper.make_node(
            "Transpose" if nhwc else "Identity", [value], ["inner"], **({"perm": [0, 3, 1, 2]} if nhwc else {})
        )
    )
    for index, node in enumerate(nodes):
        model.graph.node.insert(index, node)
    model.graph.input[0].name = "pixels"
    if nhwc:
        shape = ["batch", 16, 16, 3]
        model.graph.input[0].CopyFrom(helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape))


OF_LEVELS = [("Div", 255.0), ("Sub", SPEC.mean), ("Div", SPEC.std)]


@pytest.mark.parametrize(("steps", "white"), [(OF_LEVELS, 255), (OF_LEVELS[1:], 1)])
@pytest.mark.parametrize("nhwc", [True, False])
def test_a_network_that_normalises_its_image_itself_says_what_it_takes(
    float_file, deployed, pictures, tmp_path, capsys, steps, white, nhwc
):
    model = onnx.load(float_file)
    normalising(model, steps, nhwc)
    onnx.save(model, tmp_path / "net.onnx")
    read = given.read(tmp_path / "net.onnx", {})
    assert np.abs(read.predict(pictures) - deployed.predict(pictures)).max() < 1e-5
    assert f"since it normalises values up to {white} itself" in capsys.readouterr().err
    given.read(tmp_path / "net.onnx", {"mean": (0.0,) * 3, "std": (1 / white,) * 3})
    assert "warning" not in capsys.readouterr().err
    given.read(tmp_path / "net.onnx", ASKED)
    assert f"warning: net.onnx normalises values up to {white} itself, and gets" in capsys.readouterr().err


def test_a_network_that_does_not_normalise_is_asked_about_and_not_warned_of(float_file, capsys):
    given.read(float_file, ASKED)
    assert "warning" not in capsys.readouterr().err
    with pytest.raises(UserError, match="does not say how they are normalised"):
        given.read(float_file, {})


def test_a_normalisation_that_would_do_nothing_is_refused(float_file, tmp_path):
    """A file for bytes took --mean and --std without a word, and left them out."""
    model = onnx.load(float_file)
    rename(model, "pixels", "inner")
    model.graph.node.insert(0, helper.make_node("Cast", ["pixels"], ["inner"], to=TensorProto.FLOAT))
    model.graph.input[0].name, model.graph.input[0].type.tensor_type.elem_type = "pixels", TensorProto.UINT8
    onnx.save(model, tmp_path / "bytes.onnx")
    with pytest.raises(UserError, match="takes uint8 images and normalises them itself; leave out --mean and --std"):
        given.read(tmp_path / "bytes.onnx", ASKED)
    assert given.read(tmp_path / "bytes.onnx", {}).spec.std == (1.0,) * 3


@pytest.mark.parametrize("level", ["ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"])
def test_a_file_that_onnxruntime_has_optimised_is_refused(float_file, tmp_path, level):
    """Its layers are onnxruntime's own, and stayed in float in a file that was called int8."""
    options = ort.SessionOptions()
    options.log_severity_level, options.optimized_model_filepath = 3, str(tmp_path / "fused.onnx")
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    ort.InferenceSession(float_file, options, providers=["CPUExecutionProvider"])
    kinds = {node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node if node.domain}
    if not kinds & {"FusedConv", "ReorderInput"}:
        pytest.skip("this processor has no layout of its own")
    with pytest.raises(UserError, match=r"was optimised by onnxruntime \(.*; give the file from before that"):
        given.read(tmp_path / "fused.onnx", ASKED)


def test_a_file_without_weights_is_refused(tmp_path):
    """It was written again as it is, and called int8."""
    ends = [("pixels", ["n", 3, 16, 16]), ("logits", ["n", 3])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ends]
    nodes = [helper.make_node("GlobalAveragePool", ["pixels"], ["p"]), helper.make_node("Flatten", ["p"], ["logits"])]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:]), opset_imports=[helper.make_opsetid("", 18)], ir_version=8
    )
    onnx.save(model, tmp_path / "pool.onnx")
    with pytest.raises(UserError, match="has no convolution or linear layer with weights"):
        given.read(tmp_path / "pool.onnx", ASKED)


def test_weights_in_a_file_of_their_own_are_an_input_too(float_file, picture_folder, tmp_path):
    """A result was taken for finished though the weights were others."""
    path = tmp_path / "net.onnx"
    onnx.save(onnx.load(float_file), path, save_as_external_data=True, location="net.data", size_threshold=500)
    result = quantize_file(path, picture_folder, tmp_path / "out", ASKED, min_agreement=0.5)
    assert set(result.inputs) == {"net.onnx", "net.data"}


def test_a_folder_of_somebody_elses_files_is_left_alone(float_file, picture_folder, tmp_path):
    """It was deleted to make room for the result."""
    (tmp_path / "onnx-int8").mkdir()
    (tmp_path / "onnx-int8/model.onnx").write_bytes(b"mine")
    with pytest.raises(UserError, match="onnx-int8 holds 'model.onnx', which softedge did not write; .* --out"):
        quantize_file(float_file, picture_folder, tmp_path, ASKED, force=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["onnx-int8", "model.onnx"]


def test_a_file_of_the_users_beside_a_result_is_not_deleted_with_it(float_file, picture_folder, tmp_path):
    """Not even the one that was to be quantized was kept."""
    out = tmp_path / "out"
    quantize_file(float_file, picture_folder, out, ASKED, min_agreement=0.1)
    mine = shutil.copy(float_file, out / "onnx-int8/mine.onnx")
    for file in (float_file, mine):
        with pytest.raises(UserError, match="onnx-int8 holds 'mine.onnx', which softedge did not write; move it away"):
            quantize_file(file, picture_folder, out, ASKED, min_agreement=0.1, force=True)
    assert mine.read_bytes() == float_file.read_bytes()


def test_a_file_whose_name_ends_in_capitals_is_read(float_file, picture_folder, tmp_path):
    path = shutil.copy(float_file, tmp_path / "Netz für Ü.ONNX")
    result = quantize_file(path, picture_folder, tmp_path / "out", ASKED, min_agreement=0.1)
    assert result.metrics["passed"] and list(result.inputs) == ["Netz für Ü.ONNX"]


def test_the_exports_of_a_run_are_no_place_for_a_quantized_file(float_file, picture_folder, tmp_path):
    (tmp_path / "onnx-int8").mkdir()
    result = Result("export/onnx-int8", "run", {}, {}, {}, {}, "2026", 1.0)
    write_json(tmp_path / "onnx-int8/result.json", result.to_dict())
    with pytest.raises(UserError, match="onnx-int8 belongs to a run; .* another --out"):
        quantize_file(float_file, picture_folder, tmp_path, ASKED, force=True)


def saturating(model: onnx.ModelProto) -> onnx.ModelProto:
    """Logits 8,192 times as large, exactly: all probabilities are 0 or 1."""
    for name in ("head.weight", "head.bias"):
        with_constant(model, name, lambda value: 2**13 * value)
    return model


def test_the_noise_of_saturated_answers_is_that_of_their_logits(float_file, pictures, picture_folder, tmp_path):
    """The table said 140 dB."""
    onnx.save(saturating(onnx.load(float_file)), tmp_path / "net.onnx")
    results = [
        quantize_file(path, picture_folder, tmp_path / path.stem / "out", ASKED, min_agreement=0.5)
        for path in (tmp_path / "net.onnx", shutil.copy(float_file, tmp_path / "mild.onnx"))
    ]
    found, wanted = ({step["what"]: step["sqnr_db"] for step in result.details["steps"]} for result in results)
    shared = [what for what in found if what in wanted and "by minmax" in what]
    assert shared and all(abs(found[what] - wanted[what]) < 1e-3 for what in shared)
    assert results[0].details["temperature"] > 100 and "temperature" not in results[1].details
    read = given.read(tmp_path / "net.onnx", ASKED)
    assert measures.saturated(read.predict(pictures), "probabilities") > 0.9
    mild = given.read(float_file, ASKED).predict(pictures)
    assert np.abs(read.at_temperature(2**13).predict(pictures) - mild).max() < 1e-4


def test_of_saturated_probabilities_alone_no_noise_is_told(float_file, picture_folder, tmp_path, capsys):
    model = saturating(onnx.load(float_file))
    model.graph.node.append(helper.make_node("Softmax", ["logits"], ["shares"]))
    model.graph.output[0].name = "shares"
    onnx.save(model, tmp_path / "net.onnx")
    result = quantize_file(tmp_path / "net.onnx", picture_folder, tmp_path / "out", ASKED, min_agreement=0.5)
    told = tables.candidates(result, tmp_path / "out")
    assert "sqnr_db" not in told and " dB" not in told and "their noise is not seen" in told
    assert "sqnr_db" not in result.metrics and result.details["saturated"] > 0.9
    assert "which hides noise: no dB are shown" in capsys.readouterr().err


@pytest.mark.parametrize("output", ["probabilities", "scores"])
def test_answers_are_saturated_where_nothing_but_the_answer_is_left(output):
    rows = {"probabilities": [[1, 0, 0], [0.9, 0.1, 0]], "scores": [[1, 0, 1], [0.9, 0, 1]]}[output]
    assert measures.saturated(np.array(rows, np.float32), output) == 0.5


def noted(model: onnx.ModelProto, **notes: str) -> onnx.ModelProto:
    helper.set_model_props(model, notes)
    return model


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("names", "{0: 'v', 1: 'w', 2: 'x', 3: 'y', 4: 'z'}"),
        ("classes", '["v", "w", "x", "y", "z"]'),
        ("labels", "v, w, x, y, z"),
        ("class_names", "v\nw\nx\ny\nz\n"),
        ("id2label", '{"4": "z", "0": "v", "1": "w", "2": "x", "3": "y"}'),
    ],
)
def test_class_names_are_read_from_the_notes_of_a_file(tmp_path, key, text):
    assert given_notes.names(tmp_path / "net.onnx", {key: text}) == (tuple("vwxyz"), key)


@pytest.mark.parametrize("text", ["{0: 'v', 2: 'x'}", "[1, 2]", "{'v': 1}", '["v", ""]', "3"])
def test_notes_that_are_no_class_names_are_passed_over_with_a_line(tmp_path, capsys, text):
    assert given_notes.names(tmp_path / "net.onnx", {"names": text, "labels": "v,w"}) == (("v", "w"), "labels")
    assert "its entry 'names' holds no class names that can be read" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["__import__('os')", "(" * 300, "[" * 100_000])
def test_no_note_is_run_as_a_program(tmp_path, text):
    assert given_notes.names(tmp_path / "net.onnx", {"names": text}) == ((text,), "names")


def test_a_classifier_of_ultralytics_says_its_names_size_and_normalisation(
    float_file, picture_folder, tmp_path, capsys
):
    notes = {"author": "Ultralytics", "task": "classify", "imgsz": "[16, 16]", "names": str(dict(enumerate("vwxyz")))}
    onnx.save(noted(of_any_size(onnx.load(float_file)), **notes), tmp_path / "net.onnx")
    result = quantize_file(tmp_path / "net.onnx", picture_folder, tmp_path / "out", {}, min_agreement=0.1)
    assert result.details["labels"] == list("vwxyz") and result.details["labels_from"] == "the file's entry 'names'"
    spec = result.details["spec"]
    assert (spec["size"], spec["resize"], spec["mean"], spec["std"]) == (16, 16, [0.0] * 3, [1.0] * 3)
    assert "the names of 5 classes, from its entry 'names'" in capsys.readouterr().err
    notes = {"author": "Ultralytics", "task": "detect"}
    onnx.save(noted(onnx.load(float_file), **notes), tmp_path / "boxes.onnx")
    with pytest.raises(UserError, match="boxes.onnx is a network of Ultralytics for the task 'detect'; give a classif"):
        given.read(tmp_path / "boxes.onnx", ASKED)


def test_what_the_model_api_notes_in_an_onnx_file_is_followed(float_file, tmp_path):
    notes = {"mean_values": "102 127.5 153", "scale_values": "51 63.75 76.5", "labels": "a b c_d e f"}
    notes |= {"reverse_input_channels": "True", "pad_value": "0"}
    onnx.save(noted(onnx.load(float_file), **{f"model_info {k}": v for k, v in notes.items()}), tmp_path / "net.onnx")
    read = given.read(tmp_path / "net.onnx", {})
    assert np.allclose(read.spec.mean, SPEC.mean) and np.allclose(read.spec.std, SPEC.std)
    assert read.names == (("a", "b", "c_d", "e", "f"), "labels")
    with pytest.raises(UserError, match="net.onnx takes red first: its entry 'reverse_input_channels'"):
        given.read(tmp_path / "net.onnx", {"bgr": True})


def test_names_of_another_number_of_classes_are_passed_over(tmp_path, capsys):
    names = (("a", "b"), "names")
    assert given_notes.of_as_many(tmp_path / "net.onnx", names, 2) == names
    assert given_notes.of_as_many(tmp_path / "net.onnx", names, 5) is None
    assert "its entry 'names' names 2 classes, the file has 5: it is passed over" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [np.float32, np.uint8])
@pytest.mark.parametrize("planes", [True, False])
def test_a_network_that_takes_blue_first_gets_it_first(pictures, tmp_path, kind, planes):
    known = interface(
        tmp_path / "net.onnx",
        [Tensor("x", (1, 3, 16, 16) if planes else (1, 16, 16, 3), "float" if kind is np.float32 else "uint8")],
        [Tensor("y", (1, 5), "float")],
        "softmax",
        None,
        bgr=True,
    )
    opened = cv2.cvtColor(pictures[0], cv2.COLOR_RGB2BGR)
    wanted = opened if kind is np.uint8 else (opened / 255 - SPEC.mean) / SPEC.std
    found = known.fed(pictures[:1], SPEC)[0]
    assert found.dtype == kind and np.allclose(found.transpose(1, 2, 0) if planes else found, wanted, atol=1e-5)


def test_a_file_that_takes_blue_first_is_quantized_and_named_so(
    float_file, deployed, pictures, picture_folder, tmp_path, capsys
):
    """Weights with their input channels turned round answer as the network: mean and std turned round, too."""
    model = onnx.load(float_file)
    stem = next(node for node in model.graph.node if node.op_type == "Conv").input[1]
    with_constant(model, stem, lambda value: value[:, ::-1])
    onnx.save(model, tmp_path / "net.onnx")
    asked = {**ASKED, "mean": SPEC.mean[::-1], "std": SPEC.std[::-1], "bgr": True}
    read = given.read(tmp_path / "net.onnx", asked)
    assert np.abs(read.predict(pictures) - deployed.predict(pictures)).max() < 1e-5
    result = quantize_file(tmp_path / "net.onnx", picture_folder, tmp_path / "out", asked, min_agreement=0.5)
    assert result.details["channel_order"] == "BGR" and result.metrics["sqnr_db"] > 15
    made = onnx.load(tmp_path / "out/onnx-int8/model.onnx")
    assert "Gather" not in {node.op_type for node in made.graph.node}
    given.read(tmp_path / "net.onnx", {**ASKED, "mean": (0.4076, 0.4579, 0.4850)})
    assert "is ImageNet's with blue first, and images are fed red first; give --bgr if" in capsys.readouterr().err
    with pytest.raises(UserError, match="blue comes first, as in Caffe: give --bgr"):
        preprocessing(None, "103.939,116.779,123.68", None, None, None)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("boxes", "scores", "labels"), r"is a detector \(its outputs are boxes, scores, labels\); quantize takes"),
        (("features",), "returns features .its output is 'features'., which have no answers to judge int8 by; give a"),
        (("pooler_output",), "returns features"),
    ],
)
def test_networks_of_another_kind_are_named(tmp_path, names, says):
    """Features were taken for logits, and a detector's input was found fault with."""
    outputs = [Tensor(name, (1, 5), "float") for name in names]
    with pytest.raises(UserError, match=says):
        interface(tmp_path / "net.onnx", [Tensor("image", (1, 0, 0, 3), "uint8")], outputs, "", None)


@pytest.mark.parametrize(("name", "title"), [("net.mlpackage", "Core ML"), ("net.pte", "ExecuTorch")])
def test_a_file_of_a_format_that_is_not_quantized_is_named(tmp_path, name, title):
    (tmp_path / name).mkdir()
    words = ["quantize", str(tmp_path / name), "--images", str(tmp_path), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2 or isinstance(done.exception, UserError)
    assert f"is a {title} file, which softedge cannot quantize; give the same network as .onnx, .tflite, .xml" in (
        str(done.exception) + done.output
    )
