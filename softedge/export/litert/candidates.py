"""The int8 candidates of a LiteRT file: ranges and layers in float, made by the tools of LiteRT's own environment."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from softedge.export.base import Float32, Predictor, Uint8
from softedge.export.calibration import spread
from softedge.export.candidates import Candidates, Option
from softedge.export.deployed import Deployed
from softedge.export.given_ends import End, end_of
from softedge.export.given_file import GREY, Interface
from softedge.export.grey_levels import on_grey_levels
from softedge.export.litert.environment import work
from softedge.export.litert.rounding import rounded
from softedge.export.onnx.ranges import Method, Statistics
from softedge.export.onnx.speed import Race
from softedge.export.quiet import quiet
from softedge.export.rounding import IMAGES, LARGEST
from softedge.files import temporary_folder, write_json
from softedge.records import Artifact, InputSpec
from softedge.run import atomic_path

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTED = {
    "CONV_2D": "conv",
    "DEPTHWISE_CONV_2D": "conv",
    "TRANSPOSE_CONV": "conv",
    "FULLY_CONNECTED": "linear",
    "BATCH_MATMUL": "linear",
}
ENDS = {"softmax": "softmax", "logistic": "sigmoid"}  # operators that make scores of logits
INTEGERS_ALONE = "int8-strict"
SLOW = ("HARD_SWISH",)  # whose integers XNNPACK leaves to LiteRT's own kernels, a layer that waits for others
METHODS: tuple[Method, ...] = ("mean", "minmax", "percentile", "mse")
_FLOAT = ("layer", "two layers")
_SECONDS = 2.0  # of processor time to compare one option with fp32


@dataclass(frozen=True)
class Quantization:
    """What the worker makes of the float file: see ``worker.quantize``.

    in_float: layers, by their output.  scheme: as the precisions of the format are named.  source: the float file,
    where its weights are not the given ones.
    """

    ranges: Mapping[str, tuple[float, float]]
    in_float: tuple[str, ...] = ()
    scheme: str = "int8"
    source: Path | None = None

    @property
    def in_integers(self) -> bool:
        """Whether the weights are, each output channel's with a scale of its own."""
        return self.scheme in ("int8", INTEGERS_ALONE, "w8a16", "w8a32")


@dataclass(frozen=True)
class File:
    """A float file.  layers: outputs of the operators with weights, in order of computation.  floats: those of
    operators that every option computes in float (``floats_of``).  before: those of what prepares the image.
    held: keeps a folder of its own, where the file lies in one."""

    path: Path
    known: Interface
    spec: InputSpec
    layers: tuple[str, ...]
    floats: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    held: object = None

    @classmethod
    def of(cls, path: Path, about: Mapping[str, Any], known: Interface, spec: InputSpec) -> Self:
        """about: what ``described`` says of the file."""
        layers, outputs = layers_of(about), [op["outputs"][0] for op in about["operators"]]
        before = outputs[: outputs.index(layers[0])] if layers else ()
        return cls(path, known, spec, layers, floats_of(about), tuple(before))

    def feed(self) -> dict[str, Any]:
        """For the worker: see ``worker._feeder``."""
        channels = {"shift": self.spec.mean, "scale": self.spec.std} if self.known.kind == "float" else {}
        values = {name: [255 * v for v in each[: self.known.channels]] for name, each in channels.items()}
        grey = GREY if self.known.channels == 1 else ()
        return {"planes": self.known.planes, "grey": grey, "bgr": self.known.bgr, **values}

    def answering(self, path: Path) -> Predictor:
        """Probabilities or scores (N, C) of this file, or of one made of it."""
        return lambda images: self.known.answers(run(path, images, self.feed()))


def run(path: Path, images: Uint8, feed: Mapping[str, Any] | None = None) -> Float32:
    """What a file answers, (N, outputs), integers as the values that they stand for.  feed: see ``worker._feeder``."""
    with temporary_folder("litert") as folder:
        given, answers = folder / "images.npy", folder / "outputs.npy"
        np.save(given, images)
        more = []
        if feed is not None:
            more = [folder / "feed.json"]
            write_json(more[0], feed)
        work("run", path, given, answers, *more)
        outputs: Float32 = np.load(answers)
        return outputs


def described(path: Path) -> dict[str, Any]:
    """What ``worker.read`` says of a file."""
    with temporary_folder("litert") as folder:
        work("read", path, folder / "about.json")
        about: dict[str, Any] = json.loads((folder / "about.json").read_text())
        return about


def layers_of(about: Mapping[str, Any]) -> tuple[str, ...]:
    """The outputs of the operators with weights, in order of computation."""
    return tuple(op["outputs"][0] for op in about["operators"] if op["kind"] in WEIGHTED and op["weights"])


