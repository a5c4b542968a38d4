"""Weights of an ONNX graph rounded for each layer's output, against onnxruntime's own layers and the PyTorch route."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from softedge.export.deployed import Deployed
from softedge.export.nearest import Choice, Judge, decibels, rounded_where_nearer, with_rounded_weights
from softedge.export.onnx import candidates as onnx_candidates
from softedge.export.onnx import rounding as module
from softedge.export.onnx.candidates import GraphCandidates, OnnxCandidates
from softedge.export.onnx.quantization import Quantization
from softedge.export.onnx.quantizer import Scheme
from softedge.export.onnx.ranges import measure
from softedge.export.onnx.rewrite import attribute, constants
from softedge.export.rounding import _columns, _sums
from softedge.export.rounding import rounded as rounded_in_pytorch
from softedge.records import InputSpec

SPEC = InputSpec(16, 16, (0.5, 0.4, 0.3), (0.2, 0.3, 0.2))
IMAGES = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)


def model_of(nodes, constants, inputs, outputs):
    """A graph: nodes as (kind, inputs, output, attributes), constants by name."""
    made = [helper.make_node(kind, read, [out], f"{kind}_{out}", **more) for kind, read, out, more in nodes]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(made, "graph", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def run(model, **inputs):
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, inputs)


def floats(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


@pytest.mark.parametrize(
    ("kind", "weight", "source", "settings"),
    [
        ("Conv", (4, 6, 3, 3), (6, 10, 11), {"strides": [2, 2], "pads": [0, 1, 2, 1]}),
        ("Conv", (6, 1, 3, 5), (6, 10, 11), {"group": 6, "dilations": [2, 1], "pads": [1, 0, 1, 0]}),
        ("Conv", (4, 3, 4, 4), (6, 10, 11), {"group": 2, "auto_pad": "SAME_UPPER"}),
        ("Conv", (4, 3, 4, 4), (6, 10, 11), {"group": 2, "auto_pad": "SAME_LOWER", "strides": [3, 2]}),
        ("Conv", (4, 6, 3, 3), (6, 10, 11), {"auto_pad": "VALID", "strides": [2, 1]}),
        ("Conv", (4, 6, 1, 1), (6, 10, 11), {}),
        ("Gemm", (4, 6), (6,), {"transB": 1}),
        ("Gemm", (6, 4), (6,), {}),
        ("MatMul", (6, 4), (6,), {}),
        ("MatMul", (6, 4), (5, 6), {}),
    ],
)
def test_what_a_layer_is_taken_to_read_times_its_weights_is_what_the_runtime_computes(kind, weight, source, settings):
    rng = np.random.default_rng(0)
    value, x = rng.normal(size=weight).astype(np.float32), rng.normal(size=(2, *source)).astype(np.float32)
    output = floats("y", *[None] * x.ndim)
    model = model_of([(kind, ["x", "w"], "y", settings)], {"w": value}, [floats("x", *x.shape)], [output])
    layer = module.layers(model)[0]
    padded = layer.input(x)
    empty = layer.output(padded)
    expected = torch.from_numpy(run(model, x=x)[0])
    assert empty.shape == expected.shape
    channels = weight[0] if attribute(model.graph.node[0], "transB", 0) or kind == "Conv" else weight[1]
    last = expected if kind != "Conv" else expected.movedim(1, -1)
    product = (layer.weight @ _columns(layer.module, padded, empty)).reshape(channels, -1)
    torch.testing.assert_close(product, last.reshape(-1, channels).T, rtol=1e-4, atol=1e-5)
    summed = (layer.weight @ _sums(layer.module, padded, empty)).reshape(-1)
    torch.testing.assert_close(summed, last.reshape(-1, channels).sum(0), rtol=1e-4, atol=1e-4)
    assert np.array_equal(layer.stored(layer.weight), value)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.dense = nn.Conv2d(16, 32, 1)
        self.wide = nn.Conv2d(32, 32, 3, dilation=2, padding=2, groups=2)
        self.head = nn.Linear(32, 5)

    def forward(self, x):
        x = self.depthwise(self.norm(self.stem(x)).relu()).relu()
        x = self.dense(x).relu()
        return self.head((x + self.wide(x)).relu().mean((2, 3)))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Deployed(Net().eval(), SPEC, tuple("abcde"))


def option_of(network):
    candidates = OnnxCandidates(network, IMAGES, scheme=Scheme(), methods=("minmax",))
    return candidates, next(iter(candidates.calibrations()))


def of_graph(made):
    return module.rounded(made.graph, made.weight_grids(), IMAGES)


def weights(graph):
    known = constants(graph)
    return {n.name: numpy_helper.to_array(known[n.input[1]]) for n in graph.graph.node if n.op_type in ("Conv", "Gemm")}


def biases(graph):
    known = constants(graph)
    return {n.name: numpy_helper.to_array(known[n.input[2]]) for n in graph.graph.node if n.op_type in ("Conv", "Gemm")}


def test_the_graph_is_rounded_as_the_network_in_pytorch_is(network):
    _, option = option_of(network)
    actual = of_graph(option.model)
    _, expected = option_of(rounded_in_pytorch(network, IMAGES))
    before, mine, theirs = (weights(graph) for graph in (option.model.graph, actual.graph, expected.model.graph))
    assert not actual.left and len(mine) == 5
    same = {name: float(np.isclose(mine[name], theirs[name], atol=1e-6).mean()) for name in mine}
    changed = {name: float((mine[name] != before[name]).mean()) for name in mine}
    assert min(same.values()) > 0.97, "ties aside"
    assert min(changed.values()) > 0.5
    for name, bias in biases(actual.graph).items():
        np.testing.assert_allclose(bias, biases(expected.model.graph)[name], atol=2e-3)


def test_the_file_stores_exactly_the_weights_that_were_chosen(network):
    """On the grid of the candidate, so that its own rounding finds the same integers; float layers, too."""
    candidates, option = option_of(network)
    floats = frozenset(candidates.layers()[:2])
    for scheme in (Scheme(), Scheme(reduce_range=True), Scheme(floats)):
        made = candidates.rounded(replace(option, model=replace(option.model, scheme=scheme)), IMAGES)
        file = made.model.model()
        stored = constants(file)
        chosen = weights(made.model.graph)
        for node in made.model.graph.graph.node:
            name = node.input[1] if len(node.input) > 1 else ""
            if node.name not in chosen or f"{name}_q" not in stored:
                continue
            q, scale = (numpy_helper.to_array(stored[f"{name}_{end}"]) for end in ("q", "scale"))
            step = scale.reshape(-1, *[1] * (q.ndim - 1))
            np.testing.assert_allclose(chosen[node.name] / step, q, atol=1e-3)
            assert np.abs(q).max() == (63 if scheme.reduce_range else 127)
        small = weights(option.model.graph)
        for name in floats:  # below 1,024 weights: stored in float, so that there is nothing to round
            assert (chosen[name] == small[name]).all() == (name in scheme.float_nodes)


def test_every_output_channel_keeps_its_mean_and_the_noise_of_weights_falls(network):
    _, option = option_of(network)
    made = option.model
    found = of_graph(made).graph
    plain = onnx.ModelProto()
    plain.CopyFrom(made.graph)
    for name, grid in made.weight_grids().items():
        node = next(n for n in plain.graph.node if n.name == name)
        tensor = constants(plain)[node.input[1]]
        value = numpy_helper.to_array(tensor)
        step = grid.steps.reshape(-1, *[1] * (value.ndim - 1))
        tensor.CopyFrom(numpy_helper.from_array((np.rint(value / step) * step).astype(np.float32), tensor.name))
    logits = made.graph.graph.node[-1].input[0]
    exact, mine, naive = (
        run(onnx_candidates.with_outputs(graph, [logits]), image=IMAGES)[1] for graph in (made.graph, found, plain)
    )
    np.testing.assert_allclose(mine.mean(0), exact.mean(0), atol=1e-5)
    assert np.square(mine - exact).mean() < 0.5 * np.square(naive - exact).mean()


def two_layers(second_bias="b"):
    """Two linear layers over an image's channels, as MatMul and Add, which share their bias."""
    rng = np.random.default_rng(1)
    constants = {name: rng.normal(size=(3, 3)).astype(np.float32) for name in ("w1", "w2")}
    constants["b"] = rng.normal(size=3).astype(np.float32)
    nodes = [
        ("Cast", ["image"], "x", {"to": TensorProto.FLOAT}),
        ("MatMul", ["x", "w1"], "m1", {}),
        ("Add", ["m1", "b"], "a1", {}),
        ("Relu", ["a1"], "r1", {}),
        ("MatMul", ["r1", "w2"], "m2", {}),
        ("Add", [second_bias, "m2"], "y", {}),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 16, 16, 3])
    return model_of(nodes, constants, [image], [floats("y", None, 16, 16, 3)])


