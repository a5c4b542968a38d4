"""Weights of a .tflite rounded for each layer's output, widened, or found in front of the network: what LiteRT's
environment measures and changes, and what is made of it."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_network import SPEC
from torch import nn

from softedge.export.candidates import Option
from softedge.export.given_file import Interface
from softedge.export.litert import candidates, given_worker, rounding
from softedge.export.litert import rounding_worker as worker
from softedge.export.rounding import LARGEST, POSITIONS, WIDEST, Moments

CONV, DEPTHWISE, LINEAR = 3, 4, 9
SAME, VALID = 0, 1


class File:
    """A file as flatbuffer_utils reads it, built operator by operator."""

    def __init__(self):
        self.buffers = [SimpleNamespace(data=None)]
        self.operatorCodes = [SimpleNamespace(builtinCode=code, deprecatedBuiltinCode=0) for code in range(50)]
        self.graph = SimpleNamespace(tensors=[], operators=[], outputs=[])
        self.subgraphs = [self.graph]

    def tensor(self, value=None, shape=None, kind=0, buffer=None):
        """Its index.  value: of a constant."""
        if value is not None and buffer is None:
            buffer = len(self.buffers)
            self.buffers.append(SimpleNamespace(data=np.frombuffer(value.tobytes(), np.uint8)))
        about = {"type": kind, "sparsity": None, "shapeSignature": None, "quantization": None}
        name = f"t{len(self.graph.tensors)}".encode()
        shape = list(shape if value is None else value.shape)
        self.graph.tensors.append(SimpleNamespace(name=name, shape=shape, buffer=buffer or 0, **about))
        return len(self.graph.tensors) - 1

    def operator(self, code, *inputs, padding=VALID, stride=(1, 1), dilation=(1, 1)):
        """The index of its output."""
        about = SimpleNamespace(
            padding=padding,
            strideH=stride[0],
            strideW=stride[1],
            dilationHFactor=dilation[0],
            dilationWFactor=dilation[1],
        )
        output = self.tensor(shape=[1])
        self.graph.operators.append(
            SimpleNamespace(opcodeIndex=code, inputs=list(inputs), outputs=[output], builtinOptions=about)
        )
        return output

    def value(self, index):
        tensor = self.graph.tensors[index]
        return np.frombuffer(self.buffers[tensor.buffer].data, np.float32).reshape(tensor.shape)


def test_constants_in_16_bits_are_widened_and_their_operators_left_out():
    file, x = File(), normal(3, 4)
    halves = file.tensor(x.astype(np.float16), kind=1)
    wide = file.operator(6, halves)
    file.operator(LINEAR, image := file.tensor(shape=[1, 4]), wide)
    computed = file.operator(6, image)  # of no constant
    file.graph.tensors[wide].shape = [3, 4]
    given_worker.widened(file)
    assert [(op.opcodeIndex, op.inputs) for op in file.graph.operators] == [(LINEAR, [image, wide]), (6, [image])]
    assert file.graph.operators[1].outputs == [computed]
    assert np.array_equal(file.value(wide), x.astype(np.float16).astype(np.float32))
    assert file.graph.tensors[halves].buffer == 0 and sum(len(b.data) for b in file.buffers if b.data is not None) == 48


def test_arithmetic_with_a_constant_is_told_by_what_it_makes():
    file, image = File(), None
    image = file.tensor(shape=[1, 4, 4, 3])
    scaled = file.operator(18, image, file.tensor(np.float32([1 / 127.5])))
    moved = file.operator(0, scaled, file.tensor(np.float32([-1, -1, -1]).astype(np.float16), kind=1))
    both = file.operator(0, moved, scaled)
    file.operator(0, both, file.tensor(normal(4, 4)))
    found = given_worker.second_operands(file)
    assert found == {f"t{scaled}": [float(np.float32(1 / 127.5))], f"t{moved}": [-1.0] * 3}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def one(code, x, value, **how):
    """A file's only layer."""
    file = File()
    file.operator(code, file.tensor(shape=x.shape), file.tensor(value), **how)
    (layer,) = worker.layers(file).values()
    return layer


