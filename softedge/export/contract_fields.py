"""Whether what a contract.json says can be true: every field that an app acts upon, and the fields against each other.

The hashes say that the model is the one that was exported; nothing but this says that the contract still is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_args

from numpy.typing import NDArray

from softedge.export.base import open_format
from softedge.records import LABELLED, InputSpec, Output

_INPUT = {"dtype": "uint8", "layout": "NHWC", "color": "RGB"}
_INTEGERS = ("uint8", "int8")  # of outputs that hold integers
_LARGEST = 1.0  # tolerance: any answer would pass beyond it
_SHA256 = re.compile(r"[0-9a-f]{64}")


def preprocessing_of(values: Mapping[str, Any]) -> InputSpec:
    """The preprocessing of a classifier's contract; ValueError, KeyError or TypeError for a field that is wrong.

    A precision or a format that is unknown is a UserError, which names those that are known.
    """
    spec = check_common(values)
    bits = open_format(values["target"]).bits(values["precision"])
    wider = values["precision"].endswith("-search") and values.get("bits") == {"weights": 8, "activations": 32}
    for name, number in {} if wider else values.get("bits", {}).items():  # the search left the weights alone in 8 bits
        _same(f"bits.{name}", number, getattr(bits, name, None))
    _same("input.shape", values["input"]["shape"], ["N", spec.size, spec.size, 3])
    output = values["output"]
    _one_of("output.name", output["name"], get_args(Output))
    batch, count = output["shape"]
    if batch != "N" or not _is_number(count, whole=True) or count < 1:
        raise ValueError(f"output.shape is {output['shape']}")
    if "scale" in output or "zero_point" in output:
        _one_of("output.dtype", output["dtype"], _INTEGERS)
        if not _is_number(output["scale"]) or output["scale"] <= 0 or not _is_number(output["zero_point"], whole=True):
            raise ValueError(f"output.scale is {output['scale']}, output.zero_point {output['zero_point']}")
    else:
        _same("output.dtype", output["dtype"], "float32")
    if output["name"] in LABELLED and len(values["labels"]) != count:
        raise ValueError(f"{len(values['labels'])} labels for {count} outputs")
    replay = values["tolerance"]["replay"]
    if not _is_number(replay) or not 0 < replay <= _LARGEST:
        raise ValueError(f"tolerance.replay is {replay}")
    return spec


def check_shapes(values: Mapping[str, Any], images: NDArray[Any], *outputs: NDArray[Any]) -> None:
    """ValueError where golden arrays are not what the contract says of input and output."""
    shape = (len(images), *values["input"]["shape"][1:])
    if images.dtype != "uint8" or images.shape != shape:
        raise ValueError(f"the golden images are {images.dtype} {images.shape}, the input is uint8 {shape}")
    shape = (len(images), values["output"]["shape"][1])
    for output in outputs:
        if output.dtype != "float32" or output.shape != shape:
            raise ValueError(f"golden outputs are {output.dtype} {output.shape}, the output is float32 {shape}")


def check_common(values: Mapping[str, Any]) -> InputSpec:
    """What the contracts of classifiers and of detectors share; as ``check``."""
    files = values.get("files", [values["model"]])
    for name in (values["model"], *files):
        if not isinstance(name, str) or not name or name in (".", "..") or "/" in name or "\\" in name:
            raise ValueError(f"model or files names {name!r}, which is not a file beside it")
    if not isinstance(files, list) or values["model"] not in files:
        raise ValueError(f"files is {files!r} without the model {values['model']}")
    if not isinstance(values["sha256"], str) or not _SHA256.fullmatch(values["sha256"]):
        raise ValueError(f"sha256 is {values['sha256']!r}, not 64 hexadecimal digits")
    for name, expected in _INPUT.items():
        _same(f"input.{name}", values["input"][name], expected)
    labels = values["labels"]
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"labels is {str(labels)[:60]}, not a list of names")
    return InputSpec.from_dict(values["preprocessing"])


def _same(name: str, value: Any, expected: Any) -> None:
    if value != expected or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}, softedge writes {expected!r}")


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} is {value!r}; known: {', '.join(known)}")


def _is_number(value: Any, whole: bool = False) -> bool:
    return isinstance(value, int if whole else int | float) and not isinstance(value, bool)
