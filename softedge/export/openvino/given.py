"""OpenVINO classifiers that somebody else converted: quantized as they are, with their own input and outputs."""

from __future__ import annotations

import re
import time
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from softedge.errors import UserError
from softedge.export import model_api
from softedge.export.base import Float32, GivenModel, Predictor, Uint8
from softedge.export.candidates import Option
from softedge.export.given_ends import End, end_of, judged
from softedge.export.given_file import Interface, Tensor, interface
from softedge.export.given_notes import names
from softedge.export.given_words import own_words, preprocessing, stated
from softedge.export.onnx.speed import raced
from softedge.export.openvino.candidates import NetworkCandidates, Quantization
from softedge.export.openvino.core import core
from softedge.export.openvino.int8 import WEIGHTED
from softedge.export.openvino.network import F32, Feed, predictor, save
from softedge.export.openvino.rounding import rounded
from softedge.export.openvino.widen import HALF, element_type, widened
from softedge.export.own_normalisation import Normalisation
from softedge.records import InputSpec

_ROUNDED = ("FakeQuantize", "FakeConvert")
_NARROW = re.compile(r"[iu][1248]|nf4|f4e2m1|f8e\w+")  # element types of quantized weights; indices have 32 or 64 bits
_OWN = {"Add": "add", "Subtract": "sub", "Multiply": "mul", "Divide": "div"}  # with a constant: normalisation
_SECONDS = 2.0  # of processor time to compare one option with fp32


def read(path: Path, asked: Mapping[str, Any]) -> GivenModel:
    """See ``Format.given``."""
    network, half = _plain(path)
    beside, notes = stated(path, asked), _model_api(network)
    noted = model_api.noted(path, notes)
    asked = noted.asked(path, asked)
    known, end = _interface(network, path, asked, beside.size if beside else noted.size)
    own = {**noted.own, **own_words(path, _noted(network, "softedge", "input"))}
    spec, origin = preprocessing(path, known, asked, own, beside, _normalised(network).white())
    noted.warn(path, spec.mean, known.channels, asked)
    feed: Feed = partial(known.fed, spec=spec)
    _fits(network, path, known, spec)
    known = judged(path, known, end, predictor(network, feed=feed), asked.get("activation"))
    made = _given(network, known, spec, feed, origin, "fp16" if half else "fp32")
    entries = {"softedge.labels": _noted(network, "softedge", "labels") or "", "labels": model_api.labels(notes)}
    return replace(made, names=names(path, entries))


def _given(network: Any, known: Interface, spec: InputSpec, feed: Feed, origin: str, precision: str) -> GivenModel:
    def at_temperature(number: float) -> GivenModel:
        return _given(network, replace(known, temperature=number), spec, feed, origin, precision)

    return GivenModel(
        spec,
        _answering(network, known, feed),
        lambda calibration: FileCandidates(network, known, calibration, feed),
        known.output,
        lambda made: _answering(made, known, feed),
        known.about(origin),
        precision=precision,
        at_temperature=at_temperature if known.logits else None,
    )


class FileCandidates(NetworkCandidates):
    """Int8 candidates of a given file; they keep its input and outputs."""

    def __init__(self, network: Any, known: Interface, calibration: Uint8, feed: Feed):
        super().__init__(calibration, feed=feed)
        self.given, self.known = network, known
        self.sources: dict[tuple[int, int], Any] = {}  # with weights rounded to so many steps, on images of a hash

    @property
    def network(self) -> Any:  # type: ignore[override]
        return self.given

    def _quantized(self, model: Quantization, fast: bool = True) -> Quantization:
        try:
            return super()._quantized(model, fast)
        except Exception as error:  # nncf and openvino each raise their own
            raise UserError(f"NNCF cannot quantize this network ({_reason(error)})") from error

    def rounded(self, option: Option, images: Uint8) -> Option | None:
        """NNCF finds the same integers in layers of 8 bits: see ``OpenVinoCandidates.rounded``."""
        if (steps := option.model.steps) is None:
            return None
        if (made := (steps, hash(images.tobytes()))) not in self.sources:
            self.sources[made] = rounded(self.given, images, self.feed, steps)
        return replace(option, model=self._quantized(replace(option.model, source=self.sources[made])))

    def predict(self, option: Option, images: Uint8) -> Float32:
        return _answering(option.model.network, self.known, self.feed)(images)

    def write(self, option: Option, out: Path) -> Path:
        path, network = out / "model.xml", option.model.network.clone()
        if network.has_rt_info(["softedge", "precision"]):
            network.set_rt_info("int8", ["softedge", "precision"])
        save(network, path, half=False, small=True)
        return path

    def time_over_fp32(self, option: Option) -> float | None:
        """By the processor time of the whole process, in which nothing else runs meanwhile: OpenVINO computes in a
        thread of its own."""
        image, runs = self.feed(self.calibration[:1]), {}
        for name, network in (("fp32", self.network), ("int8", option.model.network)):
            runs[name] = partial(_one_thread(network), image)
        ratio = raced(runs, _SECONDS, time.process_time).ratio("int8", "fp32")
        return ratio.median if ratio.sure else None


def _one_thread(network: Any) -> Any:
    return core().compile_model(network, "CPU", {**F32, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1})


