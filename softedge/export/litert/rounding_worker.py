"""Runs inside LiteRT's own environment, as a script: what ``rounding.py`` asks of a float .tflite file.

    python rounding_worker.py unpack model.tflite weights.npz
    python rounding_worker.py measure model.tflite inputs.npy asked.json moments.npz
    python rounding_worker.py repack model.tflite changes.npz out.tflite

weights.npz: (G, O / G, K) of each layer that can be rounded, G groups of O outputs, by its place among the operators.
changes.npz: weight.PLACE (G, O / G, K), the weights instead of those; more.PLACE (O,), what is added to the biases.
Needs ai-edge-litert, and nothing of softedge.
"""

from __future__ import annotations

import copy
import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# Of LiteRT's schema: TensorType, Padding, BuiltinOperator.
_FLOAT32 = 0
_SAME = 0
_KINDS = {3: "CONV_2D", 4: "DEPTHWISE_CONV_2D", 9: "FULLY_CONNECTED"}


def unpack(path: str, result: str) -> None:
    """Write weights.npz."""
    np.savez(result, **{str(place): layer.weight() for place, layer in layers(_model(path)).items()})  # type: ignore[arg-type]


def measure(path: str, inputs: str, asked: str, result: str) -> None:
    """Write mean.PLACE, E[x] (G, K, 1), and second.PLACE, E[x xT] (G, K, K), of what layers multiply weights with.

    inputs: (N, ...), each what the file takes.  asked: layers, by their places; positions: about how many of a layer's
    inputs make its second moments.
    """
    from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-not-found]

    with open(asked) as file:
        wanted = json.load(file)
    model, values = _model(path), np.load(inputs)
    chosen = {place: layer for place, layer in layers(model).items() if place in wanted["layers"]}
    interpreter: Any = Interpreter(model_content=_up_to(model, chosen), num_threads=1)
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]["index"]
    found: dict[str, np.ndarray] = {}
    for index, value in enumerate(values):
        interpreter.set_tensor(entry, value[None])
        interpreter.invoke()
        for place, layer in chosen.items():
            x = interpreter.get_tensor(layer.operator.inputs[0])
            parts = {"mean": layer.mean(x), "second": layer.second(x, wanted["positions"] / len(values), index)}
            for name, part in parts.items():
                found[f"{name}.{place}"] = found.get(f"{name}.{place}", 0) + part / np.float32(len(values))
    np.savez(result, **found)  # type: ignore[arg-type]


def repack(path: str, changes: str, result: str) -> None:
    """Write the file with the changes."""
    from ai_edge_litert.tools import flatbuffer_utils  # type: ignore[import-not-found]

    model = _model(path)
    with np.load(changes) as values:
        change(model, values)
    flatbuffer_utils.write_model(model, result)


