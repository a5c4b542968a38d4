"""Files in integers alone: the graph is walked from the image to the answer, and the answers are what they were."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from softedge.errors import UserError
from softedge.eval.measures import compare
from softedge.export import contract, snippet
from softedge.export.deployed import Deployed
from softedge.export.nearest import Judge
from softedge.export.onnx.format import Onnx
from softedge.export.onnx.strict import StrictCandidates
from softedge.quantize.search import Problem, search
from softedge.quantize.steps import Step
from softedge.records import InputSpec

SPEC = InputSpec(16, 18, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


@pytest.fixture(scope="module")
def strict(deployed, pictures, tmp_path_factory):
    return Onnx().convert(deployed, "int8-strict", pictures, tmp_path_factory.mktemp("strict"))


def float_operators(model: onnx.ModelProto) -> list[str]:
    """Operators that read or write a float tensor which is not, on its other side, rounded to 8 bits."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*inferred.graph.value_info, *inferred.graph.output)}
    kinds |= {t.name: t.data_type for t in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    wrong = []
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        floats = [name for name in node.input if kinds.get(name) == TensorProto.FLOAT]
        rounded = all(name in makers and makers[name].op_type == "DequantizeLinear" for name in floats)
        results = [name for name in node.output if kinds[name] == TensorProto.FLOAT]
        if not rounded or any(set(readers.get(name, ["nobody"])) != {"QuantizeLinear"} for name in results):
            wrong.append(f"{node.op_type} {node.name}")
    return wrong


def test_no_operator_between_the_image_and_the_answer_is_in_float(strict, deployed, pictures, tmp_path):
    model = onnx.load(strict.path)
    onnx.checker.check_model(model, full_check=True)
    assert float_operators(model) == []
    for value, shape in ((model.graph.input[0], 4), (model.graph.output[0], 2)):
        assert value.type.tensor_type.elem_type == TensorProto.UINT8 and len(value.type.tensor_type.shape.dim) == shape
    integers = {t.data_type for t in model.graph.initializer if len(t.dims) > 1}
    assert integers <= {TensorProto.INT8, TensorProto.UINT8}, "weights are stored in 8 bits, all of them"
    mixed = Onnx(float_prefix="").without_timing().convert(deployed, "int8", pictures, tmp_path)
    assert float_operators(onnx.load(mixed.path)), "the walk finds the normalisation and the softmax of a mixed file"


def test_answers_are_those_of_pytorch(deployed, pictures, tmp_path):
    """With weights of 7 bits, whose sums no processor saturates."""
    found = Onnx(safe=True).load(Onnx(safe=True).convert(deployed, "int8-strict", pictures, tmp_path))(pictures)
    measures = compare(deployed.predict(pictures), found, None, "probabilities")
    assert measures["sqnr_db"] > 15 and measures["agreement"] >= 0.9 and measures["max_abs_diff"] < 0.2
    assert np.abs(found.sum(1) - 1).max() < 1e-5


def test_normalisation_in_integers_is_within_a_grey_level(deployed, pictures, strict):
    """The rounded planes against (x / 255 - mean) / std in float64: half a step of their grid, half of the weight's."""
    model = onnx.load(strict.path)
    node = next(n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.name.startswith("div"))
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    model.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], TensorProto.UINT8, None))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    coded = session.run([node.output[0]], {"image": pictures})[0]
    actual = (coded.astype(np.float64) - stored[node.input[2]]) * stored[node.input[1]]
    expected = (pictures / 255.0 - np.array(SPEC.mean)) / np.array(SPEC.std)
    step = float(stored[node.input[1]])
    assert np.abs(actual.transpose(0, 2, 3, 1) - expected).max() <= 0.51 * step + 0.01


