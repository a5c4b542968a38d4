"""Runs inside LiteRT's own environment, as a script: what ``given.py`` asks of a file that somebody else converted.

    python given_worker.py widen model.tflite out.tflite
    python given_worker.py constants model.tflite constants.json

widen: constants stored in float16, each behind a DEQUANTIZE, in float32 without it.  constants.json: the name of what
an addition, subtraction, multiplication or division makes -> its second operand, of one value or one a channel.
Needs ai-edge-litert, and nothing of softedge.
"""

from __future__ import annotations

import copy
import json
import sys
from typing import Any

import numpy as np

# Of LiteRT's schema: TensorType, BuiltinOperator.
_TYPES = {0: "<f4", 1: "<f2"}
_FLOAT32, _FLOAT16 = _TYPES
_DEQUANTIZE, _ARITHMETIC = 6, (0, 18, 41, 42)


def widen(path: str, result: str) -> None:
    from ai_edge_litert.tools import flatbuffer_utils  # type: ignore[import-not-found]

    model = flatbuffer_utils.read_model(path)
    widened(model)
    flatbuffer_utils.write_model(model, result)


def constants(path: str, result: str) -> None:
    from ai_edge_litert.tools import flatbuffer_utils

    with open(result, "w") as file:
        json.dump(second_operands(flatbuffer_utils.read_model(path)), file)


def widened(model: Any) -> None:
    """In place.  The tensors in 16 bits are nobody's then, and hold nothing."""
    for graph in model.subgraphs:
        kept, emptied = [], set()
        for operator in graph.operators:
            source = int(operator.inputs[0]) if len(operator.inputs) else -1
            halves = _values(model, graph, source)
            if _kind(model, operator) != _DEQUANTIZE or halves is None or graph.tensors[source].type != _FLOAT16:
                kept.append(operator)
                continue
            buffer = copy.copy(model.buffers[0])
            buffer.data = np.frombuffer(halves.astype("<f4").tobytes(), np.uint8)
            graph.tensors[operator.outputs[0]].buffer = len(model.buffers)
            model.buffers.append(buffer)
            emptied.add(source)
        graph.operators = kept
        for index in emptied - {int(index) for operator in kept for index in operator.inputs}:
            model.buffers[graph.tensors[index].buffer].data = None
            graph.tensors[index].buffer = 0


def second_operands(model: Any) -> dict[str, list[float]]:
    graph, found = model.subgraphs[0], {}
    for operator in graph.operators:
        if _kind(model, operator) in _ARITHMETIC and len(operator.inputs) == 2:
            values = _values(model, graph, int(operator.inputs[1]))
            if values is not None and values.size in (1, 3):
                name = graph.tensors[operator.outputs[0]].name
                found[name.decode() if isinstance(name, bytes) else name] = [float(value) for value in values]
    return found


def _kind(model: Any, operator: Any) -> int:
    code = model.operatorCodes[operator.opcodeIndex]
    return int(max(code.builtinCode, code.deprecatedBuiltinCode))


def _values(model: Any, graph: Any, index: int) -> np.ndarray | None:
    """Of a float constant, in one row; None of other tensors."""
    if index < 0:
        return None
    tensor = graph.tensors[index]
    data = model.buffers[tensor.buffer].data
    if tensor.type not in _TYPES or tensor.sparsity is not None or data is None or not len(data):
        return None
    return np.frombuffer(bytes(data), _TYPES[tensor.type])


if __name__ == "__main__":
    verbs: dict[str, Any] = {"widen": widen, "constants": constants}
    verbs[sys.argv[1]](*sys.argv[2:])
