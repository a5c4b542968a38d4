"""Reference kernels of the ML Program ops that convolutional and small transformer classifiers use.

Semantics after Apple's op reference (https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html).
Half-precision tensors are computed in float32 and rounded once per op: reference numerics, not the Neural Engine's.

A kernel takes the arguments of an op by name (torch tensors, strings; absent ones left out) and returns its output.
Beside them ``images``: how many the program runs at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from softedge.errors import UserError

Arguments = dict[str, Any]
Kernel = Callable[[Arguments], Any]

OPS: dict[str, Kernel] = {}

_DTYPES = {
    "fp16": torch.float16,
    "fp32": torch.float32,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "int32": torch.int32,
    "bool": torch.bool,
}


_MASKS = ("begin_mask", "end_mask", "squeeze_mask")


def op(*names: str) -> Callable[[Kernel], Kernel]:
    """Register a kernel under its names in MIL."""

    def register(kernel: Kernel) -> Kernel:
        OPS.update(dict.fromkeys(names, kernel))
        return kernel

    return register


def _integers(value: Any) -> list[int]:
    return [int(v) for v in torch.as_tensor(value).reshape(-1)]


def _elementwise(function: Callable[..., Tensor], *names: str) -> Kernel:
    def kernel(a: Arguments) -> Tensor:
        tensors = [torch.as_tensor(a[name]) for name in names]
        return function(*(t.float() for t in tensors)).to(tensors[0].dtype)

    return kernel


_unary: dict[str, Callable[..., Tensor]] = {
    "relu": torch.relu,
    "relu6": functional.relu6,
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
    "tanh": torch.tanh,
    "sqrt": torch.sqrt,
    "identity": torch.clone,
}
_binary: dict[str, Callable[..., Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "real_div": torch.div,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
}
OPS.update({name: _elementwise(function, "x") for name, function in _unary.items()})
OPS.update({name: _elementwise(function, "x", "y") for name, function in _binary.items()})
OPS["thresholded_relu"] = _elementwise(lambda x, alpha: torch.where(x >= alpha, x, 0.0), "x", "alpha")
OPS["leaky_relu"] = _elementwise(lambda x, alpha: torch.where(x >= 0, x, alpha * x), "x", "alpha")
OPS["clip"] = _elementwise(torch.clamp, "x", "alpha", "beta")
OPS["sigmoid_hard"] = _elementwise(lambda x, alpha, beta: (x * alpha + beta).clamp(0, 1), "x", "alpha", "beta")


def _padding(a: Arguments, size: list[int], kernel: list[int], strides: list[int], dilations: list[int]) -> list[int]:
    """Padding in the order of ``torch.nn.functional.pad``: last axis first, (before, after) each."""
    kind = str(a["pad_type"])
    if kind == "valid":
        return [0] * 2 * len(size)
    if kind == "custom":
        custom = _integers(a["pad"])
        pairs = [custom[2 * i : 2 * i + 2] for i in range(len(size))]
    else:  # "same": the odd pixel goes after; "same_lower": before
        pairs = []
        for n, k, s, d in zip(size, kernel, strides, dilations):
            total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
            before = total // 2 if kind == "same" else total - total // 2
            pairs.append([before, total - before])
    return [value for pair in reversed(pairs) for value in pair]


@op("conv")
def conv(a: Arguments) -> Tensor:
    x, weight = a["x"], a["weight"].float()
    if x.dim() != 4:
        raise UserError(f"the reference interpreter runs 2-D convolutions only, found one over {x.dim() - 2} axes")
    strides, dilations = _integers(a["strides"]), _integers(a["dilations"])
    padding = _padding(a, list(x.shape[2:]), list(weight.shape[2:]), strides, dilations)
    bias = a["bias"].float() if "bias" in a else None
    padded = functional.pad(x.float(), padding) if any(padding) else x.float()
    return functional.conv2d(padded, weight, bias, strides, 0, dilations, int(a["groups"])).to(x.dtype)


@op("max_pool")
def max_pool(a: Arguments) -> Tensor:
    padded, kernel, strides = _pool_input(a, -torch.inf)
    return functional.max_pool2d(padded, kernel, strides).to(a["x"].dtype)


@op("avg_pool")
def avg_pool(a: Arguments) -> Tensor:
    padded, kernel, strides = _pool_input(a, 0.0)
    mean = functional.avg_pool2d(padded, kernel, strides)
    if bool(a.get("exclude_padding_from_average", False)):
        ones, _, _ = _pool_input({**a, "x": torch.ones_like(a["x"])}, 0.0)
        mean = mean / functional.avg_pool2d(ones, kernel, strides)
    return mean.to(a["x"].dtype)


def _pool_input(a: Arguments, fill: float) -> tuple[Tensor, list[int], list[int]]:
    if bool(a.get("ceil_mode", False)):
        raise UserError("the reference interpreter has no pooling with ceil_mode")
    x, kernel = a["x"], _integers(a["kernel_sizes"])
    strides = _integers(a["strides"]) if "strides" in a else [1] * len(kernel)
    padding = _padding(a, list(x.shape[2:]), kernel, strides, [1] * len(kernel))
    return functional.pad(x.float(), padding, value=fill), kernel, strides


@op("linear")
def linear(a: Arguments) -> Tensor:
    bias = a["bias"].float() if "bias" in a else None
    return functional.linear(a["x"].float(), a["weight"].float(), bias).to(a["x"].dtype)


@op("matmul")
def matmul(a: Arguments) -> Tensor:
    x, y = a["x"].float(), a["y"].float()
    x = x.transpose(-1, -2) if bool(a.get("transpose_x", False)) else x
    y = y.transpose(-1, -2) if bool(a.get("transpose_y", False)) else y
    return (x @ y).to(a["x"].dtype)


@op("batch_norm")
def batch_norm(a: Arguments) -> Tensor:
    gamma, beta = (a[k].float() if k in a else None for k in ("gamma", "beta"))
    mean, variance = a["mean"].float(), a["variance"].float()
    y = functional.batch_norm(a["x"].float(), mean, variance, gamma, beta, eps=float(a["epsilon"]))
    return y.to(a["x"].dtype)


@op("layer_norm")
def layer_norm(a: Arguments) -> Tensor:
    x, axes = a["x"].float(), _integers(a["axes"])
    variance, mean = torch.var_mean(x, axes, unbiased=False, keepdim=True)
    y = (x - mean) / torch.sqrt(variance + float(a["epsilon"]))
    y = y * a["gamma"].float() if "gamma" in a else y
    return (y + a["beta"].float() if "beta" in a else y).to(a["x"].dtype)


@op("gelu")
def gelu(a: Arguments) -> Tensor:
    x, mode = a["x"].float(), a.get("mode", "EXACT")
    if mode == "SIGMOID_APPROXIMATION":
        return (x * torch.sigmoid(1.702 * x)).to(a["x"].dtype)
    approximate = "tanh" if mode == "TANH_APPROXIMATION" else "none"
    return functional.gelu(x, approximate=approximate).to(a["x"].dtype)


@op("pad")
def pad(a: Arguments) -> Tensor:
    """(before, after) of each axis, the last axis last; torch begins with the last one."""
    amounts = _integers(a["pad"])
    pairs = [amounts[i : i + 2] for i in range(0, len(amounts), 2)]
    if (mode := a.get("mode", "constant")) == "constant":
        value = float(a.get("constant_val", 0.0))
        return functional.pad(a["x"], [n for pair in reversed(pairs) for n in pair], value=value)
    while pairs and pairs[0] == [0, 0]:  # torch reflects over the last axes only
        pairs = pairs[1:]
    return functional.pad(a["x"].float(), [n for pair in reversed(pairs) for n in pair], mode=mode).to(a["x"].dtype)


@op("softmax")
def softmax(a: Arguments) -> Tensor:
    return torch.softmax(a["x"].float(), int(a["axis"])).to(a["x"].dtype)


@op("reduce_mean")
def reduce_mean(a: Arguments) -> Tensor:
    return a["x"].float().mean(_integers(a["axes"]), keepdim=bool(a["keep_dims"])).to(a["x"].dtype)


@op("tile")
def tile(a: Arguments) -> Tensor:
    return a["x"].repeat(_integers(a["reps"]))


@op("reduce_l2_norm")
def reduce_l2_norm(a: Arguments) -> Tensor:
    norm = torch.linalg.vector_norm(a["x"].float(), dim=_integers(a["axes"]), keepdim=bool(a["keep_dims"]))
    return norm.to(a["x"].dtype)


@op("slice_by_index")
def slice_by_index(a: Arguments) -> Tensor:
    """Python's slices: negative ends count from the back; masked ends are left out, a squeezed axis is at begin."""
    x, rank = a["x"], a["x"].dim()
    masks = {key: a[key].reshape(-1).tolist() if key in a else [False] * rank for key in _MASKS}
    strides = _integers(a["stride"]) if "stride" in a else [1] * rank
    ranges = zip(x.shape, _integers(a["begin"]), _integers(a["end"]), strides, *masks.values())
    for axis, (size, begin, end, stride, from_start, to_end, squeezed) in enumerate(ranges):
        places = [begin % size]
        if not squeezed:
            places = list(range(size))[slice(None if from_start else begin, None if to_end else end, stride)]
        x = x.index_select(axis, torch.tensor(places, dtype=torch.long))
    gone = [axis for axis, squeezed in enumerate(masks["squeeze_mask"]) if squeezed]
    return x.squeeze(gone) if gone else x


