"""LiteRT classifiers that somebody else converted: quantized by the tools of LiteRT's own environment."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from softedge.errors import UserError
from softedge.export import contract
from softedge.export.base import GivenModel
from softedge.export.given_ends import End, judged
from softedge.export.given_file import Tensor, interface
from softedge.export.given_notes import names
from softedge.export.given_words import preprocessing, stated
from softedge.export.litert.candidates import (
    ENDS,
    WEIGHTED,
    File,
    FileCandidates,
    described,
    last_of,
    layers_of,
    run,
)
from softedge.export.litert.environment import work
from softedge.export.own_normalisation import Normalisation
from softedge.files import temporary_folder

WORKER = Path(__file__).with_name("given_worker.py")
_PASSED = ("CAST", "TRANSPOSE", "PAD", "PADV2", "MIRROR_PAD")
_ARITHMETIC = ("ADD", "SUB", "MUL", "DIV")
_INTEGERS = ("QUANTIZE", "DEQUANTIZE")


def read(path: Path, asked: Mapping[str, Any]) -> GivenModel:
    """See ``Format.given``."""
    about, source, held = described(path), path, None
    if half := any(op["kind"] == "DEQUANTIZE" and op.get("input") == "float16" for op in about["operators"]):
        held = tempfile.TemporaryDirectory(prefix="softedge-")
        source = Path(held.name) / path.name
        work("widen", path, source, script=WORKER)
        about = described(source)
    operators, layers = about["operators"], layers_of(about)
    if not layers:
        raise UserError(f"{path} has no convolution or linear layer with weights, so there is nothing to quantize")
    integers = {op["kind"] for op in operators} & set(_INTEGERS)
    kinds = {op["weights"] for op in operators if op["kind"] in WEIGHTED and op["weights"]} - {"float32"}
    if integers or kinds:
        what = ", ".join([*sorted(integers), *(f"weights in {kind}" for kind in sorted(kinds))])
        raise UserError(f"{path} is quantized already, or computes in 16 bits ({what}); give the float file")
    inputs, outputs = ([_tensor(one) for one in about[name]] for name in ("inputs", "outputs"))
    end = last_of(about) if outputs else End("", "")
    end = replace(end, kind=ENDS.get(end.kind, end.kind))
    if any(0 in tensor.dims[1:] for tensor in inputs):
        raise UserError(f"{path} takes images of any size, which cannot be calibrated; convert it again for one size")
    more = asked.get("size"), asked.get("activation"), None, bool(asked.get("bgr"))
    known = interface(path, inputs, outputs, end.kind, *more)
    if (own := _contract(path)).pop("output", "") == "features":
        raise UserError(f"{path} returns features ({contract.FILE} says so); give a file with its classifier")
    white = _normalised(source, about).white()
    spec, origin = preprocessing(path, known, asked, own, stated(path, asked), white)
    file = replace(File.of(source, about, known, spec), held=held)
    known = judged(path, known, end, lambda images: run(source, images, file.feed()), asked.get("activation"))
    made = _given(replace(file, known=known), origin, "fp16" if half else "fp32")
    return replace(made, names=names(path, _labels(path)))


def _given(file: File, origin: str, precision: str) -> GivenModel:
    known = file.known

    def at_temperature(number: float) -> GivenModel:
        return _given(replace(file, known=replace(known, temperature=number)), origin, precision)

    return GivenModel(
        file.spec,
        file.answering(file.path),
        lambda calibration: FileCandidates(file, calibration),
        known.output,
        file.answering,
        known.about(origin),
        precision=precision,
        at_temperature=at_temperature if known.logits else None,
    )


def _contract(path: Path) -> dict[str, Any]:
    """The preprocessing, and ``output``, in the contract beside a file that softedge wrote."""
    if not (path.parent / contract.FILE).is_file():
        return {}
    artifact = contract.read(path.parent)
    return {**artifact.spec.to_dict(), "output": artifact.output} if artifact.path.name == path.name else {}


def _labels(path: Path) -> dict[str, str]:
    """Class names, one a line, in the only .txt that LiteRT's metadata put behind the file, as into a zip archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith(".txt"))
            return {"labels": archive.read(name).decode().strip() + "\n"}
    except (OSError, ValueError, zipfile.BadZipFile, RuntimeError):
        return {}


def _normalised(path: Path, about: Mapping[str, Any]) -> Normalisation:
    """What the network does with the image's values before its first convolution."""
    steps, value = [], about["inputs"][0]["name"]
    while len(readers := [op for op in about["operators"] if op.get("source") == value]) == 1:
        value = readers[0]["outputs"][0]
        if readers[0]["kind"] in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            break
        if readers[0]["kind"] not in (*_PASSED, *_ARITHMETIC):
            return Normalisation()
        steps.append((readers[0]["kind"].lower(), value))
    own, steps = Normalisation(), [(kind, made) for kind, made in steps if kind.upper() in _ARITHMETIC]
    constants = _constants(path) if steps else {}
    for kind, made in steps:
        if made not in constants:
            return Normalisation()
        own = own.then(kind, np.array(constants[made]))
    return own


def _constants(path: Path) -> dict[str, list[float]]:
    """What arithmetic makes -> its second operand: see ``given_worker.constants``."""
    with temporary_folder("litert") as folder:
        work("constants", path, folder / "constants.json", script=WORKER)
        constants: dict[str, list[float]] = json.loads((folder / "constants.json").read_text())
        return constants


def _tensor(one: Mapping[str, Any]) -> Tensor:
    return Tensor(one["name"], tuple(one["dims"]), {"float32": "float"}.get(one["kind"], one["kind"]))
