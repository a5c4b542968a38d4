"""ONNX classifiers that somebody else exported: put behind softedge's preprocessing, quantized, taken out again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from softedge.errors import UserError, first_line
from softedge.eval.measures import PRESENT
from softedge.export.base import Float32, GivenModel, Predictor, Uint8
from softedge.export.contract import INPUT
from softedge.export.given_ends import End, end_of, judged
from softedge.export.given_file import GREY, HARD, Interface, Tensor, interface, own_words, preprocessing
from softedge.export.onnx.candidates import GraphCandidates
from softedge.export.onnx.graph import IR_VERSION
from softedge.export.onnx.ranges import run, session
from softedge.export.onnx.rewrite import copied, inner_graphs, rename, without_unused
from softedge.export.onnx.widen import is_half, widened
from softedge.records import InputSpec

OURS = "softedge_"  # begins the names of the nodes that are put around the graph
_THEIRS = "given_"  # put before all names of a graph that has some of those
OLDEST_OPSET = 13  # the first with scales per channel
_OPSET = 17  # that older files are converted to
_OF_HALF_PIXELS = 11  # the first whose Resize says where pixels lie; before, at x / scale, the nearest one rounded down
_BATCH = 32  # images that a file is given at once
_ROUNDING = 1e-3  # largest difference of an answer that a rewritten graph may have
_QUANTIZED = {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"}


Step = tuple[str, list[str], dict[str, Any]]  # an operator, its further operands, its attributes


@dataclass(frozen=True)
class Edges:
    """The given file's own input and outputs, which the int8 file gets back, and what they mean."""

    image: onnx.ValueInfoProto
    outputs: list[onnx.ValueInfoProto]
    interface: Interface
    renamed: Mapping[str, str] = field(default_factory=dict)  # a name in the wrapped graph -> the file's own


def read(path: Path, asked: Mapping[str, Any]) -> GivenModel:
    """See ``Format.given``."""
    model, half = _plain(path)
    edges, end = _edges(model, path, asked)
    notes = {entry.key: entry.value for entry in model.metadata_props}
    spec = preprocessing(path, edges.interface, asked, own_words(path, notes.get("softedge.input")))
    own = _own_values(path, edges.interface, spec)
    edges = replace(edges, interface=judged(path, edges.interface, end, own, asked.get("activation")))
    wrapped, edges = _wrapped(model, edges, spec)
    _refuse_changed(path, edges, spec, wrapped)
    known = edges.interface
    return GivenModel(
        spec,
        (lambda images: known.answers(own(images))) if half else (lambda images: run(wrapped, images)),
        lambda calibration: FileCandidates(wrapped, edges, calibration),
        known.output,
        lambda made: lambda images: run(_wrapped(onnx.load(str(made)), edges, spec)[0], images),
        known.about(),
    )


class FileCandidates(GraphCandidates):
    """Int8 candidates of a given file; they keep its input and outputs."""

    def __init__(self, wrapped: onnx.ModelProto, edges: Edges, calibration: Uint8, **settings: Any):
        super().__init__(calibration, **settings)
        self.wrapped, self.edges = wrapped, edges

    @cached_property
    def float_model(self) -> onnx.ModelProto:
        return self.wrapped

    def finished(self, model: onnx.ModelProto, details: Mapping[str, Any]) -> bytes:
        del details
        return _unwrapped(model, self.edges).SerializeToString()


def _plain(path: Path) -> tuple[onnx.ModelProto, bool]:
    """The graph in float32 with constants and BatchNorm folded, every node named, and whether the file computes in
    float16; UserError for what cannot be quantized."""
    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf, external data and the file system each raise their own
        first = first_line(error)
        raise UserError(f"{path} cannot be read as an ONNX file ({first})") from error
    kinds = {node.op_type for node in model.graph.node}
    if not kinds:
        raise UserError(f"{path} holds no network: it is empty, or damaged; export it again")
    if kinds & _QUANTIZED:
        raise UserError(f"{path} is quantized already ({', '.join(sorted(kinds & _QUANTIZED))}); give the fp32 file")
    _refuse_brain(model, path)
    if half := is_half(model):
        model = widened(model)
    if (opset := _opset(model)) < OLDEST_OPSET:
        try:
            model = _converted(model, opset)
        except Exception as error:  # the converter has no kind of its own
            first = first_line(error)
            raise UserError(
                f"{path} has opset {opset}, int8 needs {OLDEST_OPSET}, and it cannot be converted ({first}); "
                f"export it again with opset {_OPSET}"
            ) from error
    kept = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in kept]  # old exporters list weights, too
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model = _folded(model, path)
    _refuse_brain(model, path)  # of weights that were nodes
    used: set[str] = set()
    for index, node in enumerate(model.graph.node):
        node.name = node.name if node.name and node.name not in used else f"{node.op_type}_{index}"
        used.add(node.name)
    return model, half


