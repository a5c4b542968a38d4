"""The float ONNX graph of a deployed network: traced, named, described."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch

from softedge.errors import UserError
from softedge.export.contract import INPUT, to_json
from softedge.export.deployed import Deployed
from softedge.export.onnx.ranges import float_tensors
from softedge.export.onnx.rewrite import pool_globally, without_unused
from softedge.export.quiet import quiet

OPSET = 18
IR_VERSION = 8  # what opset 18 needs; newer ones keep files from runtimes that can run every operator in them
OLDEST_RUNTIME = "1.15.1"  # the oldest onnxruntime that the files were run with (tests/export/test_onnx_runtimes.py)
OLDEST = {"w8a16": "1.18.1"}  # where it is another one: 16-bit integers came with opset 21


def trace(deployed: Deployed, *, dynamic: bool = True) -> onnx.ModelProto:
    """Export ``deployed`` (BatchNorm folded) with input ``image`` and output named after what it is.

    dynamic: any batch size, else 1.  Traced once for each ``deployed``: several precisions and formats start from it.
    Raises UserError for an operator that ONNX cannot express.
    """
    if dynamic not in deployed.traced:
        deployed.traced[dynamic] = _trace(deployed, dynamic)
    return onnx.load_from_string(deployed.traced[dynamic])


def _trace(deployed: Deployed, dynamic: bool) -> bytes:
    size = deployed.spec.size
    example = torch.zeros((2 if dynamic else 1, size, size, 3), dtype=torch.uint8)
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                deployed.folded(),
                (example,),
                dynamo=True,
                opset_version=OPSET,
                external_data=False,
                dynamic_shapes=({0: "N"},) if dynamic else None,
                input_names=[INPUT],
                output_names=[deployed.output],
                verbose=False,
            )
            assert program is not None
    except torch.onnx.errors.OnnxExporterError as error:
        raise UserError(f"ONNX cannot express this network: {_reason(error)}") from error
    return without_unused(pool_globally(_tidy(program.model_proto))).SerializeToString()


def _reason(error: BaseException) -> str:
    """The innermost message of a chain of exporter errors, one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]


def _tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop what the tracer leaves behind (source lines of this machine, docs) and give every node a name."""
    for holder in (model, model.graph, *model.graph.input, *model.graph.output, *model.graph.value_info):
        del holder.metadata_props[:]
    used: set[str] = set()
    for index, node in enumerate(model.graph.node):
        del node.metadata_props[:]
        node.doc_string = ""
        node.name = node.name if node.name and node.name not in used else f"{node.op_type}_{index}"
        used.add(node.name)
    return model


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose network computes in float16; preprocessing, softmax, input, output and shapes keep their types."""
    model = onnx.load_from_string(model.SerializeToString())
    nodes = list(model.graph.node)
    before, after = (set(names) for names in float_nodes(model))
    head = [node for node in nodes if node.name in before]
    body = [node for node in nodes if node.name not in before | after]
    tail = [node for node in nodes if node.name in after]
    read = {name for node in body for name in node.input}
    wanted = {name for node in tail for name in node.input} | {output.name for output in model.graph.output}
    floats = set(float_tensors(model))
    entering = [name for node in head for name in node.output if name in read & floats]
    leaving = [name for node in body for name in node.output if name in wanted]
    half = {name: f"{name}_half" for name in (*entering, *leaving)}
    float_too = {name for node in (*head, *tail) for name in node.input}  # as the bounds of every ReLU6 in a network
    for tensor in [t for t in model.graph.initializer if t.name in read and t.data_type == onnx.TensorProto.FLOAT]:
        array = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        if tensor.name in float_too:
            half[tensor.name] = f"{tensor.name}_half"
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, half[tensor.name]))
        else:
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    for node in body:
        for about in node.attribute if node.op_type == "Cast" else ():
            about.i = onnx.TensorProto.FLOAT16 if about.i == onnx.TensorProto.FLOAT else about.i
        node.input[:] = [half.get(name, name) for name in node.input]
        node.output[:] = [half.get(name, name) for name in node.output]
    narrow = [_cast(name, half[name], onnx.TensorProto.FLOAT16) for name in entering]
    widen = [_cast(half[name], name, onnx.TensorProto.FLOAT) for name in leaving]
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend([*head, *narrow, *body, *widen, *tail])
    return model


def _cast(source: str, result: str, to: int) -> onnx.NodeProto:
    return onnx.helper.make_node("Cast", [source], [result], f"{source}_to_{result}", to=to)


def finished(model: onnx.ModelProto, deployed: Deployed, precision: str, **about: Any) -> bytes:
    """The bytes of a file: what no node reads is gone, labels, preprocessing and origin are in the metadata."""
    model = without_unused(model)
    _set_metadata(model, deployed, precision, **about)
    model.ir_version = max(IR_VERSION, onnx.helper.find_min_ir_version_for(model.opset_import))
    return model.SerializeToString()


def _set_metadata(model: onnx.ModelProto, deployed: Deployed, precision: str, **about: Any) -> None:
    """Put labels, preprocessing, precision and origin into the file's metadata."""
    values = {
        "softedge.labels": to_json(list(deployed.labels)),
        "softedge.input": to_json(deployed.spec.to_dict()),
        "softedge.output": deployed.output,
        "softedge.precision": precision,
        **{
            f"softedge.{key}": value if isinstance(value, str) else to_json(value)
            for key, value in {**deployed.about, **about}.items()
        },
    }
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, values)
    model.producer_name = "softedge"
    model.doc_string = ""


def float_nodes(model: onnx.ModelProto) -> tuple[list[str], list[str]]:
    """Names of the nodes before the first convolution (preprocessing) and after the last Gemm or Conv (softmax)."""
    weighted = [i for i, node in enumerate(model.graph.node) if node.op_type in ("Conv", "Gemm", "MatMul")]
    if not weighted:
        return [node.name for node in model.graph.node], []
    first, last = weighted[0], weighted[-1]
    nodes = model.graph.node
    return [node.name for node in nodes[:first]], [node.name for node in nodes[last + 1 :]]
