"""Accuracy, agreement, noise, size and processor time of int8 files: softedge's beside those of other tools.

    python benchmarks/int8_quality.py --data .data/cifar10 --classifier runs/x/probe/classifier.safetensors --out x.json
    python benchmarks/int8_quality.py --data .data/cifar10 --train mobilenetv3_small_100 --epochs 14 --out small.json
    python benchmarks/int8_quality.py --weights net.pth --backbone tf_efficientnet_lite0 --images photos/ --out x.json

``--weights``: a network from elsewhere, and a folder of photos without labels; half of them calibrate and choose, the
others are asked.  ``--exact`` runs ONNX files without fusing, so that x86 without VNNI does not saturate: the noise of
the rounding alone.

One thread, the same images for all: calibration and selection from ``train``, the rest from ``test``.
``--train`` first trains a classifier from scratch with labels (AdamW, one cycle, flips and shifts), for a network whose
accuracy means something. ``--exported`` leaves out softedge's search. ``--parts`` measures some of tools, onnx,
openvino, coreml, time; each adds to the file. The int8 files stay in a folder of its name; time, the last, is the
processor time of one image through each of them, in pairs with ONNX fp32..
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from int8_tools import NNCF, coremltools_file, nncf_file, onnxruntime_static, size_of, static_settings, times

from softedge import backbones, config
from softedge.data.decoding import decode, prepare
from softedge.eval.measures import compare
from softedge.export.base import open_format
from softedge.export.contract import artifact_of
from softedge.export.deployed import Deployed
from softedge.export.nearest import Judge
from softedge.export.onnx import graph as onnx_graph
from softedge.export.onnx.ranges import run, session
from softedge.export.openvino.network import predictor
from softedge.machine.provenance import environment
from softedge.quantize.equalization import imbalance
from softedge.quantize.gates import quality
from softedge.quantize.search import Problem, search
from softedge.quantize.selection import CHOSEN, broken, doubts
from softedge.quantize.steps import Step
from softedge.records import Artifact, InputSpec
from softedge.run import sha256, write_json

PARTS = ["tools", "onnx", "openvino", "coreml", "time"]
FP32 = "ONNX fp32"
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with train/ and test/ of class folders; else enlarged digits")
    parser.add_argument("--train", help="or train this backbone first")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--per-class", type=int, default=2500, help="training images of each class")
    parser.add_argument("--test", type=int, default=100, help="test images of each class")
    parser.add_argument("--calibration", type=int, default=200)
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--exported", action="store_true", help="the files as exported, without the search")
    parser.add_argument("--skip", nargs="*", default=[], help="tools with one of these words in their name")
    parser.add_argument("--rounds", type=int, default=60, help="of the timing")
    parser.add_argument("--stress", action="store_true", help="with a function-preserving imbalance of channels")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--classifier", type=Path, help="a softedge classifier file")
    parser.add_argument("--weights", type=Path, help="a timm state dict, with --backbone and --images")
    parser.add_argument("--backbone")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--mean")
    parser.add_argument("--std")
    parser.add_argument("--interpolation")
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
        options,
    )
    bench.run(options.parts)


def given(options: argparse.Namespace) -> tuple[Deployed, str, np.ndarray]:
    """The network of ``--weights``, its name, and the photos of ``--images`` (N, S, S, 3) prepared for it."""
    from softedge.export.given import preprocessing, read
    from softedge.stages.export_file import readable

    asked = preprocessing(None, options.mean, options.std, options.interpolation, None)
    deployed, name = read(options.weights, options.backbone, preprocessing=asked)
    return deployed, name, readable(options.images, 2000, 0).prepared(deployed.spec)


def given_weights(options: argparse.Namespace) -> None:
    """Rows for a network from elsewhere, on photos without labels."""
    deployed, name, photos = given(options)
    half = len(photos) // 2
    rest, test = photos[:half], photos[half:]
    calibration = rest[: min(options.calibration, half)]
    chosen = rest[len(calibration) :] if half - len(calibration) >= 32 else rest
    about = {"backbone": name, "size": deployed.spec.size, "images": str(options.images), "exact": options.exact}
    judges = Judge.of(deployed, chosen), (Judge.of(deployed, test), np.full(len(test), -1))
    about |= {"sha256": sha256(options.weights), **environment()}
    Bench(deployed, calibration, rest, *judges, options.out, about, options).run(options.parts)


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
        options: argparse.Namespace,
    ):
        """test: images with the answers of fp32, and their labels."""
        self.deployed, self.calibration, self.training = deployed, calibration, training
        self.selection, (self.test, self.labels), self.out, self.about = selection, test, out, about
        self.exact, self.search, self.rounds = options.exact, not (options.exported or options.exact), options.rounds
        self.skip = options.skip
        self.files = out.with_suffix("")
        self.files.mkdir(parents=True, exist_ok=True)
        self.graph = onnx_graph.trace(deployed)
        check = config.Check(max_drop=0.005, min_agreement=0.98)
        self.refuse = lambda m: [*broken(m), *quality(m, check, "probabilities")]
        self.doubts = lambda m: [*doubts(m, check, len(self.labels)), *self.refuse(m)]

    def run(self, parts: list[str]) -> None:
        for part in (part for part in PARTS if part in parts):
            getattr(self, part)()

    def keep(self, part: str, rows: list[dict[str, Any]], **more: Any) -> None:
        found = json.loads(self.out.read_text()) if self.out.exists() else {}
        found |= {"about": self.about, part: {"rows": rows, **more}}
        write_json(self.out, found)
        print(json.dumps(rows[-1]), flush=True)

    def row(self, name: str, file: Path, seconds: float, load: Any = None) -> dict[str, Any]:
        """file: stays where it is.  seconds: of processor time to make it."""
        found = self.answers(file, load)
        measures = compare(self.test.fp32, found, self.labels, "probabilities")
        kept = {"file": file.relative_to(self.files).as_posix(), "seconds": round(seconds)}
        return {"tool": name, **measures, "size_bytes": size_of(file), **kept}

    def answers(self, file: Path, load: Any = None) -> np.ndarray:
        """Outputs on the test images.  load: of a softedge format, else by its runtime."""
        images = self.test.images
        if file.suffix == ".onnx":
            if not self.exact:
                return run(onnx.load(file), images, threads=1)
            plain = session(onnx.load(file), optimise=False, threads=1)
            return np.concatenate([plain.run(None, {"image": images[i : i + 8]})[0] for i in range(0, len(images), 8)])
        answers: np.ndarray = (load or predictor(file))(images)
        return answers

    def tools(self) -> None:
        """fp32, and what others make of it."""
        fp32 = self.files / "fp32.onnx"
        onnx.save(self.graph, fp32)
        rows: list[dict[str, Any]] = [self.row(FP32, fp32, 0)]
        for name, (prepared, settings) in self._wanted(static_settings(self.graph)):
            file, start = self.files / f"{_plain(name)}.onnx", time.process_time()
            onnx.save(onnxruntime_static(self.graph, self.calibration, prepared, **settings), file)
            rows.append(self.row(name, file, time.process_time() - start))
            self.keep("tools", rows)
        for name, more in self._wanted(NNCF):
            file, start = self.files / f"{_plain(name)}.xml", time.process_time()
            nncf_file(self.graph, self.calibration, file, **more)
            rows.append(self.row(name, file, time.process_time() - start))
            self.keep("tools", rows)

    def _wanted(self, tools: Mapping[str, Any]) -> list[tuple[str, Any]]:
        return [(name, how) for name, how in tools.items() if not any(word in name for word in self.skip)]

    def onnx(self) -> None:
        self._ours("onnx", "int8")

    def openvino(self) -> None:
        """With the ONNX file made before, as in an export of both."""
        made = self.files / "onnx-int8" / "model.onnx"
        known = artifact_of(made, "onnx", "int8", self.deployed.spec, self.deployed.labels, self.deployed.output)
        self._ours("openvino", "int8", [known] if made.exists() else [])

    def coreml(self) -> None:
        """Computed by the reference interpreter, and so not timed."""
        file, start = self.files / "coremltools.mlpackage", time.process_time()
        coremltools_file(self.deployed, file)
        spent = time.process_time() - start
        made = artifact_of(file, "coreml", "int8", self.deployed.spec, self.deployed.labels, self.deployed.output)
        rows = [self.row("coremltools, 8-bit weights", file, spent, open_format("coreml").load(made))]
        self.keep("coreml-tools", rows)
        self._ours("coreml", "int8")
        self._ours("coreml", "w8a8")

    def time(self) -> None:
        found = json.loads(self.out.read_text())
        parts = [part for part in found.values() if "rows" in part]
        files = {row["tool"]: self.files / row["file"] for part in parts for row in part["rows"]}
        files = {name: file for name, file in files.items() if file.suffix != ".mlpackage"}
        measured = times(files, FP32, self.test.images[:1], self.rounds)
        for row in (row for part in parts for row in part["rows"]):
            row |= measured.get(row["tool"], {})
        write_json(self.out, found)

    def _ours(self, name: str, precision: str, others: Sequence[Artifact] = ()) -> None:
        """The file that is exported by default, and that of the search where the first is not sure to pass."""
        format_ = open_format(name)
        format_.others = others
        title = f"softedge {format_.title} {precision}"
        folder, start = self.files / f"{name}-{precision}", time.process_time()
        folder.mkdir(exist_ok=True)
        made = format_.convert(self.deployed, precision, self.calibration, folder)
        rows = [self.row(title, made.path, time.process_time() - start, format_.load(made))]
        self.keep(f"{name}-{precision}", rows)
        if not self.search:
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
            better = self.files / f"{name}-{precision}-search"
            better.mkdir(exist_ok=True)
            path = result.chosen.candidates.write(result.chosen.option, better)
            load = format_.load(replace(made, path=path))
            spent = time.process_time() - start
            rows.append(self.row(f"{title}, search: {result.chosen.step.name}", path, spent, load))
        self.keep(f"{name}-{precision}", rows, **result.to_dict())
        print(result.recommendation, flush=True)


def _plain(name: str) -> str:
    return name.replace(",", "").replace(" ", "-")


if __name__ == "__main__":
    main()