def floats_of(about: Mapping[str, Any]) -> tuple[str, ...]:
    """The outputs of the operators that stay in float: what makes scores of logits, and hard-swish.

    With hard-swish in integers a MobileNetV3-Small took 1.7 times as long as in fp32, in float 0.6; one rounding less.
    """
    ends = [end.value for end in [last_of(about)] if end.kind in ENDS]
    return (*(op["outputs"][0] for op in about["operators"] if op["kind"] in SLOW), *ends)


def last_of(about: Mapping[str, Any]) -> End[str]:
    """What the output is made by, and the name of its own output."""
    makers = {name: (op["kind"], op.get("source")) for op in about["operators"] for name in op["outputs"]}
    return end_of(about["outputs"][0]["name"], lambda tensor: makers.get(tensor, ("", None)))


def converted(network: Deployed, path: Path) -> None:
    """Write a network as a float file."""
    import torch

    size = network.spec.size
    convert(network.folded(), torch.zeros((1, size, size, 3), dtype=torch.uint8), path)


def convert(module: nn.Module, example: Tensor, path: Path) -> None:
    """Write a module as a float file.  example: what it takes."""
    import torch

    with temporary_folder("litert") as folder:
        program = folder / "program.pt2"
        with quiet(), torch.no_grad():
            torch.export.save(torch.export.export(module, (example,)), program)
        work("convert", program, path)


class FileCandidates(Candidates):
    """Ranges by ``METHODS``, without outliers among the images, too; and by tier with the first layers in float.

    Weights are rounded for each layer's output in the float file (``rounding.rounded``): the quantizer's own GPTQ is
    for linear layers.  file: None where a subclass makes it.  calibration: uint8 (N, S, S, 3).
    """

    def __init__(self, file: File | None, calibration: Uint8):
        self.given, self.calibration = file, calibration
        self.folder = tempfile.TemporaryDirectory(prefix="softedge-")
        self.made: tuple[Quantization, Path] | None = None
        self.on_grid: dict[int, Path | None] = {}  # by a hash of the images

    @cached_property
    def file(self) -> File:
        assert self.given is not None
        return self.given

    def _on_grid(self, images: Uint8) -> Path | None:
        """The float file with weights rounded on these images, made once; None where none can be rounded."""
        if (made := hash(images.tobytes())) not in self.on_grid:
            path, known = Path(self.folder.name) / f"rounded{len(self.on_grid)}.tflite", self.file.known
            inputs = known.fed(images[spread(len(images), IMAGES)], self.file.spec)
            self.on_grid[made] = path if rounded(self.file.path, inputs, path) else None
        return self.on_grid[made]

    @cached_property
    def statistics(self) -> Statistics:
        return self._observed(self.calibration)

    def _observed(self, images: Uint8) -> Statistics:
        with temporary_folder("litert") as folder:
            np.save(folder / "images.npy", images)
            write_json(folder / "feed.json", self.file.feed())
            names = ("images.npy", "feed.json", "statistics.npz")
            work("observe", self.file.path, *(folder / name for name in names))
            with np.load(folder / "statistics.npz") as found:
                tensors = tuple(str(name) for name in found["names"])
                everywhere = np.tile([-np.inf, np.inf], (len(tensors), 1))
                return Statistics(tensors, found["lows"], found["highs"], found["counts"], everywhere)

    def comparison(self) -> Uint8:
        return self.calibration

    def calibrations(self) -> Iterator[Option]:
        inliers = self.statistics.typical()
        sets = {"": self.statistics}
        if not inliers.all():
            sets[" without outliers"] = self._observed(self.calibration[inliers])
        for images, statistics in sets.items():
            for method in METHODS:
                ranges, what = statistics.ranges(method), f"calibration by {method}{images}"
                yield Option(what, Quantization(ranges))
                for count, floats in enumerate(_FLOAT, start=1):
                    yield Option(
                        f"{what}, first {floats} in float", Quantization(ranges, self.file.layers[:count]), count
                    )

    def predict(self, option: Option, images: Uint8) -> Float32:
        return self.file.answering(self._made(option.model))(images)

    def write(self, option: Option, out: Path) -> Path:
        path = out / "model.tflite"
        with atomic_path(path) as temporary:
            shutil.copyfile(self._made(option.model), temporary)
        return path

    def _made(self, plan: Quantization) -> Path:
        """The file of a plan; the last one is kept: it is asked for its answers, its size and its time."""
        if self.made is None or self.made[0] is not plan:
            folder, file = Path(self.folder.name), self.file
            path, scopes = folder / "model.tflite", [*plan.in_float, *file.floats]
            if set(file.layers[:1]) & set(plan.in_float):
                scopes += file.before  # else the image has been rounded already
            values = {
                "ranges": plan.ranges,
                "float": [f"^{re.escape(name)};$" for name in scopes],
                "scheme": plan.scheme,
            }
            write_json(folder / "plan.json", values)
            work("quantize", plan.source or self.file.path, folder / "plan.json", path)
            self.made = plan, path
        return self.made[1]

    def rounded(self, option: Option, images: Uint8) -> Option | None:
        """The quantizer finds the same integers in the float file with rounded weights."""
        if not option.model.in_integers or (source := self._on_grid(images)) is None:
            return None
        return replace(option, model=replace(option.model, source=source))

    def layers(self) -> Sequence[str]:
        return self.file.layers

    def float_layers(self, option: Option) -> frozenset[str]:
        return frozenset(option.model.in_float)

    def with_float(self, option: Option, layers: Sequence[str]) -> Option | None:
        model = option.model
        return replace(option, model=replace(model, in_float=tuple(dict.fromkeys((*model.in_float, *layers)))))

    def weights_only(self) -> Option | None:
        return Option("8-bit weights, float arithmetic", Quantization({}, scheme="w8a32"))

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