def torch_layer(code, value, stride=(1, 1), dilation=(1, 1), groups=1):
    """PyTorch's convolution with weights as LiteRT stores them; without padding."""
    planes = value[0].transpose(2, 0, 1)[:, None] if code == DEPTHWISE else value.transpose(0, 3, 1, 2)
    module = nn.Conv2d(
        planes.shape[1] * groups, len(planes), planes.shape[2:], stride, 0, dilation, groups=groups, bias=False
    )
    module.weight.data = torch.from_numpy(np.ascontiguousarray(planes))
    return module


@pytest.mark.parametrize(
    ("code", "shape", "groups"),
    [(CONV, (8, 3, 2, 6), 1), (CONV, (8, 3, 2, 2), 3), (DEPTHWISE, (1, 3, 2, 6), 6), (DEPTHWISE, (1, 3, 2, 12), 6)],
)
@pytest.mark.parametrize(("stride", "dilation"), [((1, 1), (1, 1)), ((2, 3), (1, 1)), ((1, 1), (2, 1))])
def test_what_a_convolution_reads_is_ordered_as_its_weights(code, shape, groups, stride, dilation):
    """Weights times the mean of what is read are the mean outputs that PyTorch computes, and likewise of squares."""
    if groups == 3:
        shape = (9, *shape[1:])
    x, value = normal(1, 9, 10, 6), normal(*shape, seed=1)
    layer = one(code, x, value, stride=stride, dilation=dilation)
    weight = layer.weight()
    assert len(weight) == groups
    outputs = torch_layer(code, value, stride, dilation, groups)(torch.from_numpy(x.transpose(0, 3, 1, 2))).detach()
    assert np.allclose((weight @ layer.mean(x)).flatten(), outputs.mean((0, 2, 3)), atol=1e-5)
    squares = np.einsum("gok,gkl,gol->go", weight, layer.second(x, 1e9, 0), weight).flatten()
    assert np.allclose(squares, outputs.square().mean((0, 2, 3)), rtol=1e-4)
    assert np.array_equal(layer.stored(weight), value)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [8, 9])
