"""Graphs that compute in 16 bits, in 32: integers are made of float32, and compared with the answers in 16 bits."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from softedge.export.onnx.rewrite import copied, inner_graphs, rename

_KINDS = ("to", "dtype", "output_datatype")  # attributes that say in which type a node answers
_WIDE = "_in_32_bits"


def is_half(model: onnx.ModelProto) -> bool:
    """Whether a tensor, a result or an end of the graph is in float16."""
    graph = model.graph
    ends = (value.type.tensor_type.elem_type for value in (*graph.input, *graph.output))
    stored = (tensor.data_type for tensor in graph.initializer)
    return TensorProto.FLOAT16 in (*ends, *stored) or any(map(_makes_half, _nodes(graph.node)))


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in float32; its input and outputs keep their types, with a Cast at each that is in float16."""
    model = copied(model)
    graph = model.graph
    _widen_graph(graph)
    for function in model.functions:
        _widen_nodes(function.node)
    stored = {tensor.name for tensor in graph.initializer}  # old exporters list weights as inputs, too
    inputs = [value for value in graph.input if _half(value) and value.name not in stored]
    outputs = [value for value in graph.output if _half(value)]
    rename(graph.node, {value.name: value.name + _WIDE for value in (*inputs, *outputs)})
    before = [_cast(value.name, value.name + _WIDE, TensorProto.FLOAT) for value in inputs]
    after = [_cast(value.name + _WIDE, value.name, TensorProto.FLOAT16) for value in outputs]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in (*before, *graph.node, *after)]
    del graph.node[:]
    graph.node.extend(nodes)
    for value in graph.input:
        if value.name in stored and _half(value):
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return model


def _half(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.elem_type == TensorProto.FLOAT16)


def _cast(source: str, result: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [result], f"{source}_to_{result}", to=kind)


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterable[onnx.NodeProto]:
    """Also those inside If and Loop."""
    for node in nodes:
        yield node
        for inner in inner_graphs(node):
            yield from _nodes(inner.node)


def _makes_half(node: onnx.NodeProto) -> bool:
    return any(_says_half(about) or about.t.data_type == TensorProto.FLOAT16 for about in node.attribute)


def _says_half(about: onnx.AttributeProto) -> bool:
    return about.name in _KINDS and about.type == AttributeProto.INT and about.i == TensorProto.FLOAT16


def _widen_graph(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for value in graph.value_info:
        if _half(value):
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    _widen_nodes(graph.node)


def _widen_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        for about in node.attribute:
            if _says_half(about):
                about.i = TensorProto.FLOAT
            for tensor in (*([about.t] if about.HasField("t") else []), *about.tensors):
                _widen_tensor(tensor)
        for inner in inner_graphs(node):
            _widen_graph(inner)
            for value in (*inner.input, *inner.output):
                if _half(value):
                    value.type.tensor_type.elem_type = TensorProto.FLOAT


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT16:
        wide = numpy_helper.to_array(tensor).astype("float32")
        tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
