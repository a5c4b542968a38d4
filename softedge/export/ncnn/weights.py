"""The weights in a .bin file, layer by layer, and 8-bit weights in their place.

A block of weights is flagged by four bytes: 0 for float32, ``HALF`` for fp16, ``BYTES`` for int8; biases and constants
are float32 without a flag (ncnn, modelbin.cpp).  Blocks end on a multiple of four bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softedge.errors import UserError
from softedge.export.base import Float32
from softedge.export.ncnn.network import INT8_TERM, WEIGHTED, Layer, Network, weights_of
from softedge.run import write_bytes

HALF, BYTES = 0x01306B47, 0x000D4B38
_TYPES: dict[int, np.dtype[Any]] = {HALF: np.dtype(np.float16), BYTES: np.dtype(np.int8), 0: np.dtype(np.float32)}
Int8 = NDArray[np.int8]
# Layers that hold weights, and not in an order that ``_sizes`` knows (ncnn, src/layer/*.cpp, load_model).
_UNKNOWN = re.compile(
    "Bias|Convolution.*[13]D|Deconvolution.*|DeformableConv2D|Dequantize|Embed|GRU|Gemm|LSTM|MultiHeadAttention|Normalize|"
    "Quantize|RMSNorm|RNN|Requantize"
)


@dataclass(frozen=True)
class Block:
    """values: float32, or int8.  flagged: whether its type stands before it."""

    values: NDArray[np.float32] | Int8
    flagged: bool

    def written(self) -> bytes:
        data = np.ascontiguousarray(self.values).tobytes()
        flag = np.uint32(BYTES if self.values.dtype == np.int8 else 0).tobytes() if self.flagged else b""
        return flag + data + bytes(-len(data) % 4)


def _sizes(layer: Layer) -> list[tuple[int, bool]]:
    """Number of values and whether flagged, of each block of a layer, in order; none for layers without weights."""
    number = layer.number
    if layer.kind in WEIGHTED:
        linear = layer.kind == "InnerProduct"
        outputs, bias, size = number(0), number(1 if linear else 5), number(2 if linear else 6)
        groups = 1 if number(INT8_TERM) in (2, 102) else number(7)
        scales = groups if layer.kind == "ConvolutionDepthWise" else outputs
        sizes = [(size, True)] + [(outputs, False)] * bool(bias)
        if number(INT8_TERM):
            sizes += [(scales, False), (1, False)]
        return sizes + [(1, False)] * (number(INT8_TERM) > 100)
    if layer.kind == "BatchNorm":
        return [(number(0), False)] * 4
    if layer.kind == "Scale":
        return [(number(0), False)] * (2 if number(1) else 1)
    if layer.kind == "MemoryData":
        sides = [number(key) for key in (0, 1, 11, 2)]
        return [(int(np.prod([side for side in sides if side])), not number(21, 1))]
    if layer.kind in ("LayerNorm", "GroupNorm", "InstanceNorm"):
        channels, affine = {"LayerNorm": (0, 2), "GroupNorm": (1, 3), "InstanceNorm": (0, 2)}[layer.kind]
        return [(number(channels), False)] * (2 if number(affine, 1) else 0)
    return [(number(0), False)] if layer.kind == "PReLU" else []


def read(network: Network, path: Path) -> dict[str, list[Block]]:
    """Every block of every layer by the layer's name; float where they are not in 8 bits.

    UserError for layers whose weights are laid out otherwise than above: then the file is longer than what was read.
    """
    data, at = path.read_bytes(), 0
    blocks: dict[str, list[Block]] = {}
    for layer in network.layers:
        blocks[layer.name] = []
        for count, flagged in _sizes(layer):
            flag = int.from_bytes(data[at : at + 4], "little") if flagged else 0
            kind = _TYPES.get(flag)
            at += 4 * flagged
            if kind is None or at + count * kind.itemsize > len(data) or (flag == BYTES) != _in_8_bits(layer, flagged):
                raise _unreadable(network, path)
            values = np.frombuffer(data, kind, count, at)
            blocks[layer.name].append(Block(values.astype(np.float32) if flag == HALF else values, flagged))
            at += -(-count * kind.itemsize // 4) * 4
    if at != len(data):
        raise _unreadable(network, path)
    return blocks


def _in_8_bits(layer: Layer, flagged: bool) -> bool:
    """Whether the network says so of the weights of a layer; ncnn reads past their end where the two files disagree."""
    return flagged and layer.kind in WEIGHTED and bool(layer.number(INT8_TERM))


def refuse_others(network: Network, path: Path) -> None:
    """UserError where the weights in ``path`` are not those of ``network``: ncnn would end the process with a crash.

    Networks with a layer whose weights are laid out otherwise than above pass unseen.
    """
    if any(_UNKNOWN.fullmatch(layer.kind) for layer in network.layers):
        return
    try:
        read(network, path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); export the model again") from error
    except UserError as error:
        raise UserError(
            f"{path} does not hold the weights of the network beside it: damaged, or of another export; export again"
        ) from error


def _unreadable(network: Network, path: Path) -> UserError:
    kinds = ", ".join(sorted({layer.kind for layer in network.layers}))
    return UserError(f"the weights in {path.name} are in an order that softedge does not know; the layers: {kinds}")


def write(network: Network, blocks: dict[str, list[Block]], path: Path) -> None:
    """Both files; ``path`` is that of the .param file."""
    write_bytes(weights_of(path), b"".join(b.written() for layer in network.layers for b in blocks.get(layer.name, ())))
    network.write(path)


def in_8_bits(weights: NDArray[Any], rows: int) -> tuple[Int8, Float32]:
    """Symmetric integers, one scale for each of ``rows``: int8 (size,) and float32 (rows,), q = round(scale · w)."""
    table = weights.reshape(rows, -1)
    largest = np.abs(table).max(1)
    scales = np.where(largest > 0, 127 / np.maximum(largest, 1e-30), 1.0).astype(np.float32)
    return np.clip(np.round(table * scales[:, None]), -127, 127).astype(np.int8).reshape(-1), scales


def rows_of(layer: Layer) -> int:
    """How many scales the weights of a layer have: one for each output, or for each group."""
    return layer.number(7) if layer.kind == "ConvolutionDepthWise" else layer.number(0)


def scalar(value: float) -> Block:
    return Block(np.array([value], np.float32), flagged=False)
