"""An OpenVINO network in memory: made from the traced graph, compiled and run on the CPU, written as IR."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from softedge.errors import UserError
from softedge.export.base import Float32, Predictor, Uint8
from softedge.export.contract import INPUT, to_json
from softedge.export.openvino.core import core
from softedge.files import refuse_full, temporary_folder
from softedge.records import Precision
from softedge.run import fsync_folder

if TYPE_CHECKING:
    import onnx

    from softedge.export.deployed import Deployed

Feed = Callable[[Uint8], NDArray[Any]]

F32 = {"INFERENCE_PRECISION_HINT": "f32"}
_AFTER_NORMALISATION = ("Convolution", "Pad", "FakeQuantize")


def from_onnx(deployed: Deployed, dynamic: bool = True) -> Any:
    """The IR of the traced graph: the ONNX route keeps input and output names, the torch route leaves them empty."""
    from softedge.export.onnx import graph as onnx_graph

    return from_graph(onnx_graph.trace(deployed, dynamic=dynamic))


def from_graph(graph: onnx.ModelProto) -> Any:
    """The IR of a float ONNX graph from ``onnx.graph.trace``."""
    import openvino as ov

    with temporary_folder("onnx") as folder:
        source = folder / "model.onnx"
        source.write_bytes(graph.SerializeToString())
        try:
            return _normalised_by_rows(ov.convert_model(source))
        except Exception as error:  # openvino raises RuntimeError subclasses and its own kinds
            reason = str(error).strip().splitlines()[-1][:200]
            raise UserError(f"OpenVINO cannot express this network: {reason}") from error


def _normalised_by_rows(network: Any) -> Any:
    """The image is normalised as it comes, whole rows of it (H, W · 3), and turned into planes after that.

    Computed on planes it is transposed, and for the first convolution transposed back: 0.1 ms at 224 pixels, a tenth
    of an int8 MobileNetV3-Small. Any other beginning than image -> float -> planes -> steps with a constant per channel
    (repeated along the width or not) -> convolution, padding or rounding is left as it is.
    """
    from openvino import opset13 as op

    image = network.inputs[0]
    steps = [image.get_node()]
    while steps[-1].get_type_name() not in _AFTER_NORMALISATION:
        readers = [reader.get_node() for output in steps[-1].outputs() for reader in output.get_target_inputs()]
        if len(readers) != 1:
            return network
        steps.append(readers[0])
    *before, follower = steps[1:]
    kinds = [step.get_type_name() for step in before]
    if sorted(kinds[:2]) != ["Convert", "Transpose"] or not set(kinds[2:]) <= {"Add", "Subtract", "Multiply", "Divide"}:
        return network
    width = image.get_partial_shape()[2].get_length()
    value = op.convert(image, "f32")
    for step in before[2:]:
        constant = step.input_value(1).get_node()
        if constant.get_type_name() != "Constant" or list(constant.shape) not in ([1, 3, 1, 1], [1, 3, 1, width]):
            return network
        row = np.broadcast_to(constant.get_data(), (1, 3, 1, width)).transpose(0, 2, 3, 1)
        value = getattr(op, step.get_type_name().lower())(value, op.constant(np.ascontiguousarray(row), np.float32))
    planes = op.transpose(value, op.constant(np.array([0, 3, 1, 2], np.int64)))
    planes.set_friendly_name(before[-1].get_friendly_name())
    follower.input(0).replace_source_output(planes.output(0))
    network.validate_nodes_and_infer_types()
    return network


def write(network: Any, deployed: Deployed, precision: str, path: Path, about: Mapping[str, Any] = {}) -> None:
    """Describe a network like every export and write it: ``path`` (.xml) and the .bin beside it.  about: more."""
    _describe(network, deployed, precision, about)
    bits = Precision.named(precision)
    save(network, path, half=bits.weights == 16, small=bits.is_int8)


def _describe(network: Any, deployed: Deployed, precision: str, about: Mapping[str, Any]) -> None:
    """Put labels, preprocessing, precision and origin into the IR's rt_info."""
    values = {
        "labels": to_json(list(deployed.labels)),
        "input": to_json(deployed.spec.to_dict()),
        "output": deployed.output,
        "precision": precision,
        **{key: str(value) for key, value in {**deployed.about, **about}.items()},
    }
    for key, value in values.items():
        network.set_rt_info(value, ["softedge", key])
    network.inputs[0].get_tensor().set_names({INPUT})
    network.outputs[0].get_tensor().set_names({deployed.output})


def save(network: Any, path: Path, half: bool, small: bool) -> None:
    """Write ``path`` and its .bin beside their final names and rename both, the .xml last.

    small: leave out the shapes that the runtime infers while it reads, all but those of inputs and outputs.
    """
    import openvino as ov

    with temporary_folder("model", beside=path) as folder:
        written = folder / path.name
        try:
            ov.save_model(network, written, compress_to_fp16=half)
        except RuntimeError as error:  # openvino reports a full disk this way
            refuse_full(folder)
            raise UserError(f"OpenVINO cannot write {path} ({str(error).strip().splitlines()[-1][:160]})") from error
        # The indentation is a sixth of the file, and of an int8 mobile network the file is a third. What NNCF notes of
        # its settings says nothing to a runtime.
        text = re.sub(r"<nncf>.*?</nncf>", "", written.read_text(), flags=re.DOTALL)
        text = re.sub(r">\s+<", "><", text)
        if small:
            text = re.sub(
                r'<layer [^>]*type="(?!Parameter|Result).*?</layer>',
                lambda layer: re.sub(r"<dim>-?\d+</dim>", "", layer.group()),
                text,
                flags=re.DOTALL,
            )
        written.write_text(text)
        for file in (written.with_suffix(".bin"), written):
            os.replace(file, path.with_name(file.name))
    fsync_folder(path.parent)


def compiled(model: Any) -> Any:
    """A file or a network for the CPU; left alone, OpenVINO computes in bf16 or f16 where the processor has it."""
    return core().compile_model(model, "CPU", F32)


def as_it_is(images: Uint8) -> NDArray[Any]:
    """What softedge's own networks take: uint8 (N, S, S, 3)."""
    return images


def predictor(model: Any, batch: int = 32, feed: Feed = as_it_is) -> Predictor:
    """Run a file or a network in float32.  feed: images -> what it takes."""
    run = compiled(model)
    shape = run.inputs[0].get_partial_shape()
    step = batch if shape[0].is_dynamic else shape[0].get_length()

    def predict(images: Uint8) -> Float32:
        parts = [next(iter(run(feed(images[i : i + step])).values())) for i in range(0, len(images), step)]
        return np.concatenate(parts).astype(np.float32)

    return predict