def _answering(model: Any, known: Interface, feed: Feed) -> Predictor:
    """Of a file or a network: its probabilities or scores (N, C)."""
    run = predictor(model, feed=feed)
    return lambda images: known.answers(run(images))


def _plain(path: Path) -> tuple[Any, bool]:
    """The network with its weights in 32 bits, and whether they are stored in 16; UserError for what cannot be
    quantized."""
    try:
        root = ET.parse(path).getroot().tag
    except (ET.ParseError, ValueError, LookupError, OSError) as error:
        raise UserError(f"{path} cannot be read as an OpenVINO file ({error}); convert the network again") from error
    if root != "net":
        raise UserError(f"{path} is an XML file, no OpenVINO network: it begins with <{root}>, not <net>")
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise UserError(f"{path} has its weights in {weights.name}, which is not beside it; put both into one folder")
    try:
        network = core().read_model(str(path))
    except Exception as error:  # openvino raises RuntimeError subclasses and its own kinds
        raise UserError(
            f"{path} and {weights.name} cannot be read by OpenVINO ({_reason(error)}); convert the network again"
        ) from error
    ops = network.get_ordered_ops()
    constants = [op for op in ops if op.get_type_name() == "Constant"]
    kinds = {op.get_type_name() for op in ops} & set(_ROUNDED)
    kinds |= {
        f"weights in {kind}"
        for op in constants
        if _NARROW.fullmatch(kind := element_type(op.output(0))) and len(op.shape) > 1
    }
    if kinds:
        raise UserError(f"{path} is quantized already ({', '.join(sorted(kinds))}); give the float file")
    half = any(element_type(op.output(0)) in HALF and len(op.shape) > 1 for op in constants)
    try:
        network = widened(network)
    except Exception as error:  # of subgraphs, say, in which other types meet
        raise UserError(f"{path} computes in f16, and not in f32 ({_reason(error)}); give the file in f32") from error
    layers = [op for op in network.get_ordered_ops() if op.get_type_name() in WEIGHTED and _has_weights(op)]
    if not layers:
        raise UserError(f"{path} has no convolution or linear layer with weights, so there is nothing to quantize")
    if kinds := {element_type(op.output(0)) for op in layers} - {"f32"}:
        raise UserError(f"{path} computes in {', '.join(sorted(kinds))}; give the file in f32 or f16")
    return network, half


def _has_weights(op: Any) -> bool:
    """Whether the second operand is a constant, seen through what only moves or scales it."""
    node = op.input_value(1).get_node()
    while node.get_type_name() in ("Reshape", "Transpose", "Convert", "Multiply", "Subtract", "Unsqueeze"):
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")


def _interface(network: Any, path: Path, asked: Mapping[str, Any], usual: int | None) -> tuple[Interface, End[Any]]:
    end = end_of(network.outputs[0].get_node().input_value(0), _made) if network.outputs else End[Any]("", None)
    inputs, outputs = ([_tensor(port) for port in ports] for ports in (network.inputs, network.outputs))
    more = asked.get("size"), asked.get("activation"), usual, bool(asked.get("bgr"))
    return interface(path, inputs, outputs, end.kind, *more), end


def _made(value: Any) -> tuple[str, Any]:
    node = value.get_node()
    return str(node.get_type_name()), node.input_value(0) if node.get_input_size() else None


def _tensor(port: Any) -> Tensor:
    shape, kind = port.get_partial_shape(), port.get_element_type().get_type_name()
    dims = () if shape.rank.is_dynamic else tuple(0 if d.is_dynamic else d.get_length() for d in shape)
    name = next(iter(port.get_names()), port.get_node().get_friendly_name())
    return Tensor(name, dims, {"f32": "float", "u8": "uint8"}.get(kind, kind))


def _fits(network: Any, path: Path, known: Interface, spec: InputSpec) -> None:
    """UserError where a network of any size cannot take the size that was asked for."""
    image = known.fed(np.zeros((1, spec.size, spec.size, 3), np.uint8), spec)
    try:
        network.clone().reshape({0: list(image.shape)})
    except Exception as error:
        raise UserError(f"{path} cannot take images of {spec.size} pixels ({_reason(error)})") from error


def _noted(network: Any, *place: str) -> str | None:
    """An entry of the file's own rt_info."""
    return str(network.get_rt_info(list(place)).astype(str)) if network.has_rt_info(list(place)) else None


def _normalised(network: Any) -> Normalisation:
    """What the network does with the image's values before its first convolution."""
    own, value = Normalisation(), network.inputs[0]
    while len(readers := value.get_target_inputs()) == 1:
        node = next(iter(readers)).get_node()
        kind = node.get_type_name()
        if kind in ("Convolution", "GroupConvolution"):
            return own
        if kind in _OWN:
            constant = node.input_value(1).get_node()
            if constant.get_type_name() != "Constant" or (data := constant.get_data()).size not in (1, 3):
                break
            own = own.then(_OWN[kind], data)
        elif kind not in ("Convert", "Transpose", "Pad"):
            break
        value = node.output(0)
    return Normalisation()


def _model_api(network: Any) -> dict[str, str]:
    """The Model API's notes by its own keys."""
    found = {key: _noted(network, model_api.ENTRY, key) for key in model_api.KEYS}
    return {key: text for key, text in found.items() if text is not None}


def _reason(error: Exception) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1][:160]
