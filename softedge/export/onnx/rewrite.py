"""Rewrites of a float ONNX graph that keep its function and let integer kernels run fast. Measured in
benchmarks/results/int8-latency.md.

global pooling   ReduceMean over height and width has no integer kernel and leaves the blocked layout.
hard-swish       x · gate(x): the gate of an integer is a clamp of the same integer, see onnx_int8.
padding          integer depthwise kernels take 16 channels at a time and are three times slower otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import numpy_helper

LANES = 16  # channels an integer depthwise kernel takes at once
GATE = "_gate"  # suffix of a hard-swish's gate
WEIGHTED = ("Conv", "Gemm", "MatMul")
_ELEMENTWISE = ("HardSwish", "HardSigmoid", "Sigmoid", "Relu", "Clip", "Mul", "Add", "GlobalAveragePool", "MaxPool")


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    new = onnx.ModelProto()
    new.CopyFrom(model)
    return new


def attribute(node: onnx.NodeProto, name: str, default: object = None) -> object:
    """The value of an attribute, or ``default``."""
    matches = [a for a in node.attribute if a.name == name]
    return onnx.helper.get_attribute_value(matches[0]) if matches else default


def has_weights(node: onnx.NodeProto, known: Mapping[str, onnx.TensorProto]) -> bool:
    """A convolution or linear layer; a MatMul is one where its second factor is a constant matrix."""
    if node.op_type not in WEIGHTED or node.input[1] not in known:
        return False
    return node.op_type != "MatMul" or len(known[node.input[1]].dims) == 2


def constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def set_constant(tensor: onnx.TensorProto, value: np.ndarray) -> None:
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), tensor.name))


def without_unused(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without the initializers that nobody reads: onnxruntime warns of each of them at every load."""
    model = copied(model)
    read = {output.name for output in model.graph.output} | _read(model.graph)
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    if len(kept) < len(model.graph.initializer):
        kept = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)
    return model


def inner_graphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The branches of an If, the body of a Loop."""
    return [attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH]


def rename(nodes: Iterable[onnx.NodeProto], names: Mapping[str, str]) -> None:
    """Tensors that nodes read and write, also inside If and Loop."""
    for node in nodes if names else ():
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for inner in inner_graphs(node):
            rename(inner.node, names)
            for output in inner.output:
                output.name = names.get(output.name, output.name)


def read_by(node: onnx.NodeProto) -> set[str]:
    """The tensors that a node reads, also inside If and Loop."""
    read = {name for name in node.input if name}
    for inner in inner_graphs(node):
        read |= _read(inner) | {output.name for output in inner.output}
    return read


def _read(graph: onnx.GraphProto) -> set[str]:
    return {name for node in graph.node for name in read_by(node)}


def pool_globally(model: onnx.ModelProto) -> onnx.ModelProto:
    """ReduceMean over axes (2, 3) -> GlobalAveragePool, with a Flatten behind it where the axes were dropped."""
    model, nodes = copied(model), []
    known = constants(model)
    for node in model.graph.node:
        nodes.append(node)
        if node.op_type != "ReduceMean" or len(node.input) < 2 or node.input[1] not in known:
            continue
        if sorted(int(axis) % 4 for axis in numpy_helper.to_array(known[node.input[1]]).reshape(-1)) != [2, 3]:
            continue
        source, result, name = node.input[0], node.output[0], node.name
        kept = bool(attribute(node, "keepdims", 1))
        pooled = result if kept else f"{result}_pooled"
        node.CopyFrom(onnx.helper.make_node("GlobalAveragePool", [source], [pooled], name))
        if not kept:
            nodes.append(onnx.helper.make_node("Flatten", [pooled], [result], f"{name}_flatten", axis=1))
    return _with_nodes(model, nodes)


def convolve_batch_norm(model: onnx.ModelProto) -> onnx.ModelProto:
    """BatchNormalization of planes that no convolution took in (behind a sum, say) -> a depthwise convolution."""
    known = constants(model)
    alone = {
        node.name
        for node in model.graph.node
        if node.op_type == "BatchNormalization" and all(name in known for name in node.input[1:])
    }
    if not alone:
        return model
    model = copied(model)
    ranks = {
        v.name: len(v.type.tensor_type.shape.dim) for v in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    for node in model.graph.node:
        if node.name in alone and ranks.get(node.output[0]) == 4:
            scale, bias, mean, variance = (numpy_helper.to_array(known[name]) for name in node.input[1:])
            weight = scale / np.sqrt(variance + float(str(attribute(node, "epsilon", 1e-5))))
            source, result, name = node.input[0], node.output[0], node.name
            values = {f"{result}.weight": weight.reshape(-1, 1, 1, 1), f"{result}.bias": bias - mean * weight}
            for key, value in values.items():
                model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), key))
            node.CopyFrom(onnx.helper.make_node("Conv", [source, *values], [result], name, group=len(weight)))
    return model


def widen_preprocessing(model: onnx.ModelProto) -> onnx.ModelProto:
    """Repeat the (1, 3, 1, 1) mean and scale along the width: (1, 3, 1, W).

    Integer convolutions read (N, H, W, C); the runtime moves the transpose behind the preprocessing, and broadcasting
    three values along the last axis is 15 times slower than broadcasting a row of them.
    """
    model = copied(model)
    known = constants(model)
    for node in model.graph.node:
        if node.op_type in WEIGHTED:
            break
        for name in node.input:
            if name in known and list(known[name].dims) == [1, 3, 1, 1]:
                width = model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
                set_constant(known[name], np.repeat(numpy_helper.to_array(known[name]), width, axis=3))
    return model


def for_integers(model: onnx.ModelProto) -> onnx.ModelProto:
    """All rewrites for an integer graph, in order; calibrate and quantize the result."""
    return widen_preprocessing(pad_depthwise(split_hard_swish(pool_globally(with_own_biases(model)))))


def with_own_biases(model: onnx.ModelProto) -> onnx.ModelProto:
    """Each layer reads a bias of its own: exporters store equal ones once, and the integers of each layer differ."""
    model = copied(model)
    known, used = constants(model), Counter(name for node in model.graph.node for name in node.input)
    for node in model.graph.node:
        if not has_weights(node, known) or len(node.input) < 3 or node.input[2] not in known:
            continue
        if used[bias := node.input[2]] > 1:
            own = f"{bias}_of_{node.name}"
            model.graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(known[bias]), own))
            node.input[2], used[bias] = own, used[bias] - 1
    return model


def split_hard_swish(model: onnx.ModelProto) -> onnx.ModelProto:
    """HardSwish(x) -> x · HardSigmoid(x, 1/6, 1/2); the gate's tensor and node end in ``_gate``."""
    model, nodes = copied(model), []
    for node in model.graph.node:
        if node.op_type != "HardSwish":
            nodes.append(node)
            continue
        source, result = node.input[0], node.output[0]
        gate = onnx.helper.make_node("HardSigmoid", [source], [result + GATE], node.name + GATE, alpha=1 / 6, beta=0.5)
        nodes += [gate, onnx.helper.make_node("Mul", [source, result + GATE], [result], f"{node.name}_mul")]
    return _with_nodes(model, nodes)


