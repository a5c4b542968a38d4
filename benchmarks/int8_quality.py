"""Accuracy, agreement, noise and size of int8 files: the steps of softedge quantize beside the defaults of other tools.

    python benchmarks/int8_quality.py --data .data/cifar10 --classifier runs/x/probe/classifier.safetensors --out x.json
    python benchmarks/int8_quality.py --data .data/cifar10 --train mobilenetv3_small_100 --epochs 14 --out small.json
    python benchmarks/int8_quality.py --weights net.pth --backbone tf_efficientnet_lite0 --images photos/ --out x.json

``--weights``: a network from elsewhere, and a folder of photos without labels; half of them calibrate and choose, the
others are asked.  ``--exact`` runs ONNX files without fusing, so that x86 without VNNI does not saturate: the noise of
the rounding alone.

One thread, the same images for all: calibration and selection from ``train``, the rest from ``test``.
``--train`` first trains a classifier from scratch with labels (AdamW, one cycle, flips and shifts), for a network whose
accuracy means something. ``--parts`` measures some of tools, onnx, openvino, coreml; each adds to the file.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, quant_pre_process, quantize_static

from softedge import backbones, config
from softedge.data.decoding import decode, prepare
from softedge.eval.measures import compare
from softedge.export.base import open_format
from softedge.export.deployed import Deployed
from softedge.export.nearest import Judge
from softedge.export.onnx import graph as onnx_graph
from softedge.export.onnx.ranges import run, session
from softedge.export.quiet import quiet
from softedge.quantize.equalization import imbalance
from softedge.quantize.gates import quality
from softedge.quantize.search import Problem, search
from softedge.quantize.selection import CHOSEN, broken, doubts
from softedge.quantize.steps import Step
from softedge.records import InputSpec
from softedge.run import environment, sha256, write_json

PARTS = ["tools", "onnx", "openvino", "coreml"]
CIFAR_MEAN, CIFAR_STD = (0.491, 0.482, 0.447), (0.247, 0.244, 0.262)


def load(folder: Path, per_class: int, spec: InputSpec) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """The first ``per_class`` images of each class folder: uint8 (N, S, S, 3), labels, class names."""
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    files = [(p, y) for y, name in enumerate(classes) for p in sorted((folder / name).iterdir())[:per_class]]
    images = np.stack([prepare(decode(path), spec) for path, _ in files])
    return images, np.array([label for _, label in files]), tuple(classes)


def train(
    name: str, images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], spec: InputSpec, epochs: int
) -> Any:
    """A classifier trained from scratch with labels."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = backbones.Classifier(backbones.build(config.Backbone(name=name)), classes, spec).train()
    steps = len(images) // 96
    optimiser = torch.optim.AdamW(model.parameters(), 2.5e-3, weight_decay=0.02)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2.5e-3, total_steps=epochs * steps, pct_start=0.2)
    for _ in range(epochs):
        for chosen in np.array_split(rng.permutation(len(images))[: steps * 96], steps):
            batch = np.roll(images[chosen], rng.integers(-8, 9, 2), (1, 2))[:, :, :: rng.choice([-1, 1])]
            planes = backbones.normalise(torch.from_numpy(batch.copy()), spec)
            loss = torch.nn.functional.cross_entropy(
                model(planes), torch.from_numpy(labels[chosen]), label_smoothing=0.05
            )
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 2)
            optimiser.step()
            cycle.step()
    return model.eval()


def digits(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """scikit-learn's scans enlarged: 1,200 training images and labels; 597 test images and a shifted copy of each."""
    import cv2
    from sklearn.datasets import load_digits

    data = load_digits()
    large = [cv2.resize((i * 15.9).astype(np.uint8), (size, size), interpolation=cv2.INTER_CUBIC) for i in data.images]
    order = np.random.default_rng(0).permutation(len(large))
    images = np.repeat(np.stack(large)[order][..., None], 3, axis=3)
    labels = data.target[order].astype(np.int64)
    rng = np.random.default_rng(1)
    copies = [np.roll(image, rng.integers(-5, 6, 2), (0, 1)) for image in images[1200:]]
    test = np.concatenate([images[1200:], np.stack(copies)])
    return images[:1200], labels[:1200], test, np.concatenate([labels[1200:]] * 2)


class Reader(CalibrationDataReader):
    def __init__(self, images: np.ndarray):
        self.images = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self.images, None)
        return None if image is None else {"image": image[None]}


def onnxruntime_static(
    graph: onnx.ModelProto, calibration: np.ndarray, prepared: bool, **settings: Any
) -> onnx.ModelProto:
    """quantize_static; prepared: after the quant_pre_process that its documentation asks for."""
    with tempfile.TemporaryDirectory() as folder:
        source, ready, result = (str(Path(folder) / f"{name}.onnx") for name in ("source", "ready", "result"))
        onnx.save(graph, source)
        with quiet():
            if prepared:
                quant_pre_process(source, ready)
            quantize_static(ready if prepared else source, result, Reader(calibration), **settings)
        return onnx.load(result)


