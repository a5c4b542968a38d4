"""The two files of an ncnn network: ``model.param``, its layers as text, and ``model.bin``, their weights in order.

https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure.  A line of the .param file is a layer: kind, name,
numbers of inputs and outputs, their names, then parameters ``id=value``, where a list stands under ``-23300 - id``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from softedge.errors import UserError
from softedge.export.contract import INPUT
from softedge.run import write_bytes

MAGIC = "7767517"
LISTS = -23300
FEATURES = 31  # the parameter, of every kind of layer, whose bits forbid what a runtime may do
# Left alone, ncnn stores and computes in fp16 where the processor can, whatever the file holds.
NO_HALF_ARITHMETIC, NO_HALF_STORAGE, NO_BFLOAT = 1, 2, 4
FLOAT32 = NO_HALF_ARITHMETIC | NO_HALF_STORAGE | NO_BFLOAT
NO_WINOGRAD = 64
WEIGHTED = {"Convolution": "conv", "ConvolutionDepthWise": "conv", "InnerProduct": "linear"}
INT8_TERM, ACTIVATION, ACTIVATION_VALUES = 8, 9, 10  # parameters of these layers
_NUMBERS = {
    "int8_term": INT8_TERM,
    "activation": ACTIVATION,
    "activation_values": ACTIVATION_VALUES,
    "features": FEATURES,
}


@dataclass(frozen=True)
class Layer:
    """One line of a .param file.  values: parameters by their number, lists among them, as text."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    values: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, line: str) -> Layer:
        kind, name, *rest = line.split()
        reads, gives = int(rest[0]), int(rest[1])
        blobs, pairs = rest[2 : 2 + reads + gives], (pair.split("=", 1) for pair in rest[2 + reads + gives :])
        values = {LISTS - int(key) if int(key) <= LISTS else int(key): value for key, value in pairs}
        return cls(kind, name, tuple(blobs[:reads]), tuple(blobs[reads:]), values)

    def line(self) -> str:
        head = f"{self.kind:<24} {self.name:<24} {len(self.inputs)} {len(self.outputs)}"
        pairs = (f"{LISTS - key if self._is_list(key) else key}={value}" for key, value in self.values.items())
        return " ".join((head, *self.inputs, *self.outputs, *pairs))

    def _is_list(self, key: int) -> bool:
        return "," in self.values[key] and self.values[key][0] != '"'

    def number(self, key: int, default: int = 0) -> int:
        return int(self.values.get(key, default))

    def floats(self, key: int) -> list[float]:
        """The values of a list, which its length precedes."""
        return [float(value) for value in self.values.get(key, "0").split(",")[1:]]

    def having(self, **changed: int) -> Layer:
        """With whole numbers for parameters by name: ``layer.having(int8_term=2)``; 0 is their default."""
        values = dict(self.values)
        for name, value in changed.items():
            values.pop(_NUMBERS[name], None)
            if value:
                values[_NUMBERS[name]] = str(value)
        return dataclasses.replace(self, values=values)


@dataclass(frozen=True)
class Network:
    """The layers of a .param file in order of computation."""

    layers: tuple[Layer, ...]

    @classmethod
    def read(cls, path: Path) -> Network:
        """UserError for a file that is no .param file."""
        try:
            magic, _, *lines = path.read_text(encoding="utf-8").splitlines()
            if magic.strip() != MAGIC:
                raise ValueError(f"it begins with {magic[:20]!r}")
            return cls(tuple(Layer.of(line) for line in lines if line.strip()))
        except (OSError, ValueError, IndexError) as error:
            raise UserError(f"{path} is not an ncnn network ({error}); export the model again") from error

    def text(self) -> str:
        blobs = sum(len(layer.outputs) for layer in self.layers)
        return "\n".join((MAGIC, f"{len(self.layers)} {blobs}", *(layer.line() for layer in self.layers), ""))

    def write(self, path: Path) -> None:
        write_bytes(path, self.text().encode())

    def unknown(self) -> list[str]:
        """Operators that ncnn has no layer for: pnnx leaves them with PyTorch's names, torch.unbind or aten::erfinv."""
        return sorted({layer.kind for layer in self.layers if not layer.kind.isalnum()})

    def weighted(self) -> list[Layer]:
        """Convolutions and linear layers, in order."""
        return [layer for layer in self.layers if layer.kind in WEIGHTED]

    def named(self, output: str) -> Network:
        """With softedge's names for input and output instead of pnnx's ``in0`` and ``out0``."""
        names = {"in0": INPUT, "out0": output}

        def renamed(blobs: Sequence[str]) -> tuple[str, ...]:
            return tuple(names.get(blob, blob) for blob in blobs)

        return Network(
            tuple(
                dataclasses.replace(
                    layer,
                    inputs=renamed(layer.inputs),
                    outputs=renamed(layer.outputs),
                )
                for layer in self.layers
            )
        )

    def forbidding(self, bits: int) -> Network:
        """With ``bits`` of ``FEATURES`` set in every layer, whatever the options of the program that runs it."""
        return Network(tuple(layer.having(features=layer.number(FEATURES) | bits) for layer in self.layers))

    def without_fused_activations(self) -> Network:
        """The same function with activations as layers of their own, so that each layer gives what PyTorch's gives.

        ReLU, leaky ReLU, clip, sigmoid, Mish and hard-swish are the numbers 1 to 6 (ncnn, layer/fused_activation.h).
        """
        kinds = {1: "ReLU", 2: "ReLU", 3: "Clip", 4: "Sigmoid", 5: "Mish", 6: "HardSwish"}
        split: list[Layer] = []
        for layer in self.layers:
            number = layer.number(ACTIVATION) if layer.kind in WEIGHTED else 0
            if not number:
                split.append(layer)
                continue
            plain = f"{layer.outputs[0]}_plain"
            given = dict(enumerate(map(repr, layer.floats(ACTIVATION_VALUES))))
            split.append(dataclasses.replace(layer.having(activation=0, activation_values=0), outputs=(plain,)))
            split.append(Layer(kinds[number], f"{layer.name}_act", (plain,), layer.outputs, given))
        return Network(tuple(split))


def weights_of(path: Path) -> Path:
    """The file with the weights of a .param file."""
    return path.with_suffix(".bin")
