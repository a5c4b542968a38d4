"""The given graph behind softedge's preprocessing and in front of its answers, and taken out again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from softedge.eval.measures import PRESENT
from softedge.export.contract import INPUT
from softedge.export.given_file import GREY, HARD, Interface
from softedge.export.onnx.graph import IR_VERSION
from softedge.export.onnx.rewrite import copied, inner_graphs, rename, without_unused
from softedge.records import InputSpec

OURS = "softedge_"  # begins the names of the nodes that are put around the graph
_THEIRS = "given_"  # put before all names of a graph that has some of those
Step = tuple[str, list[str], dict[str, Any]]  # an operator, its further operands, its attributes


@dataclass(frozen=True)
class Edges:
    """The given file's own input and outputs, which the int8 file gets back, and what they mean."""

    image: onnx.ValueInfoProto
    outputs: list[onnx.ValueInfoProto]
    interface: Interface
    renamed: Mapping[str, str] = field(default_factory=dict)  # a name in the wrapped graph -> the file's own


def wrapped_in(model: onnx.ModelProto, edges: Edges, spec: InputSpec) -> tuple[onnx.ModelProto, Edges]:
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


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    """Of all nodes and tensors, also inside If and Loop."""
    yield from (value.name for value in (*graph.input, *graph.output, *graph.initializer))
    for node in graph.node:
        yield from (node.name, *node.input, *node.output)
        for inner in inner_graphs(node):
            yield from _names(inner)


def _before(graph: onnx.GraphProto, known: Interface, spec: InputSpec) -> list[Step]:
    """What makes the file's input of uint8 RGB: ``Interface.fed``."""

    def held(name: str, values: Any) -> list[str]:
        graph.initializer.append(numpy_helper.from_array(np.asarray(values), OURS + name))
        return [OURS + name]

    axis = 1 if known.planes else 3
    steps: list[Step] = [("Transpose", [], {"perm": [0, 3, 1, 2]})] if known.planes else []
    if known.bgr:
        steps.append(("Gather", held("order", np.array([2, 1, 0])), {"axis": axis}))
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
    if known.temperature != 1:
        graph.initializer.append(numpy_helper.from_array(np.float32(known.temperature), f"{OURS}temperature"))
        steps += [("Div", [f"{OURS}temperature"], {})]
    if known.output == "scores":
        return [*steps, ("Sigmoid", [], {})] if known.logits or known.hard else steps
    return [*steps, ("Softmax", [], {"axis": 1})] if known.logits else steps


def unwrapped(model: onnx.ModelProto, edges: Edges) -> onnx.ModelProto:
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