@dataclass(frozen=True)
class Layer:
    """An operator whose weights can be rounded.

    kind: CONV_2D, DEPTHWISE_CONV_2D or FULLY_CONNECTED.  value: its weights as it reads them.  groups: of channels.
    """

    operator: Any
    kind: str
    value: np.ndarray
    groups: int

    def weight(self) -> np.ndarray:
        """(G, O / G, K)."""
        value = np.moveaxis(self.value[0], -1, 0) if self.kind == "DEPTHWISE_CONV_2D" else self.value
        return np.ascontiguousarray(value).reshape(self.groups, len(value) // self.groups, -1)

    def stored(self, weight: np.ndarray) -> np.ndarray:
        """(G, O / G, K) in the shape that the operator reads."""
        if self.kind != "DEPTHWISE_CONV_2D":
            return weight.reshape(self.value.shape)
        return np.ascontiguousarray(np.moveaxis(weight.reshape(-1, *self.value.shape[1:3]), 0, -1))[None]

    def mean(self, x: np.ndarray) -> np.ndarray:
        """(G, K, 1), over all positions, for x: (1, H, W, C), or (..., K) for a linear layer."""
        taps = np.stack([tap.mean((0, 1), dtype=np.float64) for tap in self._taps(x)])
        return self._grouped(taps[:, None].astype(np.float32))

    def second(self, x: np.ndarray, positions: float, index: int) -> np.ndarray:
        """(G, K, K), over about so many positions: a grid that begins elsewhere in each image (``index``)."""
        taps = list(self._taps(x))
        height, width = taps[0].shape[:2]
        every = max(1, math.ceil(math.sqrt(height * width / positions)))
        first = index % every
        top, left = min(first, height - 1), min(first, width - 1)
        columns = self._grouped(np.stack([tap[top::every, left::every].reshape(-1, tap.shape[2]) for tap in taps]))
        moments: np.ndarray = columns @ columns.transpose(0, 2, 1) / np.float32(columns.shape[2])
        return moments

    def _grouped(self, taps: np.ndarray) -> np.ndarray:
        """(T, P, C) of T places in the kernel -> (G, T C / G, P)."""
        count, positions, channels = taps.shape
        parted = taps.reshape(count, positions, self.groups, channels // self.groups)
        return np.ascontiguousarray(parted.transpose(2, 0, 3, 1)).reshape(self.groups, -1, positions)

    def _taps(self, x: np.ndarray) -> Iterator[np.ndarray]:
        """For each place in the kernel what it is multiplied with, (H, W, C) of the outputs' height and width."""
        if self.kind == "FULLY_CONNECTED":
            yield x.reshape(-1, 1, self.value.shape[1])
            return
        about, kernel = self.operator.builtinOptions, self.value.shape[1:3]
        strides, dilations = (about.strideH, about.strideW), (about.dilationHFactor, about.dilationWFactor)
        sizes, pads = [], [(0, 0)]
        for size, taps, stride, dilation in zip(x.shape[1:3], kernel, strides, dilations):
            reach = (taps - 1) * dilation + 1
            same = about.padding == _SAME
            outputs = -(-size // stride) if same else (size - reach) // stride + 1
            total = max((outputs - 1) * stride + reach - size, 0) if same else 0
            sizes.append(outputs)
            pads.append((total // 2, total - total // 2))
        padded = np.pad(x, [*pads, (0, 0)])[0]
        for place in np.ndindex(*kernel):
            starts = [tap * dilation for tap, dilation in zip(place, dilations)]
            rows, columns = (slice(b, b + (n - 1) * s + 1, s) for b, n, s in zip(starts, sizes, strides))
            yield padded[rows, columns]


def layers(model: Any) -> dict[int, Layer]:
    """By their places, those whose weights are a float32 constant that nothing else reads."""
    graph, found = model.subgraphs[0], {}
    readers, holders = _readers(graph), _holders(model)
    for place, operator in enumerate(graph.operators):
        code = model.operatorCodes[operator.opcodeIndex]
        kind = _KINDS.get(max(code.builtinCode, code.deprecatedBuiltinCode))
        if kind is None:
            continue
        source, tensor = (graph.tensors[index] for index in operator.inputs[:2])
        value = _constant(model, tensor)
        alone = readers[operator.inputs[1]] == 1 and holders[tensor.buffer] == 1
        if value is None or not alone or source.type != _FLOAT32 or not np.isfinite(value).all():
            continue
        groups = 1
        if kind != "FULLY_CONNECTED":
            groups = int(source.shape[3]) // (1 if kind == "DEPTHWISE_CONV_2D" else value.shape[3])
        found[place] = Layer(operator, kind, value, groups)
    return found


def change(model: Any, changes: Mapping[str, np.ndarray]) -> None:
    """In place; see changes.npz."""
    known = layers(model)
    for name, values in changes.items():
        what, place = name.split(".")
        layer = known[int(place)]
        if what == "more":
            _add_to_bias(model, layer.operator, values)
        else:
            tensor = model.subgraphs[0].tensors[layer.operator.inputs[1]]
            model.buffers[tensor.buffer].data = _bytes(layer.stored(values))


def _model(path: str) -> Any:
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model(path)


def _readers(graph: Any) -> Counter[int]:
    """How often each tensor is read, the graph's own outputs included."""
    return Counter([*graph.outputs, *(index for operator in graph.operators for index in operator.inputs)])


def _holders(model: Any) -> Counter[int]:
    """How many tensors have their values in each buffer."""
    return Counter(tensor.buffer for graph in model.subgraphs for tensor in graph.tensors)


def _constant(model: Any, tensor: Any) -> np.ndarray | None:
    """Its float32 values; None where it has none in the file, of another type or sparse ones."""
    data = model.buffers[tensor.buffer].data
    if tensor.type != _FLOAT32 or tensor.sparsity is not None or data is None or tensor.shape is None:
        return None
    shape = tuple(int(size) for size in tensor.shape)
    if len(data) != 4 * math.prod(shape) or not len(data):
        return None
    return np.frombuffer(bytes(data), "<f4").reshape(shape)


def _up_to(model: Any, chosen: Iterable[int]) -> bytes:
    """The file as far as to what these layers read, which it gives."""
    from ai_edge_litert.tools import flatbuffer_utils

    graph = model.subgraphs[0]
    graph.outputs = list(dict.fromkeys(int(graph.operators[place].inputs[0]) for place in chosen))
    graph.operators = graph.operators[: max(chosen)]
    model.signatureDefs = []
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _add_to_bias(model: Any, operator: Any, more: np.ndarray) -> None:
    """In a tensor of the operator's own, made where there is none; nowhere where its bias is computed."""
    graph = model.subgraphs[0]
    inputs = [int(index) for index in operator.inputs]
    old = graph.tensors[inputs[2]] if len(inputs) > 2 and inputs[2] >= 0 else None
    value = np.zeros(len(more), np.float32) if old is None else _constant(model, old)
    if value is None or value.shape != more.shape:
        return
    if old is not None and _readers(graph)[inputs[2]] == 1 and _holders(model)[old.buffer] == 1:
        model.buffers[old.buffer].data = _bytes(value + more)
        return
    tensor, buffer = copy.copy(old or graph.tensors[inputs[1]]), copy.copy(model.buffers[0])
    tensor.shape, tensor.shapeSignature, tensor.buffer = [len(more)], None, len(model.buffers)
    tensor.name = graph.tensors[operator.outputs[0]].name + b"_bias"
    buffer.data = _bytes(value + more)
    model.buffers.append(buffer)
    graph.tensors.append(tensor)
    operator.inputs = [*inputs[:2], len(graph.tensors) - 1]


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.frombuffer(values.astype("<f4").tobytes(), np.uint8)


if __name__ == "__main__":
    verbs: dict[str, Any] = {"unpack": unpack, "measure": measure, "repack": repack}
    verbs[sys.argv[1]](*sys.argv[2:])
