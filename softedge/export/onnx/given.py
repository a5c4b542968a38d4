"""ONNX classifiers that somebody else exported: put behind softedge's preprocessing, quantized, taken out again."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from softedge.errors import UserError
from softedge.export.base import GivenModel, Uint8
from softedge.export.contract import INPUT
from softedge.export.onnx.candidates import GraphCandidates
from softedge.export.onnx.graph import IR_VERSION
from softedge.export.onnx.ranges import run
from softedge.export.onnx.rewrite import copied, without_unused
from softedge.records import InputSpec, Output

OURS = "softedge_"  # begins the names of the nodes that are put around the graph
OLDEST_OPSET = 13  # the first with scales per channel
_OPSET = 17  # that older files are converted to
_CROP = 0.875
_QUANTIZED = {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"}


@dataclass(frozen=True)
class Interface:
    """Input and outputs of the given file, whether its channels come first, and what it gives."""

    image: onnx.ValueInfoProto
    outputs: list[onnx.ValueInfoProto]
    planes: bool
    kind: Output


def read(path: Path, asked: Mapping[str, Any]) -> GivenModel:
    """See ``Format.given``."""
    model = _plain(path)
    interface, size = _interface(model, path, asked.get("size"))
    spec = _spec(model, interface, path, size, asked)
    wrapped = _wrapped(model, interface, spec)
    return GivenModel(
        spec,
        lambda images: run(wrapped, images),
        lambda calibration: FileCandidates(wrapped, interface, calibration),
        interface.kind,
        lambda made: lambda images: run(_wrapped(onnx.load(str(made)), interface, spec), images),
    )


class FileCandidates(GraphCandidates):
    """Int8 candidates of a given file; they keep its input and outputs."""

    def __init__(self, wrapped: onnx.ModelProto, interface: Interface, calibration: Uint8, **settings: Any):
        super().__init__(calibration, **settings)
        self.wrapped, self.interface = wrapped, interface

    @cached_property
    def float_model(self) -> onnx.ModelProto:
        return self.wrapped

    def finished(self, model: onnx.ModelProto, details: Mapping[str, Any]) -> bytes:
        del details
        return _unwrapped(model, self.interface).SerializeToString()


def _plain(path: Path) -> onnx.ModelProto:
    """The graph with constants and BatchNorm folded, every node named; UserError for what cannot be quantized."""
    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf, external data and the file system each raise their own
        first = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise UserError(f"{path} cannot be read as an ONNX file ({first})") from error
    kinds = {node.op_type for node in model.graph.node}
    if kinds & _QUANTIZED:
        raise UserError(f"{path} is quantized already ({', '.join(sorted(kinds & _QUANTIZED))}); give the fp32 file")
    half = [t.name for t in model.graph.initializer if t.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16)]
    if half:
        raise UserError(f"{path} holds {len(half)} tensors in 16 bits ('{half[0]}'); give the fp32 file")
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST_OPSET:
        try:
            model = onnx.version_converter.convert_version(model, _OPSET)
        except Exception as error:  # the converter has no kind of its own
            first = (str(error).splitlines() or [type(error).__name__])[0][:160]
            raise UserError(
                f"{path} has opset {opset}, int8 needs {OLDEST_OPSET}, and it cannot be converted ({first}); "
                f"export it again with opset {_OPSET}"
            ) from error
    kept = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in kept]  # old exporters list weights, too
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model = _folded(model, path)
    used: set[str] = set()
    for index, node in enumerate(model.graph.node):
        node.name = node.name if node.name and node.name not in used else f"{node.op_type}_{index}"
        used.add(node.name)
    return model


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
            first = (str(error).splitlines() or [type(error).__name__])[0][:160]
            raise UserError(f"{path} cannot be run by onnxruntime ({first})") from error
        folded = onnx.load(options.optimized_model_filepath)
    del folded.metadata_props[:]
    folded.metadata_props.extend(model.metadata_props)
    return folded


def _interface(model: onnx.ModelProto, path: Path, size: int | None) -> tuple[Interface, int]:
    """The one image input, float or uint8, and its height = width."""
    if len(model.graph.input) != 1:
        names = ", ".join(value.name for value in model.graph.input)
        raise UserError(f"{path} has {len(model.graph.input)} inputs ({names}); an image classifier has one")
    image = model.graph.input[0]
    kind, dims = image.type.tensor_type.elem_type, [d.dim_value for d in image.type.tensor_type.shape.dim]
    if len(dims) != 4 or 3 not in (dims[1], dims[3]) or kind not in (TensorProto.FLOAT, TensorProto.UINT8):
        shape = " x ".join(str(d or "?") for d in dims)
        raise UserError(f"the input of {path} is {shape}; an image is [N, 3, H, W] or [N, H, W, 3], float or uint8")
    if dims[0] > 1:
        raise UserError(f"{path} takes {dims[0]} images at once; export it again for one or any number (dynamic batch)")
    planes = dims[1] == 3
    height, width = dims[2:] if planes else dims[1:3]
    if not (height or size):
        raise UserError(f"{path} takes images of any size; say which with --size, such as --size 224")
    if height != width or (size and height and size != height):
        raise UserError(f"{path} takes images of {height} x {width} pixels; --size must be that, and both sides equal")
    if len(model.graph.output) != 1:
        raise UserError(f"{path} has {len(model.graph.output)} outputs; a classifier has one, a row of class scores")
    last, scores = model.graph.output[0], [d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim]
    gives: Output = "scores" if _maker(model, last.name) == "Sigmoid" else "probabilities"
    if len(scores) != 2 or (scores[1] == 1 and gives == "probabilities"):
        shape = " x ".join(str(d or "?") for d in scores) or "of unknown shape"
        raise UserError(
            f"the output of {path} is {shape}; a classifier gives [N, classes], two or more, or ends in a sigmoid"
        )
    return Interface(image, list(model.graph.output), planes, gives), height or int(size or 0)


def _maker(model: onnx.ModelProto, tensor: str) -> str:
    """The kind of operator that makes a tensor."""
    return next((node.op_type for node in model.graph.node if tensor in node.output), "")


def _spec(model: onnx.ModelProto, interface: Interface, path: Path, size: int, asked: Mapping[str, Any]) -> InputSpec:
    """The preprocessing: what the user says, else what a softedge file says of itself."""
    known = {entry.key: entry.value for entry in model.metadata_props}
    values = _own_words(known, path)
    inside = interface.image.type.tensor_type.elem_type == TensorProto.UINT8
    mean, std = asked.get("mean"), asked.get("std")
    if inside:
        mean, std = (0.0,) * 3, (1.0,) * 3
    elif mean is None or std is None:
        raise UserError(
            f"{path} takes float images, and does not say how they are normalised: give --mean and --std, of x / 255 "
            "(0.485,0.456,0.406 and 0.229,0.224,0.225 for most of ImageNet's weights, 0,0,0 and 1,1,1 for x / 255)"
        )
    resize = int(values["resize"]) if values and not asked.get("crop") else round(size / (asked.get("crop") or _CROP))
    interpolation = asked.get("interpolation") or values.get("interpolation") or "bilinear"
    return InputSpec(size, resize, tuple(mean), tuple(std), interpolation)  # type: ignore[arg-type]


def _own_words(known: Mapping[str, str], path: Path) -> Mapping[str, Any]:
    """The preprocessing in a file that softedge wrote; {} in others."""
    if "softedge.input" not in known:
        return {}
    try:
        return InputSpec.from_dict(json.loads(known["softedge.input"])).to_dict()
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f"{path}: its entry 'softedge.input' is damaged ({error}); export the file again") from error


def _wrapped(model: onnx.ModelProto, interface: Interface, spec: InputSpec) -> onnx.ModelProto:
    """``model`` from ``image``, uint8 (N, S, S, 3), to its output; the names of the new nodes begin with OURS."""
    model = copied(model)
    graph, tensor = model.graph, interface.image.type.tensor_type
    batch = tensor.shape.dim[0].dim_value or "N"
    steps: list[tuple[str, list[str], dict[str, Any]]] = []
    if interface.planes:
        steps.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
    if tensor.elem_type == TensorProto.FLOAT:
        shape = (1, 3, 1, 1) if interface.planes else (1, 1, 1, 3)
        for name, values in (("shift", spec.mean), ("scale", spec.std)):
            value = np.asarray(values, np.float32).reshape(shape) * np.float32(255)
            graph.initializer.append(numpy_helper.from_array(value, OURS + name))
        steps += [("Cast", [], {"to": TensorProto.FLOAT}), ("Sub", [OURS + "shift"], {}), ("Div", [OURS + "scale"], {})]
    renamed = interface.image.name == INPUT
    inner = f"{OURS}given" if renamed else interface.image.name
    if renamed:
        for node in graph.node:
            node.input[:] = [inner if name == INPUT else name for name in node.input]
    before, source = [], INPUT
    for index, (kind, more, attributes) in enumerate(steps or [("Identity", [], {})]):
        result = inner if index == max(len(steps) - 1, 0) else f"{OURS}{index}"
        before.append(helper.make_node(kind, [source, *more], [result], f"{OURS}{kind}", **attributes))
        source = result
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [batch, spec.size, spec.size, 3]))
    last = graph.output[0]
    after = []
    if interface.kind == "probabilities" and _maker(model, last.name) != "Softmax":
        after.append(helper.make_node("Softmax", [last.name], [f"{OURS}probabilities"], f"{OURS}Softmax", axis=1))
        dims = [d.dim_value or d.dim_param or None for d in last.type.tensor_type.shape.dim]
        del graph.output[:]
        graph.output.append(helper.make_tensor_value_info(f"{OURS}probabilities", TensorProto.FLOAT, dims))
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in (*before, *graph.node, *after)]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def _unwrapped(model: onnx.ModelProto, interface: Interface) -> onnx.ModelProto:
    """The quantized graph with the given file's own input and outputs."""
    model = copied(model)
    graph = model.graph
    kept = [onnx.NodeProto.FromString(n.SerializeToString()) for n in graph.node if not n.name.startswith(OURS)]
    inner = f"{OURS}given"
    for node in kept:
        node.input[:] = [interface.image.name if name == inner else name for name in node.input]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(kept)
    graph.input.append(interface.image)
    graph.output.extend(interface.outputs)
    model.producer_name = "softedge"
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    oldest = helper.find_min_ir_version_for([helper.make_opsetid("", opset)])
    model.ir_version = max(IR_VERSION, oldest)
    return without_unused(model)
