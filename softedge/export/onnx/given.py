"""ONNX classifiers that somebody else exported: put behind softedge's preprocessing, quantized, taken out again."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from softedge.errors import UserError, first_line
from softedge.export import model_api
from softedge.export.base import Float32, GivenModel, Predictor, Uint8
from softedge.export.given_ends import End, end_of, judged
from softedge.export.given_file import Interface, Tensor, interface
from softedge.export.given_notes import names, of_ultralytics
from softedge.export.given_words import own_words, preprocessing, stated
from softedge.export.onnx.candidates import GraphCandidates
from softedge.export.onnx.given_edges import OURS as OURS
from softedge.export.onnx.given_edges import Edges, unwrapped, wrapped_in
from softedge.export.onnx.given_input import beginning
from softedge.export.onnx.ranges import run, session
from softedge.export.onnx.rewrite import constants, has_weights
from softedge.export.onnx.widen import is_half, widened
from softedge.records import InputSpec

OLDEST_OPSET = 13  # the first with scales per channel
_OPSET = 17  # that older files are converted to
_OF_HALF_PIXELS = 11  # the first whose Resize says where pixels lie; before, at x / scale, the nearest one rounded down
_BATCH = 32  # images that a file is given at once
_ROUNDING = 1e-3  # largest difference of an answer that a rewritten graph may have
_MODEL_API = f"{model_api.ENTRY} "  # before its keys
_QUANTIZED = {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"}


def read(path: Path, asked: Mapping[str, Any]) -> GivenModel:
    """See ``Format.given``."""
    model, half = _plain(path)
    beside = stated(path, asked)
    notes = {entry.key: entry.value for entry in model.metadata_props}
    of_api = {key.removeprefix(_MODEL_API): notes[key] for key in notes if key.startswith(_MODEL_API)}
    noted = model_api.noted(path, of_api)
    asked = noted.asked(path, asked)
    words = {**noted.own, **(of_ultralytics(path, notes) or own_words(path, notes.get("softedge.input")))}
    edges, end = _edges(model, path, asked, beside.size if beside else words.get("size") or noted.size)
    white = beginning(model).own.white()
    spec, origin = preprocessing(path, edges.interface, asked, words, beside, white)
    noted.warn(path, spec.mean, edges.interface.channels, asked)
    own = _own_values(path, edges.interface, spec)
    edges = replace(edges, interface=judged(path, edges.interface, end, own, asked.get("activation")))
    _refuse_changed(path, edges, spec, wrapped_in(model, edges, spec)[0])
    made = _given(path, model, edges, spec, origin, own if half else None)
    return replace(made, names=names(path, {"labels": model_api.labels(of_api), **notes}))


def _given(
    path: Path, model: onnx.ModelProto, edges: Edges, spec: InputSpec, origin: str, half: Predictor | None
) -> GivenModel:
    """half: what a file in float16 itself gives."""
    inner, known = edges, edges.interface
    wrapped, edges = wrapped_in(model, edges, spec)

    def at_temperature(number: float) -> GivenModel:
        return _given(path, model, replace(inner, interface=replace(known, temperature=number)), spec, origin, half)

    return GivenModel(
        spec,
        (lambda images: known.answers(half(images))) if half else (lambda images: run(wrapped, images)),
        lambda calibration: FileCandidates(wrapped, edges, calibration),
        known.output,
        lambda made: lambda images: run(wrapped_in(onnx.load(str(made)), edges, spec)[0], images),
        known.about(origin),
        _beside(path),
        "fp16" if half else "fp32",
        at_temperature if known.logits else None,
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
        return unwrapped(model, self.edges).SerializeToString()


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
    if fused := {node.op_type for node in model.graph.node if _of_runtime(node)}:
        raise UserError(
            f"{path} was optimised by onnxruntime ({', '.join(sorted(fused))}), which leaves nothing to quantize; give "
            "the file from before that"
        )
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
    stored = constants(model)
    if not any(has_weights(node, stored) for node in model.graph.node):
        raise UserError(f"{path} has no convolution or linear layer with weights, so there is nothing to quantize")
    used: set[str] = set()
    for index, node in enumerate(model.graph.node):
        node.name = node.name if node.name and node.name not in used else f"{node.op_type}_{index}"
        used.add(node.name)
    return model, half


def _beside(path: Path) -> tuple[Path, ...]:
    """The files with the weights that are not in ``path`` itself."""
    stored = onnx.load(str(path), load_external_data=False).graph.initializer
    names = {about.value for tensor in stored for about in tensor.external_data if about.key == "location"}
    return tuple(path.parent / name for name in sorted(names))


def _of_runtime(node: onnx.NodeProto) -> bool:
    """Whether a node is a layer with weights, or its order in memory, that onnxruntime has written for itself."""
    own = node.domain.startswith("com.microsoft") and "QLinear" not in node.op_type and "Integer" not in node.op_type
    return own and (node.domain.endswith("nchwc") or any(kind in node.op_type for kind in ("Conv", "Gemm", "MatMul")))


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


def _edges(model: onnx.ModelProto, path: Path, asked: Mapping[str, Any], usual: int | None) -> tuple[Edges, End[str]]:
    inputs, outputs = list(model.graph.input), list(model.graph.output)
    makers = {name: (node.op_type, next(iter(node.input), None)) for node in model.graph.node for name in node.output}
    end = end_of(outputs[0].name if outputs else "", lambda tensor: makers.get(tensor, ("", None)))
    more = asked.get("size"), asked.get("activation"), usual, bool(asked.get("bgr"))
    known = interface(path, _images(model), [*map(_tensor, outputs)], end.kind, *more)
    return Edges(inputs[0], outputs, known), end


def _images(model: onnx.ModelProto) -> list[Tensor]:
    """The inputs; of one that declares no channels, as Optimum's, those of the first convolution."""
    inputs = [*map(_tensor, model.graph.input)]
    if len(inputs) == 1 and len(inputs[0].dims) == 4 and not any(inputs[0].dims[1::2]):
        found, (batch, *sides) = beginning(model), inputs[0].dims
        if found.channels:
            sides[0 if found.planes else 2] = found.channels
            return [replace(inputs[0], dims=(batch, *sides))]
    return inputs


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
