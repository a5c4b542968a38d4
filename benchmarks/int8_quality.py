"""Accuracy, agreement, noise and size of int8 files: the rungs of softedge check beside the defaults of other tools.

    python benchmarks/int8_quality.py --data .data/cifar10 --classifier runs/x/probe/classifier.safetensors --out x.json
    python benchmarks/int8_quality.py --data .data/cifar10 --train mobilenetv3_small_100 --epochs 14 --out small.json

One process, one thread, the same images for all: calibration and selection from ``train``, the rest from ``test``.
``--train`` first trains a classifier from scratch with labels (AdamW, one cycle, flips and shifts), for a network whose
accuracy means something. Results are written after every row, so that a run that is stopped keeps what it has.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, quant_pre_process, quantize_static

from softedge import backbones, config
from softedge.data.decoding import decode, prepare
from softedge.eval.int8_candidate import Judge, graph_of, outputs
from softedge.eval.int8_equalization import imbalance
from softedge.eval.int8_ladder import Ladder, Patients, gates_of
from softedge.eval.int8_measures import compare
from softedge.eval.int8_qat import Schedule
from softedge.export import onnx_graph, onnx_int8, onnx_ranges
from softedge.export.deployed import Deployed
from softedge.export.quiet import quiet
from softedge.records import InputSpec
from softedge.run import environment, write_json

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


def onnxruntime_default(graph: onnx.ModelProto, calibration: np.ndarray, prepared: bool) -> onnx.ModelProto:
    """quantize_static with nothing but its defaults, and with the quant_pre_process that its documentation asks for."""
    with tempfile.TemporaryDirectory() as folder:
        source, ready, result = (str(Path(folder) / f"{name}.onnx") for name in ("source", "ready", "result"))
        onnx.save(graph, source)
        with quiet():
            if prepared:
                quant_pre_process(source, ready)
            quantize_static(ready if prepared else source, result, Reader(calibration))
        return onnx.load(result)


def nncf_default(graph: onnx.ModelProto, calibration: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, int]:
    """nncf.quantize on the OpenVINO model with nothing but its defaults; outputs on ``images`` and bytes."""
    with quiet():
        import nncf
        import openvino as ov

        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "source.onnx"
            onnx.save(graph, str(source))
            network = nncf.quantize(ov.convert_model(source), nncf.Dataset([image[None] for image in calibration]))
            ov.save_model(network, Path(folder) / "model.xml")
            size = sum((Path(folder) / f"model.{end}").stat().st_size for end in ("xml", "bin"))
            hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
            run = ov.Core().compile_model(Path(folder) / "model.xml", "CPU", hints)
            parts = [next(iter(run(images[i : i + 32]).values())) for i in range(0, len(images), 32)]
    return np.concatenate(parts), size


def others(add: Any, of: Any, graph: onnx.ModelProto, calibration: np.ndarray, test: np.ndarray) -> None:
    """One row for each other tool."""
    add("onnxruntime quantize_static", of(lambda: onnxruntime_default(graph, calibration, False)))
    add("onnxruntime quantize_static, quant_pre_process", of(lambda: onnxruntime_default(graph, calibration, True)))
    add("NNCF on OpenVINO", lambda: nncf_default(graph, calibration, test))


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
    parser.add_argument("--steps", type=int, default=300, help="of fine-tuning")
    parser.add_argument("--stress", action="store_true", help="with a function-preserving imbalance of channels")
    parser.add_argument("--softedge-only", action="store_true", help="leave the other tools out")
    parser.add_argument("--timed", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    spec = InputSpec(options.size, options.size, CIFAR_MEAN, CIFAR_STD)
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
    selection = images[order[options.calibration : options.calibration + 256]]
    fp32 = deployed.predict(test)
    graph = onnx_graph.trace(deployed)
    rows: list[dict[str, Any]] = []
    about = {
        "backbone": model.backbone.settings.name,
        "size": spec.size,
        "data": str(options.data or "digits"),
        "stress": options.stress,
        **environment(),
    }

    def add(name: str, make: Callable[[], tuple[np.ndarray, int]]) -> None:
        clock = time.monotonic()
        found, size = make()
        rows.append({"tool": name, **compare(fp32, found, truth, "probabilities"), "size_bytes": size})
        rows[-1]["seconds"] = round(time.monotonic() - clock, 1)
        write_json(options.out, {"about": about, "rows": rows})
        print(json.dumps(rows[-1]), flush=True)

    def of(make: Callable[[], onnx.ModelProto]) -> Callable[[], tuple[np.ndarray, int]]:
        def run() -> tuple[np.ndarray, int]:
            model = make()
            return outputs(model, test), len(model.SerializeToString())

        return run

    add("fp32", of(lambda: graph))
    if not options.softedge_only:
        others(add, of, graph, calibration, test)
    rewritten = graph_of(deployed)
    ranges = onnx_ranges.measure(rewritten, calibration)
    default = onnx_int8.quantize(rewritten, ranges)
    patients = Patients(
        deployed,
        default,
        calibration,
        images[order],
        Judge(selection, deployed.predict(selection), "probabilities"),
        Judge(test, fp32, "probabilities", truth),
    )
    gates = gates_of(config.Check(max_drop=0.005, min_agreement=0.98), "probabilities")
    climb = Ladder(patients, gates, Schedule(steps=options.steps), timed=options.timed).climb()
    rows += [{"tool": f"softedge {rung.name}", **rung.to_dict()} for rung in climb.rungs]
    layers = [layer.to_dict() for layer in climb.layers]
    write_json(options.out, {"about": about, "rows": rows, "recommendation": climb.recommendation, "layers": layers})
    print(climb.recommendation)


if __name__ == "__main__":
    main()
