"""Which kernels an inference ran in which precision: of onnxruntime's profile, OpenVINO's model, LiteRT's operators.

Standard library only, Python 3.8 or newer, no softedge import: this file travels to the board beside ``worker.py``.
"""

from __future__ import annotations

import collections
from typing import Any

# The layers that decide what "the precision" of an inference is; the rest is glue.
HEAVY = {"Conv", "FusedConv", "NhwcFusedConv", "QLinearConv", "ConvInteger"}
HEAVY |= {"Gemm", "QGemm", "MatMul", "QLinearMatMul", "MatMulInteger"}
HEAVY |= {"Convolution", "FullyConnected"}
HEAVY |= {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL"}
TYPES = {"float": "f32", "float16": "f16", "bfloat16": "bf16"}
TYPES.update(dict.fromkeys(("uint8", "int8", "u8", "i8"), "int8"))


def summary(kernels: list[tuple[str, str]]) -> dict[str, Any]:
    """Of (layer, type) pairs: counts of the heavy kernels, and the precision in a word: "f32", "int8 + f32"."""
    named = [(name, TYPES.get(kind, kind)) for name, kind in kernels if name in HEAVY]
    order = [kind for kind, _ in collections.Counter(kind for _, kind in named).most_common()]
    counts = collections.Counter("{} {}".format(*pair) for pair in named)
    return {"effective_precision": " + ".join(order), "kernels": dict(counts)}


def of_profile(events: list[dict[str, Any]]) -> tuple[dict[str, Any], collections.Counter[str]]:
    """Of the events that onnxruntime's profiler wrote: ``summary`` and how many kernels each provider ran."""
    kernels: list[tuple[str, str]] = []
    providers: collections.Counter[str] = collections.Counter()
    for event in events:
        args = event.get("args", {})
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            types = [next(iter(entry)) for entry in args.get("input_type_shape", [])]
            kernels.append((args["op_name"], types[0] if types else ""))
            providers[args.get("provider", "")] += 1
    return summary(kernels), providers