def test_same_padding_is_tensorflows(stride, size):
    """More zeros behind than in front, as many as ceil(size / stride) outputs need."""
    x, value = normal(1, size, size, 4), normal(5, 4, 4, 4, seed=1)
    layer = one(CONV, x, value, padding=SAME, stride=(stride, stride))
    total = max((-(-size // stride) - 1) * stride + 4 - size, 0)
    padded = np.pad(x, [(0, 0), *[(total // 2, total - total // 2)] * 2, (0, 0)])
    outputs = torch_layer(CONV, value, (stride, stride))(torch.from_numpy(padded.transpose(0, 3, 1, 2))).detach()
    assert outputs.shape[2] == -(-size // stride)
    assert np.allclose((layer.weight() @ layer.mean(x)).flatten(), outputs.mean((0, 2, 3)), atol=1e-5)


def test_second_moments_are_those_of_the_pytorch_rounding_on_a_part_of_the_positions():
    """The same grid of positions, which moves from image to image."""
    x, value = normal(3, 12, 12, 4), normal(6, 3, 3, 4, seed=1)
    layer, module = one(CONV, x[:1], value), torch_layer(CONV, value)
    for index, image in enumerate(x):
        found = layer.second(image[None], 12, index)
        moments = Moments(module, 1)
        moments.parts, share = index, 100 / 12
        planes = torch.from_numpy(image[None].transpose(0, 3, 1, 2))
        columns = nn.functional.unfold(planes, 3).reshape(4, 9, 10, 10)
        every = int(np.ceil(np.sqrt(share)))
        some = columns[:, :, index % every :: every, index % every :: every].transpose(0, 1).reshape(36, -1)
        assert np.allclose(found[0], some @ some.T / some.shape[1], atol=1e-5)


def test_a_linear_layer_reads_rows():
    x, value = normal(1, 7, 5), normal(3, 5, seed=1)
    layer = one(LINEAR, x, value)
    assert np.array_equal(layer.weight(), value[None]) and np.array_equal(layer.stored(value[None]), value)
    assert np.allclose(layer.mean(x)[0, :, 0], x[0].mean(0), atol=1e-6)
    assert np.allclose(layer.second(x, 1e9, 0)[0], x[0].T @ x[0] / 7, atol=1e-5)


def test_shared_weights_and_other_types_are_left_alone():
    file = File()
    x = file.tensor(shape=[1, 4])
    kept = file.operator(LINEAR, x, file.tensor(normal(4, 4)))
    shared = file.tensor(normal(4, 4))
    file.operator(LINEAR, kept, shared)
    file.operator(LINEAR, kept, shared)
    twin = file.tensor(normal(4, 4))
    same_buffer = file.tensor(normal(4, 4), buffer=file.graph.tensors[twin].buffer)
    for weights in (twin, same_buffer):
        file.operator(LINEAR, kept, weights)
    file.operator(LINEAR, kept, file.tensor(normal(4, 4).astype(np.float16), kind=1))
    file.operator(LINEAR, kept, file.tensor(shape=[4, 4]))  # computed
    file.operator(LINEAR, kept, file.tensor(np.full((4, 4), np.nan, np.float32)))
    file.operator(0, kept, file.tensor(normal(4, 4)))
    assert list(worker.layers(file)) == [0]


def test_biases_are_corrected_in_place_and_shared_or_missing_ones_get_their_own():
    file = File()
    x, shared = file.tensor(shape=[1, 3]), file.tensor(normal(2))
    own, before = file.tensor(normal(2)), file.value(shared).copy()
    for bias in (own, shared, shared, -1):
        file.operator(LINEAR, x, file.tensor(normal(2, 3)), bias)
    file.operator(LINEAR, x, file.tensor(normal(2, 3)))
    owned, weight = file.value(own).copy(), normal(1, 2, 3)
    more = {f"more.{place}": np.float32([place, 10]) for place in (0, 1, 3, 4)}
    worker.change(file, {**more, "weight.2": weight})
    biases = [operator.inputs[2] for operator in file.graph.operators]
    assert biases[0] == own and np.array_equal(file.value(own), owned + np.float32([0, 10]))
    assert np.array_equal(file.value(biases[1]), before + np.float32([1, 10]))
    assert biases[2] == shared and np.array_equal(file.value(shared), before)
    assert all(np.array_equal(file.value(biases[place]), np.float32([place, 10])) for place in (3, 4))
    assert np.array_equal(file.value(file.graph.operators[2].inputs[1]), weight[0])


class Environment:
    """LiteRT's, for a file of layers that all read the same numbers: what the worker is asked, and what it writes."""

    def __init__(self, weights):
        self.weights, self.asked, self.changes = weights, [], {}

    def work(self, verb, file, *arguments, script):
        assert script == rounding.WORKER
        *given, result = arguments
        if verb == "unpack":
            np.savez(result, **{str(place): weight for place, weight in self.weights.items()})
        elif verb == "measure":
            x, about = np.load(given[0]).reshape(-1, 6), json.loads(given[1].read_text())
            assert about["positions"] == POSITIONS
            self.asked.append(about["layers"])
            moments = {}
            for place in about["layers"]:
                groups, _, inputs = self.weights[place].shape
                read = x[:, : groups * inputs].reshape(-1, groups, inputs).transpose(1, 2, 0)
                moments[f"mean.{place}"] = read.mean(2, keepdims=True)
                moments[f"second.{place}"] = read @ read.transpose(0, 2, 1) / read.shape[2]
            np.savez(result, **moments)
        else:
            with np.load(given[0]) as changes:
                self.changes = dict(changes)
            result.touch()


@pytest.fixture
def environment(monkeypatch):
    made = Environment({0: normal(1, 4, 6), 3: normal(3, 2, 2, seed=1), 12: normal(1, 5, 6, seed=2)})
    monkeypatch.setattr(rounding, "work", made.work)
    return made


INPUTS = normal(40, 2) @ normal(2, 6, seed=1) + 0.1 * normal(40, 6, seed=2) + 1  # correlated


def test_each_layer_gets_the_weights_of_least_error_and_keeps_its_mean_outputs(environment, tmp_path):
    assert rounding.rounded(tmp_path / "net.tflite", INPUTS, tmp_path / "out.tflite")
    assert environment.asked == [[0, 3, 12]] and (tmp_path / "out.tflite").exists()
    errors = np.zeros(2)
    for place, weight in environment.weights.items():
        coded, more = environment.changes[f"weight.{place}"], environment.changes[f"more.{place}"]
        steps = np.abs(weight).max(2, keepdims=True) / LARGEST
        assert np.allclose(coded / steps, np.round(coded / steps), atol=1e-3)
        assert np.array_equal(np.abs(coded).max(2), np.abs(weight).max(2)), "the quantizer finds the same steps"
        groups, _, inputs = weight.shape
        x = INPUTS[:, : groups * inputs].reshape(-1, groups, inputs).transpose(1, 2, 0)
        nearest = np.round(weight / steps) * steps
        errors += [np.square((other - weight) @ x).sum() for other in (coded, nearest)]
        means = [(other @ x).mean(2).flatten() for other in (coded, weight)]
        assert np.allclose(means[0] + more, means[1], atol=1e-5)
    assert errors[0] < 0.5 * errors[1]


def test_a_file_in_which_nothing_can_be_rounded_is_left_as_it_is(environment, tmp_path):
    environment.weights = {}
    assert not rounding.rounded(tmp_path / "net.tflite", INPUTS, tmp_path / "out.tflite")
    assert environment.asked == [] and not (tmp_path / "out.tflite").exists()


def test_layers_whose_second_moments_fit_into_memory_are_measured_together():
    wide = int(WIDEST**0.5)
    shapes = [(1, 2, wide // 2), (100, 1, 9), (1, 2, wide // 2), (1, 1, wide), (1, 1, 4)]
    weights = {10 * place: torch.empty(shape) for place, shape in enumerate(shapes)}
    assert rounding.groups(weights) == [[0, 10, 20], [30], [40]]


def test_a_layer_that_reads_minus_infinity_keeps_the_nearest_steps_and_its_bias(environment, tmp_path):
    """What is padded for a maximum is padded with it."""
    inputs = INPUTS.copy()
    inputs[0, 5] = -np.inf
    with np.errstate(invalid="ignore"):
        rounding.rounded(tmp_path / "net.tflite", inputs, tmp_path / "out.tflite")
    steps = np.abs(environment.weights[0]).max(2, keepdims=True) / LARGEST
    nearest = np.round(environment.weights[0] / steps) * steps
    assert np.allclose(environment.changes["weight.0"], nearest, atol=1e-6)
    assert set(environment.changes) == {"weight.0", "weight.3", "weight.12"}


def test_layers_that_are_too_wide_keep_the_nearest_steps(monkeypatch, environment, tmp_path):
    monkeypatch.setattr(rounding, "WIDEST", 12)
    rounding.rounded(tmp_path / "net.tflite", INPUTS, tmp_path / "out.tflite")
    assert environment.asked == [[3]] and set(environment.changes) == {"weight.3", "more.3"}


def test_candidates_of_a_file_round_it_once_also_for_float_arithmetic(monkeypatch, pictures, tmp_path):
    rounds = []
    known = Interface(16, True, "float", "probabilities", logits=True)
    made = candidates.FileCandidates(candidates.File(tmp_path / "net.tflite", known, SPEC, (), ()), pictures)
    monkeypatch.setattr(candidates, "rounded", lambda file, inputs, out: rounds.append(inputs) or True)
    options = [Option(name, candidates.Quantization({name: (0.0, 1.0)}, (name,))) for name in "ab"]
    after = [made.rounded(option, pictures).model for option in options]
    assert [(one.ranges, one.in_float) for one in after] == [({"a": (0.0, 1.0)}, ("a",)), ({"b": (0.0, 1.0)}, ("b",))]
    assert after[0].source == after[1].source != tmp_path / "net.tflite"
    alone = made.weights_only()
    assert made.rounded(alone, pictures).model == replace(alone.model, source=after[0].source)
    assert len(rounds) == 1 and np.array_equal(rounds[0], known.fed(pictures, SPEC)), "as the file takes them"
    assert made.rounded(options[0], pictures[:3]).model.source != after[0].source, "other images, another file"
    assert made.rounded(Option("fp16", candidates.Quantization({}, scheme="fp16")), pictures) is None
    monkeypatch.setattr(candidates, "rounded", lambda file, inputs, out: False)
    assert candidates.FileCandidates(made.file, pictures).rounded(options[0], pictures) is None