def nncf_static(
    graph: onnx.ModelProto, calibration: np.ndarray, images: np.ndarray, **settings: Any
) -> tuple[np.ndarray, int]:
    """nncf.quantize on the OpenVINO model; outputs on ``images`` and bytes."""
    with quiet():
        import nncf
        import openvino as ov

        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "source.onnx"
            onnx.save(graph, str(source))
            data = nncf.Dataset([image[None] for image in calibration])
            network = nncf.quantize(ov.convert_model(source), data, **settings)
            ov.save_model(network, Path(folder) / "model.xml")
            size = sum((Path(folder) / f"model.{end}").stat().st_size for end in ("xml", "bin"))
            hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
            run = ov.Core().compile_model(Path(folder) / "model.xml", "CPU", hints)
            parts = [next(iter(run(images[i : i + 32]).values())) for i in range(0, len(images), 32)]
    return np.concatenate(parts), size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with train/ and test/ of class folders; else enlarged digits")
    parser.add_argument("--classifier", type=Path, help="a softedge classifier file")
    parser.add_argument("--train", help="or train this backbone first")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--per-class", type=int, default=2500, help="training images of each class")
    parser.add_argument("--test", type=int, default=100, help="test images of each class")
    parser.add_argument("--calibration", type=int, default=200)
    parser.add_argument("--weights", type=Path, help="a timm state dict, with --backbone and --images")
    parser.add_argument("--backbone")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--mean")
    parser.add_argument("--std")
    parser.add_argument("--interpolation")
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--stress", action="store_true", help="with a function-preserving imbalance of channels")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    spec = InputSpec(options.size, options.size, CIFAR_MEAN, CIFAR_STD)
    if options.weights:
        given_weights(options)
        return
    if options.classifier:
        model = backbones.load_classifier(options.classifier)
        spec = model.spec
    if options.data:
        images, labels, classes = load(options.data / "train", options.per_class, spec)
        test, truth, _ = load(options.data / "test", options.test, spec)
    else:
        images, labels, test, truth = digits(spec.size)
        classes = tuple(map(str, range(10)))
    if not options.classifier:
        model = train(options.train, images, labels, classes, spec, options.epochs)
        backbones.save(options.out.with_suffix(".safetensors"), model, spec)
    deployed = Deployed(model, spec)
    if options.stress:
        deployed = imbalance(deployed)
    order = np.random.default_rng(0).permutation(len(images))
    calibration = images[order[: options.calibration]]
    chosen = images[order[options.calibration :][:CHOSEN]]
    bench = Bench(
        deployed,
        calibration,
        images[order[:4096]],
        Judge.of(deployed, chosen),
        (Judge.of(deployed, test), truth),
        options.out,
        {
            "backbone": model.backbone.settings.name,
            "size": spec.size,
            "data": str(options.data or "digits"),
            "stress": options.stress,
            "sha256": sha256(options.classifier) if options.classifier else "",
            **environment(),
        },
        options.exact,
    )
    bench.run(options.parts)


def given_weights(options: argparse.Namespace) -> None:
    """Rows for a network from elsewhere, on photos without labels."""
    from softedge.export.given import preprocessing, read
    from softedge.stages.export_file import readable

    asked = preprocessing(None, options.mean, options.std, options.interpolation, None)
    deployed, name = read(options.weights, options.backbone, preprocessing=asked)
    photos = readable(options.images, 2000, 0).prepared(deployed.spec)
    half = len(photos) // 2
    rest, test = photos[:half], photos[half:]
    calibration = rest[: min(options.calibration, half)]
    chosen = rest[len(calibration) :] if half - len(calibration) >= 32 else rest
    about = {"backbone": name, "size": deployed.spec.size, "images": str(options.images), "exact": options.exact}
    judges = Judge.of(deployed, chosen), (Judge.of(deployed, test), np.full(len(test), -1))
    about |= {"sha256": sha256(options.weights), **environment()}
    Bench(deployed, calibration, rest, *judges, options.out, about, options.exact).run(options.parts)