def quantization(model):
    return Quantization(model, measure(model, IMAGES, "minmax"))


def test_a_bias_that_two_layers_share_becomes_two():
    model = two_layers()
    found = of_graph(quantization(model)).graph
    adds = [node for node in found.graph.node if node.op_type == "Add"]
    names = {name for node in adds for name in node.input if name in constants(found)}
    assert len(names) == 2
    exact, mine = (run(graph, image=IMAGES)[0] for graph in (model, found))
    assert not np.array_equal(exact, mine)
    np.testing.assert_allclose(mine.mean((0, 1, 2)), exact.mean((0, 1, 2)), rtol=1e-4)


def test_weights_that_two_layers_share_stay():
    model = two_layers()
    model.graph.node[4].input[1] = "w1"
    found = of_graph(quantization(model)).graph
    assert np.array_equal(numpy_helper.to_array(constants(found)["w1"]), numpy_helper.to_array(constants(model)["w1"]))


@pytest.mark.parametrize(
    ("limit", "value", "expected"),
    [
        ("WIDEST", 2 * 144**2 - 1, ["node_conv2d_3"]),  # two groups of 144 inputs
        ("_OPERATIONS", 0, ["node_conv2d", "node_conv2d_1", "node_conv2d_2", "node_conv2d_3", "node_linear"]),
        ("_OPERATIONS", 3e6, ["node_conv2d_1", "node_conv2d_3"]),
    ],
)
def test_layers_beyond_the_limits_keep_the_nearest_steps_and_are_counted(
    network, monkeypatch, capsys, limit, value, expected
):
    candidates, option = option_of(network)
    monkeypatch.setattr(module, limit, value)
    made = candidates.rounded(option, IMAGES)
    before, after = weights(option.model.graph), weights(made.model.graph)
    assert [name for name in before if np.array_equal(before[name], after[name])] == expected
    assert f"{len(expected)} of 5 layers are too wide" in capsys.readouterr().err
    assert made.details["rounding"] == f"least error, to the nearest step in {len(expected)} of 5 layers"


