"""LiteRT classifiers that somebody else converted: quantized by the tools of LiteRT's own environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from softedge.errors import UserError
from softedge.export import contract
from softedge.export.base import GivenModel
from softedge.export.given_ends import End, judged
from softedge.export.given_file import Tensor, interface
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

_INTEGERS = ("QUANTIZE", "DEQUANTIZE")


def read(path: Path, asked: Mapping[str, Any]) -> GivenModel:
    """See ``Format.given``."""
    about = described(path)
    operators, layers = about["operators"], layers_of(about)
    if not layers:
        raise UserError(f"{path} has no convolution or linear layer with weights, so there is nothing to quantize")
    integers = {op["kind"] for op in operators} & set(_INTEGERS)
    kinds = {op["weights"] for op in operators if op["kind"] in WEIGHTED and op["weights"]} - {"float32"}
    if integers or kinds:
        what = ", ".join([*sorted(integers), *(f"weights in {kind}" for kind in sorted(kinds))])
        raise UserError(f"{path} is quantized already, or stored in 16 bits ({what}); give the float32 file")
    inputs, outputs = ([_tensor(one) for one in about[name]] for name in ("inputs", "outputs"))
    end = last_of(about) if outputs else End("", "")
    end = replace(end, kind=ENDS.get(end.kind, end.kind))
    if any(0 in tensor.dims[1:] for tensor in inputs):
        raise UserError(f"{path} takes images of any size, which cannot be calibrated; convert it again for one size")
    known = interface(path, inputs, outputs, end.kind, asked.get("size"), asked.get("activation"))
    spec, origin = preprocessing(path, known, asked, _contract(path), stated(path, asked))
    file = File.of(path, about, known, spec)
    known = judged(path, known, end, lambda images: run(path, images, file.feed()), asked.get("activation"))
    file = replace(file, known=known)
    return GivenModel(
        spec,
        file.answering(path),
        lambda calibration: FileCandidates(file, calibration),
        known.output,
        file.answering,
        known.about(origin),
    )


def _contract(path: Path) -> dict[str, Any]:
    """The preprocessing in the contract beside a file that softedge wrote."""
    if not (path.parent / contract.FILE).is_file():
        return {}
    artifact = contract.read(path.parent)
    return artifact.spec.to_dict() if artifact.path.name == path.name else {}


def _tensor(one: Mapping[str, Any]) -> Tensor:
    return Tensor(one["name"], tuple(one["dims"]), {"float32": "float"}.get(one["kind"], one["kind"]))