@op("reshape")
def reshape(a: Arguments) -> Tensor:
    """Files declare batch 1; a larger batch keeps its first axis."""
    x, shape = a["x"], _integers(a["shape"])
    shape = [x.shape[i] if size == 0 else size for i, size in enumerate(shape)]
    declared = -1 not in shape and math.prod(shape) == x.numel()
    if not declared and shape and shape[0] == 1 and x.shape[0] > 1 and a.get("images") != 1:
        shape[0] = x.shape[0]
    return x.reshape(shape)


@op("transpose")
def transpose(a: Arguments) -> Tensor:
    return a["x"].permute(_integers(a["perm"]))


@op("squeeze")
def squeeze(a: Arguments) -> Tensor:
    return a["x"].squeeze(_integers(a["axes"]))


@op("expand_dims")
def expand_dims(a: Arguments) -> Tensor:
    x = a["x"]
    for axis in sorted(_integers(a["axes"])):
        x = x.unsqueeze(axis)
    return x


@op("concat")
def concat(a: Arguments) -> Tensor:
    values = a["values"]
    return values if isinstance(values, Tensor) else torch.cat(values, int(a["axis"]))  # of one alone


@op("split")
def split(a: Arguments) -> tuple[Tensor, ...]:
    axis = int(a["axis"])
    if "split_sizes" in a:
        return tuple(torch.split(a["x"], [int(size) for size in a["split_sizes"]], axis))
    return tuple(torch.tensor_split(a["x"], int(a["num_splits"]), axis))