class NetworkCandidates(FileCandidates):
    """Of a PyTorch network: its float file is made first, and weights can be rounded for each layer's output.

    like: a file whose first layers are kept in float where they are there.
    """

    def __init__(self, deployed: Deployed, calibration: Uint8, like: Artifact | None = None):
        super().__init__(None, calibration)
        self.deployed, self.like = on_grey_levels(deployed), like
        self.other: tuple[Deployed, Path, tuple[str, ...]] | None = None  # with its float file and that file's layers

    @cached_property
    def file(self) -> File:
        path = Path(self.folder.name) / "float.tflite"
        self._convert(self.deployed, path)
        known = Interface(self.deployed.spec.size, False, "uint8", self.deployed.output, logits=False)
        return File.of(path, described(path), known, self.deployed.spec)

    def _convert(self, network: Deployed, path: Path) -> None:
        converted(network, path)

    def calibrations(self) -> Iterator[Option]:
        tier = None
        if self.like is not None:
            kinds = [op["weights"] for op in described(self.like.path)["operators"] if op["kind"] in WEIGHTED]
            tier = sum(kind == "float32" for kind in kinds[: len(_FLOAT)])
        for option in super().calibrations():
            if tier is None or option.tier == tier:
                model: Quantization = option.model
                yield replace(option, model=replace(model, ranges={**model.ranges, **self.of_all_images}))

    @cached_property
    def of_all_images(self) -> dict[str, tuple[float, float]]:
        """The ranges of normalised images, not only of those that were seen: tensors that hold nothing else.

        Where all channels are normalised alike, each of the 256 grey levels then is an integer (``on_grey_levels``).
        """
        seen = self.normalised(self.calibration).reshape(len(self.calibration), -1)
        found = self.statistics
        same = np.isclose(found.lows, seen.min(1)[:, None], atol=1e-3).all(0)
        same &= np.isclose(found.highs, seen.max(1)[:, None], atol=1e-3).all(0)
        ends = float(self.normalised(0).min()), float(self.normalised(255).max())
        return {name: ends for name, chosen in zip(found.names, same) if chosen}

    def normalised(self, levels: Uint8 | int) -> Float32:
        """Pixel values (..., 3), or one for all channels, as the network sees them."""
        spec = self.deployed.spec
        mean, std = (np.asarray(channels, np.float32) * np.float32(255) for channels in (spec.mean, spec.std))
        values: Float32 = (np.asarray(levels, np.float32) - mean) / std
        return values

    def of(self, precision: str) -> Option:
        """The only file of a precision that offers no choice: the widest ranges, as far as it rounds activations."""
        ranges = self.statistics.ranges("minmax") if precision == "w8a16" else {}
        return Option(precision, Quantization(ranges, scheme=precision))

    def largest_weight(self, option: Option) -> int | None:
        """Symmetric, with one scale for each output channel."""
        return LARGEST if option.model.in_integers else None

    def reweighted(self, option: Option, network: Deployed, ranges: Mapping[str, tuple[float, float]]) -> Option | None:
        """None where the converter makes other layers of ``network``."""
        if self.other is None or self.other[0] is not network:
            path = Path(tempfile.mkdtemp(dir=self.folder.name)) / "other.tflite"  # earlier options keep their own
            self._convert(on_grey_levels(network), path)
            self.other = network, path, layers_of(described(path))
        _, path, layers = self.other
        if layers != self.file.layers:
            return None
        model: Quantization = option.model
        return replace(option, model=replace(model, source=path, ranges={**model.ranges, **ranges}))
