"""Runs a Core ML mlprogram anywhere, straight from its protobuf and weight.bin.

Core ML itself runs on Apple systems only. This interpreter makes the accuracy, agreement and parity of a package
known without a Mac, and activation ranges measurable. Its numbers are the reference numerics of the ops, not the
Neural Engine's; its speed says nothing.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softedge.errors import CannotRunHere, UserError
from softedge.export.coreml.mil_ops import OPS, Kernel

Observer = Callable[[str, str, Tensor], None]  # op type, output name, value

_BLOB_SENTINEL = 0xDEADBEEF  # coremltools' MILBlob storage format: (sentinel, type, bytes, offset) per blob
_TOGETHER: dict[tuple[Any, ...], bool] = {}  # layout -> whether several images can pass at once
_SHAPES = ("shape", "reps", "begin", "end", "axes", "axis", "perm", "split_sizes", "num_splits")
_NUMPY = {
    "FLOAT16": np.float16,
    "FLOAT32": np.float32,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT16": np.int16,
    "UINT16": np.uint16,
    "INT32": np.int32,
    "BOOL": np.bool_,
}


@dataclass(frozen=True)
class Operation:
    """One operation: ``live`` arguments are looked up by name when it runs, ``fixed`` ones are known beforehand."""

    kind: str
    kernel: Kernel
    live: Mapping[str, str | list[str]]
    fixed: Mapping[str, Any]
    outputs: tuple[str, ...]


class Program:
    """The main function of the mlprogram in an ``.mlpackage`` folder.

    inputs, outputs: names.  operations: all of them, as stored.  steps: those that are not constant, ready to run.
    labels: of a classifier, or ().
    """

    def __init__(self, package: Path):
        self.package = Path(package)
        self.model, self._folder = read_model(self.package)
        function = self.model.mlProgram.functions["main"]
        block = function.block_specializations[function.opset]
        self.opset: str = function.opset
        self.inputs = tuple(i.name for i in function.inputs)
        self.outputs = tuple(block.outputs)
        self._blobs: dict[str, np.memmap] = {}
        self.constants: dict[str, Any] = {}
        self.steps: list[Operation] = []
        self.labels: tuple[str, ...] = ()
        self.operations: list[Any] = list(block.operations)
        for operation in self.operations:
            self._add(operation)
        self._last_use = self._last_uses()

    def run(self, inputs: Mapping[str, Tensor], observe: Observer | None = None) -> dict[str, Any]:
        """Run the program on a batch: inputs have any first axis, though the file declares 1.

        observe: called with (op type, output name, value) after every op.  Returns output name -> value.
        """
        values: dict[str, Any] = {name: torch.as_tensor(inputs[name]) for name in self.inputs}
        count = len(values[self.inputs[0]])
        with torch.inference_mode():
            for number, step in enumerate(self.steps):
                arguments = {**step.fixed, "images": count}
                for key, name in step.live.items():
                    arguments[key] = values[name] if isinstance(name, str) else [self._value(n, values) for n in name]
                result = step.kernel(arguments)
                for name, value in zip(step.outputs, result if isinstance(result, tuple) else (result,)):
                    values[name] = value
                    if observe is not None and isinstance(value, Tensor):
                        observe(step.kind, name, value)
                for name in self._last_use.get(number, ()):
                    del values[name]
        return {name: self._value(name, values) for name in self.outputs}

    def at_once(self, images: Tensor, most: int = 16) -> int:
        """How many images a pass takes: ``most``, or 1 where the file's shapes hold for the one image that it declares.

        images: (N, 3, S, S), of which two are tried.
        """
        if len(images) < 2:
            return 1
        if self._layout not in _TOGETHER:
            _TOGETHER[self._layout] = self._holds_for_two(images[:2])
        return most if _TOGETHER[self._layout] else 1

    def _holds_for_two(self, images: Tensor) -> bool:
        try:
            both, *alone = (self.run({self.inputs[0]: part}) for part in (images, images[:1], images[1:]))
            for name, value in both.items():
                if isinstance(value, Tensor):
                    single = torch.cat([values[name] for values in alone]).float()
                    margin = 0.02 * float(single.abs().max())
                    if value.shape != single.shape or not torch.allclose(value.float(), single, rtol=0.0, atol=margin):
                        return False
        except (RuntimeError, IndexError, ValueError):  # what torch says of shapes that do not fit
            return False
        return True

    @property
    def _layout(self) -> tuple[Any, ...]:
        """The operations and the shapes they are given: what decides whether several images can pass at once."""
        shapes = [
            tuple(np.ravel(step.fixed[key]).tolist()) for step in self.steps for key in _SHAPES if key in step.fixed
        ]
        return (*((step.kind, step.outputs) for step in self.steps), *shapes)

    def _value(self, name: str, values: Mapping[str, Any]) -> Any:
        return values[name] if name in values else self.constants[name]

    def _add(self, operation: Any) -> None:
        outputs = tuple(o.name for o in operation.outputs)
        if operation.type == "const":
            self.constants[outputs[0]] = self._read(operation.attributes["val"])
            return
        if operation.type not in OPS:
            raise CannotRunHere(
                f"the Core ML program uses the op '{operation.type}', which the reference interpreter does not have; "
                "evaluate it on a Mac, or export another architecture"
            )
        fixed = {k: self._read(v) for k, v in operation.attributes.items() if k != "name"}
        live: dict[str, str | list[str]] = {}
        for key, argument in operation.inputs.items():
            bindings = argument.arguments
            names = [b.name if b.WhichOneof("binding") == "name" else None for b in bindings]
            if len(names) > 1:
                live[key] = [str(n) for n in names]
            elif names[0] is None:
                fixed[key] = self._read(bindings[0].value)
            elif names[0] in self.constants:
                fixed[key] = self.constants[names[0]]
            else:
                live[key] = names[0]
        if operation.type == "classify":
            self.labels = tuple(fixed["classes"])
        kernel = OPS[operation.type]
        if operation.type.startswith("constexpr"):
            self.constants[outputs[0]] = kernel(fixed)
        else:
            self.steps.append(Operation(operation.type, kernel, live, fixed, outputs))

    def _last_uses(self) -> dict[int, list[str]]:
        """Step number -> names not needed after it, so that memory does not hold every activation at once."""
        last: dict[str, int] = {}
        for number, step in enumerate(self.steps):
            used = [n for value in step.live.values() for n in ([value] if isinstance(value, str) else value)]
            last.update(dict.fromkeys((*used, *step.outputs), number))
        uses: dict[int, list[str]] = {}
        for name, number in last.items():
            if name not in self.outputs and name not in self.constants:
                uses.setdefault(number, []).append(name)
        return uses

    def _read(self, value: Any) -> Any:
        """A constant: torch tensor, string, or list of either."""
        if value.WhichOneof("value") == "blobFileValue":
            return torch.from_numpy(self._blob(value))
        immediate = value.immediateValue
        kind = immediate.WhichOneof("value")
        if kind in ("tuple", "list"):
            return [self._read(v) for v in getattr(immediate, kind).values]
        if kind != "tensor":
            raise UserError(
                f"{self.package} holds a constant of kind '{kind}', which the reference interpreter cannot read"
            )
        kind = immediate.tensor.WhichOneof("value")
        if kind == "strings":
            strings = list(immediate.tensor.strings.values)
            return strings[0] if len(strings) == 1 else strings
        dtype, shape = _dtype(value, self.package), _shape(value)
        content = getattr(immediate.tensor, kind).values
        array = np.frombuffer(content, dtype) if kind == "bytes" else np.array(list(content)).astype(dtype)
        return torch.from_numpy(array.reshape(shape).copy())

    def _blob(self, value: Any) -> np.ndarray:
        name, start = value.blobFileValue.fileName, value.blobFileValue.offset
        if name not in self._blobs:
            path = Path(name.replace("@model_path", str(self._folder)))
            try:
                self._blobs[name] = np.memmap(path, np.uint8, "r")
            except (OSError, ValueError) as error:
                raise UserError(f"{self.package}: its weights cannot be read ({error})") from error
        blob, dtype, shape = self._blobs[name], _dtype(value, self.package), _shape(value)
        try:
            sentinel, _, size, offset = struct.unpack_from("<IIQQ", blob, start)
            if sentinel != _BLOB_SENTINEL:
                raise ValueError("wrong marker")
            return np.frombuffer(blob[offset : offset + size].tobytes(), dtype).reshape(shape).copy()
        except (struct.error, ValueError) as error:
            raise UserError(f"{self.package}: its weight file is damaged ({error}); export it again") from error


def read_model(package: Path) -> tuple[Any, Path]:
    from softedge.export.quiet import quiet

    with quiet():
        from coremltools.proto import Model_pb2
    try:
        manifest = json.loads((package / "Manifest.json").read_text())
        path = package / "Data" / manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
        model = Model_pb2.Model()
        model.ParseFromString(path.read_bytes())
    except Exception as error:  # a missing file, broken JSON or a protobuf that does not parse
        raise UserError(f"{package} cannot be read as a Core ML package ({type(error).__name__}: {error})") from error
    if model.WhichOneof("Type") != "mlProgram":
        raise UserError(
            f"{package} is a Core ML model of kind '{model.WhichOneof('Type')}'; softedge reads ML Programs"
        )
    return model, path.parent


def _dtype(value: Any, package: Path) -> Any:
    from coremltools.proto import MIL_pb2

    name = MIL_pb2.DataType.Name(value.type.tensorType.dataType)
    if name not in _NUMPY:
        raise UserError(f"{package} holds {name} constants, which the reference interpreter cannot read")
    return _NUMPY[name]


def _shape(value: Any) -> list[int]:
    return [d.constant.size for d in value.type.tensorType.dimensions]