class Bench:
    """Rows for one network; every part replaces its own rows in the file."""

    def __init__(
        self,
        deployed: Deployed,
        calibration: np.ndarray,
        training: np.ndarray,
        selection: Judge,
        test: tuple[Judge, np.ndarray],
        out: Path,
        about: dict[str, Any],
        exact: bool = False,
    ):
        """test: images with the answers of fp32, and their labels."""
        self.deployed, self.calibration, self.training = deployed, calibration, training
        self.selection, (self.test, self.labels), self.out, self.about = selection, test, out, about
        self.exact = exact
        self.graph = onnx_graph.trace(deployed)
        check = config.Check(max_drop=0.005, min_agreement=0.98)
        self.refuse = lambda m: [*broken(m), *quality(m, check, "probabilities")]
        self.doubts = lambda m: [*doubts(m, check, len(self.labels)), *self.refuse(m)]

    def run(self, parts: list[str]) -> None:
        for part in parts:
            {"tools": self.tools, "onnx": self.onnx, "openvino": self.openvino, "coreml": self.coreml}[part]()

    def keep(self, part: str, rows: list[dict[str, Any]], **more: Any) -> None:
        found = json.loads(self.out.read_text()) if self.out.exists() else {}
        found |= {"about": self.about, part: {"rows": rows, **more}}
        write_json(self.out, found)
        print(json.dumps(rows[-1]), flush=True)

    def row(self, name: str, found: np.ndarray, size: int) -> dict[str, Any]:
        return {"tool": name, **compare(self.test.fp32, found, self.labels, "probabilities"), "size_bytes": size}

    def tools(self) -> None:
        """fp32, the other tools' defaults, and their best settings: what people use who read their documentation."""
        softmax = [node.name for node in self.graph.graph.node if node.op_type == "Softmax"]  # its rounding is not ours
        best: dict[str, Any] = {"per_channel": True, "nodes_to_exclude": softmax}
        entropy, percentile = CalibrationMethod.Entropy, CalibrationMethod.Percentile
        static: dict[str, tuple[bool, dict[str, Any]]] = {
            "quantize_static": (False, {}),
            "quant_pre_process + quantize_static": (True, {}),
            "the same, per channel": (True, best),
            "the same, per channel, entropy": (True, {**best, "calibrate_method": entropy}),
            "the same, per channel, percentile": (True, {**best, "calibrate_method": percentile}),
        }
        rows: list[dict[str, Any]] = [self.row("fp32", *self.answers(self.graph))]
        for name, (prepared, settings) in static.items():
            made = onnxruntime_static(self.graph, self.calibration, prepared, **settings)
            rows.append(self.row(name, *self.answers(made)))
            self.keep("tools", rows)
        for name, more in (("NNCF", {}), ("NNCF, full bias correction", {"fast_bias_correction": False})):
            rows.append(self.row(name, *nncf_static(self.graph, self.calibration, self.test.images, **more)))
            self.keep("tools", rows)

    def answers(self, model: onnx.ModelProto) -> tuple[np.ndarray, int]:
        """Outputs on the test images, and bytes."""
        if not self.exact:
            return run(model, self.test.images, threads=1), len(model.SerializeToString())
        plain = session(model, optimise=False, threads=1)
        images = self.test.images
        parts = [plain.run(None, {"image": images[i : i + 8]})[0] for i in range(0, len(images), 8)]
        return np.concatenate(parts), len(model.SerializeToString())

    def onnx(self) -> None:
        self._ours("onnx", "int8")

    def openvino(self) -> None:
        self._ours("openvino", "int8")

    def coreml(self) -> None:
        format_ = open_format("coreml")
        with tempfile.TemporaryDirectory() as folder:
            made = format_.convert(self.deployed, "int8", self.calibration, Path(folder))
            rows = [self.row("W8", format_.load(made)(self.test.images), made.size_bytes)]
        self.keep("coreml-w8", rows)
        self._ours("coreml", "w8a8")

    def _ours(self, name: str, precision: str) -> None:
        """The file that is exported by default, and that of the search where the first is not sure to pass."""
        format_ = open_format(name)
        with tempfile.TemporaryDirectory() as folder:
            made = format_.convert(self.deployed, precision, self.calibration, Path(folder))
            exact = self.exact and made.path.suffix == ".onnx"
            answers = self.answers(onnx.load(made.path))[0] if exact else format_.load(made)(self.test.images)
            rows = [self.row("default", answers, made.size_bytes)]
            self.keep(name, rows)
            if self.exact:
                return

            def candidates(network: Deployed | None) -> Any:
                assert network is not None
                return format_.candidates(network, precision, self.calibration, like=made)

            judge = self.selection.first(candidates(self.deployed).most_images)
            measures = compare(judge.fp32, format_.load(made)(judge.images), None, judge.output)
            default = Step("default", "as exported", measures, made.size_bytes, why=tuple(self.doubts(measures)))
            if default.passed:
                return
            problem = Problem(
                network=self.deployed,
                make=candidates,
                judge=judge,
                accepts=self.refuse,
                doubts=self.doubts,
                calibration=self.calibration,
                training=lambda: self.training,
                timed=False,
            )
            result = search(problem, default)
            if result.chosen is not None:
                better = Path(folder) / "search"
                better.mkdir()
                path = result.chosen.candidates.write(result.chosen.option, better)
                size = sum(file.stat().st_size for file in better.rglob("*") if file.is_file())
                found = format_.load(replace(made, path=path))(self.test.images)
                rows.append(self.row(result.chosen.step.name, found, size))
            self.keep(name, rows, **result.to_dict())
        print(result.recommendation, flush=True)


if __name__ == "__main__":
    main()
