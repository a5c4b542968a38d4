"""LiteRT classifiers that somebody else converted: quantized by the tools of LiteRT's own environment."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from softedge.errors import UserError
from softedge.export import contract
from softedge.export.base import Float32, GivenModel, Predictor, Uint8
from softedge.export.candidates import Candidates, Option
from softedge.export.given_file import Interface, Tensor, interface, preprocessing
from softedge.export.litert.environment import work
from softedge.export.onnx.ranges import typical
from softedge.export.onnx.speed import Race
from softedge.files import temporary_folder, write_json
from softedge.records import InputSpec
from softedge.run import atomic_path

WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL", "TRANSPOSE_CONV")
_INTEGERS = ("QUANTIZE", "DEQUANTIZE")
_SECONDS = 2.0  # of processor time to compare one option with fp32


@dataclass(frozen=True)
class Quantization:
    """What the worker makes of the file: see ``worker.quantize``.  in_float: layers, by their output."""

    ranges: Mapping[str, tuple[float, float]]
    in_float: tuple[str, ...] = ()
    weights_only: bool = False


@dataclass(frozen=True)
class File:
    """The given file.  layers: outputs of the operators with weights, in order of computation.  last: that of the last
    operator, where it makes scores of logits."""

    path: Path
    known: Interface
    spec: InputSpec
    layers: tuple[str, ...]
    last: tuple[str, ...]

    def feed(self) -> dict[str, Any]:
        """For the worker: see ``worker._feeder``."""
        floats = self.known.kind == "float"
        channels = {"shift": self.spec.mean, "scale": self.spec.std} if floats else {}
        return {"planes": self.known.planes, **{name: [255 * v for v in values] for name, values in channels.items()}}

    def answering(self, path: Path) -> Predictor:
        """Probabilities or scores (N, C) of this file, or of one made of it."""

        def predict(images: Uint8) -> Float32:
            with temporary_folder("litert") as folder:
                np.save(folder / "images.npy", images)
                write_json(folder / "feed.json", self.feed())
                work("run", path, folder / "images.npy", folder / "outputs.npy", folder / "feed.json")
                return self.known.answers(np.load(folder / "outputs.npy"))

        return predict


def read(path: Path, asked: Mapping[str, Any]) -> GivenModel:
    """See ``Format.given``."""
    with temporary_folder("litert") as folder:
        work("read", path, folder / "about.json")
        about = json.loads((folder / "about.json").read_text())
    operators = about["operators"]
    layers = tuple(op["outputs"][0] for op in operators if op["kind"] in WEIGHTED and op["weights"])
    if not layers:
        raise UserError(f"{path} has no convolution or linear layer with weights, so there is nothing to quantize")
    integers = {op["kind"] for op in operators} & set(_INTEGERS)
    kinds = {op["weights"] for op in operators if op["kind"] in WEIGHTED and op["weights"]} - {"float32"}
    if integers or kinds:
        what = ", ".join([*sorted(integers), *(f"weights in {kind}" for kind in sorted(kinds))])
        raise UserError(f"{path} is quantized already, or stored in 16 bits ({what}); give the float32 file")
    inputs, outputs = ([_tensor(one) for one in about[name]] for name in ("inputs", "outputs"))
    makers = {name: op["kind"] for op in operators for name in op["outputs"]}
    last = makers.get(outputs[0].name, "") if outputs else ""
    ends_in = {"SOFTMAX": "softmax", "LOGISTIC": "sigmoid"}.get(last, last)
    if any(0 in tensor.dims[1:] for tensor in inputs):
        raise UserError(f"{path} takes images of any size, which cannot be calibrated; convert it again for one size")
    known = interface(path, inputs, outputs, ends_in, asked.get("size"))
    spec = preprocessing(path, known, asked, _contract(path))
    file = File(path, known, spec, layers, (outputs[0].name,) if not known.logits else ())
    return GivenModel(
        spec, file.answering(path), lambda calibration: FileCandidates(file, calibration), known.output, file.answering
    )


def _contract(path: Path) -> dict[str, Any]:
    """The preprocessing in the contract beside a file that softedge wrote."""
    if not (path.parent / contract.FILE).is_file():
        return {}
    artifact = contract.read(path.parent)
    return artifact.spec.to_dict() if artifact.path.name == path.name else {}


def _tensor(one: Mapping[str, Any]) -> Tensor:
    return Tensor(one["name"], tuple(one["dims"]), {"float32": "float"}.get(one["kind"], one["kind"]))


class FileCandidates(Candidates):
    """Ranges by the mean of the images' extremes and by the widest; both without outliers, too, and by tier with the
    first layer in float.  The weights are rounded to the nearest step: the quantizer's GPTQ is for linear layers alone.

    calibration: uint8 (N, S, S, 3).
    """

    def __init__(self, file: File, calibration: Uint8):
        self.file, self.calibration = file, calibration
        self.folder = tempfile.TemporaryDirectory(prefix="softedge-")
        self.made: tuple[Quantization, Path] | None = None

    @cached_property
    def extremes(self) -> tuple[Sequence[str], np.ndarray, np.ndarray]:
        """Names of the tensors, and the least and largest value on each image, (N, T)."""
        with temporary_folder("litert") as folder:
            np.save(folder / "images.npy", self.calibration)
            write_json(folder / "feed.json", self.file.feed())
            names = ("images.npy", "feed.json", "extremes.npz")
            work("observe", self.file.path, *(folder / name for name in names))
            with np.load(folder / "extremes.npz") as stored:
                return [str(name) for name in stored["names"]], stored["lows"], stored["highs"]

    def comparison(self) -> Uint8:
        return self.calibration

    def calibrations(self) -> Iterator[Option]:
        names, lows, highs = self.extremes
        inliers = typical(np.maximum(np.abs(lows), np.abs(highs)))
        sets = {"": np.ones_like(inliers)} | ({} if inliers.all() else {" without outliers": inliers})
        for images, chosen in sets.items():
            low, high = lows[chosen], highs[chosen]
            by = {"mean": (low.mean(0), high.mean(0)), "minmax": (low.min(0), high.max(0))}
            for method, (lowest, highest) in by.items():
                ranges = {name: (float(a), float(b)) for name, a, b in zip(names, lowest, highest)}
                what = f"calibration by {method}{images}"
                yield Option(what, Quantization(ranges))
                yield Option(f"{what}, first layer in float", Quantization(ranges, self.file.layers[:1]), 1)

    def predict(self, option: Option, images: Uint8) -> Float32:
        return self.file.answering(self._made(option.model))(images)

    def write(self, option: Option, out: Path) -> Path:
        path = out / "model.tflite"
        with atomic_path(path) as temporary:
            shutil.copyfile(self._made(option.model), temporary)
        return path

    def _made(self, chosen: Quantization) -> Path:
        """The file of a quantization; the last one is kept: it is asked for its answers, its size and its time."""
        if self.made is None or self.made[0] is not chosen:
            folder = Path(self.folder.name)
            path, scopes = folder / "model.tflite", [*chosen.in_float, *self.file.last]
            values = {
                "ranges": chosen.ranges,
                "float": [f"^{re.escape(name)};$" for name in scopes],
                "weights_only": chosen.weights_only,
            }
            write_json(folder / "plan.json", values)
            work("quantize", self.file.path, folder / "plan.json", path)
            self.made = chosen, path
        return self.made[1]

    def layers(self) -> Sequence[str]:
        return self.file.layers

    def float_layers(self, option: Option) -> frozenset[str]:
        return frozenset(option.model.in_float)

    def with_float(self, option: Option, layers: Sequence[str]) -> Option | None:
        model = option.model
        return replace(option, model=replace(model, in_float=tuple(dict.fromkeys((*model.in_float, *layers)))))

    def weights_only(self) -> Option:
        return Option("8-bit weights, float arithmetic", Quantization({}, weights_only=True))

    def time_over_fp32(self, option: Option) -> float | None:
        made = self._made(option.model)
        with temporary_folder("litert") as folder:
            np.save(folder / "images.npy", self.calibration[:1])
            write_json(folder / "feed.json", self.file.feed())
            given, times = [folder / "images.npy", folder / "feed.json"], folder / "times.json"
            work("race", self.file.path, made, *given, _SECONDS, times)
            samples = json.loads(times.read_text())
        ratio = Race({name: np.maximum(values, 1e-6) for name, values in samples.items()}).ratio("int8", "fp32")
        return ratio.median if ratio.sure else None