def _opset(model: onnx.ModelProto) -> int:
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def _converted(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """``model`` with the operators of a newer opset."""
    model = onnx.version_converter.convert_version(model, _OPSET)
    for node in model.graph.node if opset < _OF_HALF_PIXELS else ():
        if node.op_type == "Resize":  # the converter leaves them to the newer default: other positions
            for key, value in (("coordinate_transformation_mode", "asymmetric"), ("nearest_mode", "floor")):
                node.attribute.append(helper.make_attribute(key, value))
    return model


def _refuse_changed(path: Path, edges: Edges, spec: InputSpec, wrapped: onnx.ModelProto) -> None:
    """UserError where the graph of an old file, converted to a newer opset, answers otherwise than the file."""
    if (opset := _opset(onnx.load(str(path), load_external_data=False))) >= OLDEST_OPSET:
        return
    images = np.random.default_rng(0).integers(0, 256, (1, spec.size, spec.size, 3), dtype=np.uint8)
    fed = {edges.image.name: edges.interface.fed(images, spec)}
    model = onnx.load(str(path))
    model = widened(model) if is_half(model) else model
    given = edges.interface.answers(session(model).run(None, fed)[0].astype(np.float32))
    if not (differ := float(np.abs(given - run(wrapped, images)).max())) <= _ROUNDING:
        raise UserError(
            f"{path} has opset {opset}, and its answers change by {differ:.2g} when it is converted to opset {_OPSET}; "
            f"export it again with opset {_OPSET}"
        )


def _refuse_brain(model: onnx.ModelProto, path: Path) -> None:
    brain = [t.name for t in model.graph.initializer if t.data_type == TensorProto.BFLOAT16]
    if brain:
        raise UserError(f"{path} holds {len(brain)} tensors in bfloat16 ('{brain[0]}'); give the fp32 or fp16 file")


def _folded(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """onnxruntime's basic rewrites, all to standard operators: constants and BatchNorm are folded."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory(prefix="softedge-") as folder:
        options.optimized_model_filepath = str(Path(folder) / "model.onnx")
        try:
            ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common base
            first = first_line(error)
            raise UserError(f"{path} cannot be run by onnxruntime ({first})") from error
        folded = onnx.load(options.optimized_model_filepath)
    del folded.metadata_props[:]
    folded.metadata_props.extend(model.metadata_props)
    return folded


def _own_values(path: Path, known: Interface, spec: InputSpec) -> Predictor:
    """What the file itself gives, as it was written."""

    @cache
    def given() -> Any:
        try:
            return session(onnx.load(str(path)))
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise UserError(f"{path} cannot be run by onnxruntime as it is ({first_line(error)})") from error

    def values(images: Uint8) -> Float32:
        entry = given().get_inputs()[0]
        step = entry.shape[0] if isinstance(entry.shape[0], int) else _BATCH
        parts = [known.fed(images[i : i + step], spec) for i in range(0, len(images), step)]
        return np.concatenate([given().run(None, {entry.name: part})[0] for part in parts]).astype(np.float32)

    return values


def _edges(model: onnx.ModelProto, path: Path, asked: Mapping[str, Any]) -> tuple[Edges, End[str]]:
    inputs, outputs = list(model.graph.input), list(model.graph.output)
    makers = {name: (node.op_type, next(iter(node.input), None)) for node in model.graph.node for name in node.output}
    end = end_of(outputs[0].name if outputs else "", lambda tensor: makers.get(tensor, ("", None)))
    sides = asked.get("size"), asked.get("activation")
    known = interface(path, [*map(_tensor, inputs)], [*map(_tensor, outputs)], end.kind, *sides)
    return Edges(inputs[0], outputs, known), end


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    kinds = {
        TensorProto.FLOAT: "float",
        TensorProto.FLOAT16: "f16",
        TensorProto.DOUBLE: "f64",
        TensorProto.UINT8: "uint8",
    }
    kind = value.type.tensor_type.elem_type
    dims = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    return Tensor(value.name, dims, kinds.get(kind, TensorProto.DataType.Name(kind).lower()))


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    """Of all nodes and tensors, also inside If and Loop."""
    yield from (value.name for value in (*graph.input, *graph.output, *graph.initializer))
    for node in graph.node:
        yield from (node.name, *node.input, *node.output)
        for inner in inner_graphs(node):
            yield from _names(inner)


def _wrapped(model: onnx.ModelProto, edges: Edges, spec: InputSpec) -> tuple[onnx.ModelProto, Edges]:
    """``model`` from ``image``, uint8 (N, S, S, 3), to its output; the names of the new nodes begin with OURS.

    Where the graph has such names itself, all of its own are changed.
    """
    model, inner = copied(model), edges.image.name
    if any(name == INPUT or name.startswith(OURS) for name in _names(model.graph)):
        model = compose.add_prefix(model, _THEIRS)
        own = (inner, *(output.name for output in edges.outputs))
        edges, inner = replace(edges, renamed={_THEIRS + name: name for name in own}), _THEIRS + inner
    graph, known = model.graph, edges.interface
    batch = edges.image.type.tensor_type.shape.dim[0].dim_value or "N"
    steps = _before(graph, known, spec)
    before, source = [], INPUT
    for index, (kind, more, attributes) in enumerate(steps or [("Identity", [], {})]):
        result = inner if index == max(len(steps) - 1, 0) else f"{OURS}{index}"
        before.append(helper.make_node(kind, [source, *more], [result], f"{OURS}{index}_{kind}", **attributes))
        source = result
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [batch, spec.size, spec.size, 3]))
    last, after = graph.output[0], []
    result, dims = last.name, [d.dim_value or d.dim_param or None for d in last.type.tensor_type.shape.dim]
    for index, (kind, more, attributes) in enumerate(_behind(graph, known)):
        name = f"{OURS}end{index}_{kind}"
        after.append(helper.make_node(kind, [result, *more], [name], name, **attributes))
        result = name
    if after:
        classes = next((size for size in dims[1:] if size != 1), 1)
        del graph.output[:]
        graph.output.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, [dims[0], classes]))
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in (*before, *graph.node, *after)]
    del graph.node[:]
    graph.node.extend(nodes)
    return model, edges


def _before(graph: onnx.GraphProto, known: Interface, spec: InputSpec) -> list[Step]:
    """What makes the file's input of uint8 RGB: ``Interface.fed``."""

    def held(name: str, values: Any) -> list[str]:
        graph.initializer.append(numpy_helper.from_array(np.asarray(values), OURS + name))
        return [OURS + name]

    axis = 1 if known.planes else 3
    steps: list[Step] = [("Transpose", [], {"perm": [0, 3, 1, 2]})] if known.planes else []
    if known.channels == 1 or known.kind != "uint8":
        steps.append(("Cast", [], {"to": TensorProto.FLOAT}))
    if known.channels == 1:
        parts = np.array(GREY, np.float32).reshape([3 if each == axis else 1 for each in range(4)])
        steps += [("Mul", held("grey", parts), {}), ("ReduceSum", held("channels", [axis]), {"keepdims": 1})]
        steps += [("Add", held("half", np.float32(32768)), {}), ("Div", held("all", np.float32(65536)), {})]
        steps.append(("Floor", [], {}))
    if known.kind == "uint8":
        return [*steps, ("Cast", [], {"to": TensorProto.UINT8})] if known.channels == 1 else steps
    for kind, name, values in (("Sub", "shift", spec.mean), ("Div", "scale", spec.std)):
        shape = [known.channels if each == axis else 1 for each in range(4)]
        value = np.array(values[: known.channels], np.float32).reshape(shape) * np.float32(255)
        steps.append((kind, held(name, value), {}))
    return [*steps, ("Cast", [], {"to": TensorProto.FLOAT16})] if known.kind == "f16" else steps


def _behind(graph: onnx.GraphProto, known: Interface) -> list[Step]:
    """What makes the answers of the file's values: ``Interface.answers``."""
    given_in = graph.output[0].type.tensor_type.elem_type
    steps: list[Step] = [] if given_in == TensorProto.FLOAT else [("Cast", [], {"to": TensorProto.FLOAT})]
    steps += [("Flatten", [], {"axis": 1})] if known.map else []
    if known.hard:
        for name, value in (("present", PRESENT), ("hard", HARD)):
            graph.initializer.append(numpy_helper.from_array(np.float32(value), OURS + name))
        steps += [("Sub", [f"{OURS}present"], {}), ("Mul", [f"{OURS}hard"], {})]
    if known.output == "scores":
        return [*steps, ("Sigmoid", [], {})] if known.logits or known.hard else steps
    return [*steps, ("Softmax", [], {"axis": 1})] if known.logits else steps


def _unwrapped(model: onnx.ModelProto, edges: Edges) -> onnx.ModelProto:
    """The quantized graph with the given file's own input and outputs."""
    model = copied(model)
    graph = model.graph
    kept = [onnx.NodeProto.FromString(n.SerializeToString()) for n in graph.node if not n.name.startswith(OURS)]
    rename(kept, edges.renamed)
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(kept)
    graph.input.append(edges.image)
    graph.output.extend(edges.outputs)
    model.producer_name = "softedge"
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    oldest = helper.find_min_ir_version_for([helper.make_opsetid("", opset)])
    model.ir_version = max(IR_VERSION, oldest)
    return without_unused(model)