def test_fewer_images_are_asked_where_their_maps_are_large(network, monkeypatch):
    _, option = option_of(network)
    asked = []
    real = module._Values
    monkeypatch.setattr(module, "_Values", lambda graph, images: asked.append(len(images)) or real(graph, images))
    of_graph(option.model)
    assert asked == [1, 24, 24]
    monkeypatch.setattr(module, "_MEMORY", 12 * 4 * 16 * 16 * 3)  # twelve images as the first layer reads them
    of_graph(option.model)
    assert asked[3:] == [1, 8, 8], "maps of 16 channels are larger than the image; never fewer than eight"


def test_a_batch_of_one_gives_the_same(network):
    _, option = option_of(network)
    fixed = OnnxCandidates(network, IMAGES, dynamic=False, scheme=Scheme(), methods=("minmax",))
    found = [weights(of_graph(made.model).graph) for made in (option, next(iter(fixed.calibrations())))]
    for one, other in zip(found[0].values(), found[1].values()):
        assert np.isclose(one, other, atol=1e-6).mean() > 0.97


def test_the_rounded_file_is_nearer_and_one_that_is_not_is_not_taken(network, monkeypatch):
    candidates, option = option_of(network)
    judge = Judge.of(network, IMAGES)
    choice = Choice(option, judge.measure(candidates, option))
    found = rounded_where_nearer(candidates, choice, judge, None, IMAGES)
    assert decibels(found.measures) > decibels(choice.measures) + 1
    assert found.option.details["rounding"] == "least error" and "least error" in found.option.what

    def zeroed(model, grids, images):
        graph = module.copied(model)
        for tensor in graph.graph.initializer:
            if len(tensor.dims) == 4:
                module.set_constant(tensor, 0 * numpy_helper.to_array(tensor))
        return module.Rounded(graph, ())

    monkeypatch.setattr(onnx_candidates, "rounded", zeroed)
    kept = rounded_where_nearer(candidates, choice, judge, None, IMAGES)
    assert kept.option is option and len(kept.compared) == 1, "the other is in the table, and not chosen"


def test_an_option_read_from_a_file_cannot_be_rounded():
    class File(GraphCandidates):
        float_model = None

        def finished(self, model, details):
            raise AssertionError

    option = onnx_candidates.Option("a file", two_layers())
    assert with_rounded_weights(File(IMAGES), option, None, IMAGES) is None