@op("cast")
def cast(a: Arguments) -> Tensor:
    return a["x"].to(_DTYPES[str(a["dtype"])])


@op("constexpr_cast")
def constexpr_cast(a: Arguments) -> Tensor:
    return a["source_val"].to(_DTYPES[str(a["output_dtype"])])


def _along(value: Tensor, axis: Any, rank: int) -> Tensor:
    """A per-channel vector shaped to broadcast along ``axis``; scalars stay as they are."""
    if value.dim() == 0:
        return value
    shape = [1] * rank
    shape[int(axis)] = -1
    return value.reshape(shape)


def _dequantize(data: Tensor, a: Arguments) -> Tensor:
    """(q - zero_point) * scale in float32, rounded to the scale's type."""
    axis = a.get("axis", 0)
    scale = _along(a["scale"], axis, data.dim())
    zero = _along(torch.as_tensor(a.get("zero_point", 0)), axis, data.dim())
    return ((data.float() - zero.float()) * scale.float()).to(scale.dtype)


@op("constexpr_affine_dequantize")
def constexpr_affine_dequantize(a: Arguments) -> Tensor:
    return _dequantize(a["quantized_data"], a)


@op("dequantize")
def dequantize(a: Arguments) -> Tensor:
    return _dequantize(a["input"], a)


@op("quantize")
def quantize(a: Arguments) -> Tensor:
    """clip(round_half_to_even(x / scale) + zero_point) to the range of ``output_dtype``."""
    x, dtype = a["input"].float(), _DTYPES[str(a["output_dtype"])]
    axis = a.get("axis", 0)
    scale = _along(a["scale"].float(), axis, x.dim())
    zero = _along(torch.as_tensor(a.get("zero_point", 0)).float(), axis, x.dim())
    limits = torch.iinfo(dtype)
    return (torch.round(x / scale) + zero).clamp(limits.min, limits.max).to(dtype)


@op("constexpr_blockwise_shift_scale")
def constexpr_blockwise_shift_scale(a: Arguments) -> Tensor:
    data = a["data"].float()

    def spread(value: Tensor) -> Tensor:
        value = value.float()
        for axis, size in enumerate(data.shape):
            value = value.repeat_interleave(size // value.shape[axis], axis)
        return value

    offset = spread(a["offset"]) if "offset" in a else 0.0
    return ((data - offset) * spread(a["scale"])).to(a["scale"].dtype)


@op("classify")
def classify(a: Arguments) -> tuple[list[str], Tensor]:
    """The best label of each image, and the probabilities in the order of the labels."""
    return [a["classes"][i] for i in a["probabilities"].argmax(1).tolist()], a["probabilities"]