def join_hard_swish(model: onnx.ModelProto) -> onnx.ModelProto:
    """Undo ``split_hard_swish`` where the gate is still there: float runtimes have one kernel for it."""
    gates = {n.output[0]: n for n in model.graph.node if n.op_type == "HardSigmoid" and n.output[0].endswith(GATE)}
    joined: dict[str, onnx.NodeProto | None] = {}
    for node in model.graph.node:
        if node.op_type == "Mul" and len(node.input) == 2 and node.input[1] in gates:
            gate = gates[node.input[1]]
            if gate.input[0] == node.input[0]:
                joined[gate.name] = None
                joined[node.name] = onnx.helper.make_node("HardSwish", [node.input[0]], node.output, node.name)
    model = copied(model)
    nodes = [joined.get(node.name, node) for node in model.graph.node]
    return _with_nodes(model, [node for node in nodes if node is not None])


def pad_depthwise(model: onnx.ModelProto, lanes: int = LANES) -> onnx.ModelProto:
    """Give depthwise convolutions a multiple of ``lanes`` channels, the new ones all zero from producer to consumer.

    Only where the channels begin and end in dense convolutions; their weights grow by rows and columns of zeros.
    """
    model = copied(model)
    known, groups = constants(model), _Groups()
    used = Counter(name for node in model.graph.node for name in node.input)
    fixed: set[str] = {value.name for value in (*model.graph.input, *model.graph.output)}
    makers: dict[str, list[onnx.NodeProto]] = {}
    readers: dict[str, list[onnx.NodeProto]] = {}
    wanted: dict[str, int] = {}
    for node in model.graph.node:
        tensors = [name for name in (*node.input, *node.output) if name and name not in known]
        if node.op_type == "Conv" and node.input[1] in known:
            out, per_group = known[node.input[1]].dims[:2]
            group = int(attribute(node, "group", 1))  # type: ignore[call-overload]
            if used[node.input[1]] > 1:  # weights of other layers, too
                fixed.update(tensors)
            elif group == 1:
                readers.setdefault(node.input[0], []).append(node)
                makers.setdefault(node.output[0], []).append(node)
            elif group == out and per_group == 1:
                groups.join(tensors)
                makers.setdefault(node.output[0], []).append(node)
                wanted[node.output[0]] = out
            else:
                fixed.update(tensors)
        elif node.op_type in _ELEMENTWISE:
            groups.join(tensors)
            if any(name in known and known[name].dims and max(known[name].dims) > 1 for name in node.input):
                fixed.update(tensors)  # a constant with channels of its own
        else:
            fixed.update(tensors)
    held = {groups.root(name) for name in fixed}
    for root, channels in {groups.root(name): channels for name, channels in wanted.items()}.items():
        extra = -channels % lanes
        if root in held or extra == 0:
            continue
        for node in (n for name, nodes in makers.items() if groups.root(name) == root for n in nodes):
            for name in node.input[1:]:
                _grow(known[name], 0, extra)
            if int(attribute(node, "group", 1)) > 1:  # type: ignore[call-overload]
                next(a for a in node.attribute if a.name == "group").i = channels + extra
        for node in (n for name, nodes in readers.items() if groups.root(name) == root for n in nodes):
            _grow(known[node.input[1]], 1, extra)
    del model.graph.value_info[:]
    return model


def _grow(tensor: onnx.TensorProto, axis: int, extra: int) -> None:
    value = numpy_helper.to_array(tensor)
    width = [(0, extra if i == axis else 0) for i in range(value.ndim)]
    set_constant(tensor, np.pad(value, width))


class _Groups:
    """Union-find over tensor names: tensors in one group have the same channels."""

    def __init__(self) -> None:
        self.parent: dict[str, str] = {}

    def root(self, name: str) -> str:
        while (up := self.parent.get(name, name)) != name:
            name = up
        return name

    def join(self, names: list[str]) -> None:
        for name in names[1:]:
            self.parent[self.root(name)] = self.root(names[0])


def _with_nodes(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(kept)
    return model