def test_contract_says_how_to_read_the_integers_and_the_snippet_does(strict, deployed, pictures):
    folder = strict.path.parent
    found = Onnx().load(strict)(pictures[:2])
    contract.write(folder, strict, contract.Golden(pictures[:2], found, deployed.predict(pictures[:2])))
    snippet.write(folder)
    values = json.loads((folder / "contract.json").read_text())
    assert values["input"]["dtype"] == "uint8" and (values["input"]["scale"], values["input"]["zero_point"]) == (1.0, 0)
    out = values["output"]
    assert (out["dtype"], out["tensor"], out["activation"]) == ("uint8", "logits", "softmax")
    session = onnxruntime.InferenceSession(strict.path)
    logits = (session.run([out["tensor"]], {"image": pictures[:2]})[0].astype(float) - out["zero_point"]) * out["scale"]
    assert np.abs(np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - found).max() < 1e-5
    assert contract.read(folder).output == "probabilities"
    command = [sys.executable, folder / "snippets" / "run.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "largest difference to the expected output: 0" in done.stdout or "e-0" in done.stdout
    for name in ("run.cpp", "run.kt", "run.swift"):
        text = (folder / "snippets" / name).read_text()
        assert "logits" in text and repr(out["scale"]) in text and "@" not in text.replace("@testable", "")


def test_board_runtime_gives_probabilities(strict, pictures):
    """The worker of a board feeds the image and gets what other files give."""
    from pathlib import Path

    import softedge

    root = Path(softedge.__file__).parent
    code = (
        "import sys, json, numpy; sys.path[:0] = [sys.argv[1], sys.argv[2]]; import board_runtime;"
        "made = board_runtime.Runtime(sys.argv[3], {'threads': 1});"
        "print(json.dumps(made.infer(numpy.load(sys.argv[4])).tolist()))"
    )
    images = strict.path.parent / "one.npy"
    np.save(images, pictures[:1])
    paths = [root / "bench" / "board", root / "export" / "onnx", strict.path, images]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    assert np.abs(np.array(json.loads(done.stdout)) - Onnx().load(strict)(pictures[:1])).max() < 1e-6


def test_operators_without_an_integer_form_are_named(pictures, tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    with pytest.raises(UserError, match=r"cannot run in integers alone: .*1 Erf"):
        Onnx().convert(Deployed(net, SPEC, labels=("a", "b", "c")), "int8-strict", pictures, tmp_path)


class NormalisedSum(nn.Module):
    """A BatchNorm behind a sum, which no convolution can take in."""

    def __init__(self):
        super().__init__()
        self.stem, self.more, self.norm = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8)
        self.last = nn.Linear(8, 3)

    def forward(self, images):
        first = self.stem(images)
        return self.last(self.norm(first + self.more(first)).relu().mean((2, 3)))


def test_batch_norm_behind_a_sum_is_computed_in_integers(pictures, tmp_path):
    torch.manual_seed(0)
    whole = Deployed(NormalisedSum(), SPEC, labels=("a", "b", "c"))
    with torch.no_grad():
        nn.init.uniform_(whole.model.norm.weight, 0.5, 1.5)
        nn.init.normal_(whole.model.norm.bias)
        whole.model.last.weight *= 8
        whole.train()(torch.from_numpy(pictures))
    artifact = Onnx(safe=True).convert(whole.eval(), "int8-strict", pictures, tmp_path)
    assert float_operators(onnx.load(artifact.path)) == []
    measures = compare(whole.predict(pictures), Onnx().load(artifact)(pictures), None, "probabilities")
    assert measures["sqnr_db"] > 20


class ClassToken(nn.Module):
    """Asks for the batch size of the image, which comes before the normalisation in the graph."""

    def __init__(self):
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 8, 4, 4), nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 3))
        self.token = nn.Parameter(torch.randn(1, 8, 1))

    def forward(self, images):
        tokens = self.stem(images).flatten(2)
        return self.last(torch.cat([self.token.expand(len(images), -1, -1), tokens], 2).mean(2))


def test_of_a_network_with_a_class_token_too_the_operators_are_named(pictures, tmp_path):
    net = ClassToken().eval()
    with pytest.raises(UserError, match="1 Expand, 1 LayerNormalization have no integer form"):
        Onnx().convert(Deployed(net, SPEC, labels=("a", "b", "c")), "int8-strict", pictures, tmp_path)


def test_the_search_puts_no_layer_of_such_a_file_in_float(deployed, pictures):
    judge = Judge.of(deployed, pictures)
    problem = Problem(
        network=deployed,
        make=lambda network: StrictCandidates(network, pictures, methods=("minmax", "mse")),
        judge=judge,
        accepts=lambda measures: [],
        doubts=lambda measures: ["never good enough"],
        calibration=pictures,
        training=lambda: pictures,
        timed=False,
    )
    found = search(problem, Step("default", "as exported", {"sqnr_db": 0.0, "agreement": 0.0}, why=("bad",)))
    assert {"calibrated", "equalized", "bias", "mixed", "weights"} <= {step.name for step in found.steps}
    assert [step.name for step in found.steps if step.name in ("mixed", "weights", "tuned") and step.measures] == []
    chosen = found.chosen
    assert chosen is not None and float_operators(chosen.option.model.model()) == []
