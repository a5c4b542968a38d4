"""LiteRT's and ExecuTorch's int8 files: softedge's beside those of the formats' own tools with their defaults.

    python benchmarks/int8_mobile.py --weights net.pth --backbone tf_efficientnet_lite0 --images photos/ --out l0.json
    python benchmarks/int8_mobile.py --data .data/cifar10 --classifier classifier.safetensors --out small.json

Options of int8_quality.py.  The same images calibrate all; others are asked.  Files as exported, without the search.
Time is the processor time of one image on one thread over that of the same format's fp32 file, in pairs: LiteRT's by
its interpreter with XNNPACK, in its own environment (``softedge setup litert``), ExecuTorch's by its own runtime.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from int8_quality import given, load
from torch import Tensor, nn

from softedge import backbones
from softedge.eval.measures import compare
from softedge.export.base import Predictor, open_format
from softedge.export.contract import artifact_of
from softedge.export.deployed import Deployed
from softedge.export.onnx.speed import Race
from softedge.machine.provenance import environment
from softedge.progress import say
from softedge.run import sha256, write_json

FORMATS = {"litert": "ai-edge-quantizer", "executorch": "XNNPACK quantizer"}
_EDGE = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import algorithm_manager, qtyping, quantizer, recipe
source, images, result = sys.argv[1:]
worker = quantizer.Quantizer(source)
worker.load_quantization_recipe(recipe.static_wi8_ai8())
kinds, never = qtyping.TFLOperationName, algorithm_manager.AlgorithmName.NO_QUANTIZE
for kind in (kinds.SUB, kinds.DIV, kinds.SOFTMAX, kinds.OUTPUT):
    worker.update_quantization_recipe(".*", kind, algorithm_key=never)
signatures = Interpreter(source).get_signature_list()
name = next(iter(signatures))
entry = signatures[name]["inputs"][0]
ranges = worker.calibrate({name: [{entry: image[None]} for image in np.load(images)]})
worker.quantize(ranges).export_model(result, overwrite=True)
"""


def edge_quantizer(deployed: Deployed, calibration: np.ndarray, path: Path) -> None:
    """ai-edge-quantizer's static recipe and calibration; normalisation, softmax and output in float, as in softedge's
    files."""
    from softedge.export.litert.candidates import converted
    from softedge.export.litert.environment import interpreter

    with tempfile.TemporaryDirectory() as folder:
        source, images = Path(folder) / "float.tflite", Path(folder) / "images.npy"
        converted(deployed, source)
        np.save(images, calibration)
        command = [str(interpreter()), "-c", _EDGE, str(source), str(images), str(path)]
        subprocess.run(command, check=True, capture_output=True)


def xnnpack_quantizer(deployed: Deployed, calibration: np.ndarray, path: Path) -> None:
    size = deployed.spec.size
    example = torch.zeros((1, size, size, 3), dtype=torch.uint8)
    path.write_bytes(xnnpack_program(deployed.folded(), example, torch.from_numpy(calibration)))


def xnnpack_program(network: nn.Module, example: Tensor, calibration: Tensor | None) -> bytes:
    """Of ``network`` in float; in int8, where inputs (N, ...) calibrate it: torchao's pt2e with ExecuTorch's
    XNNPACKQuantizer, symmetric and per channel, as its documentation has it."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from executorch.exir import to_edge_transform_and_lower
    from torchao.quantization.pt2e.quantize_pt2e import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
        convert_pt2e,
        prepare_pt2e,
    )

    with torch.no_grad():
        if calibration is not None:
            traced = torch.export.export(network, (example,), strict=True).module()
            settings = get_symmetric_quantization_config(is_per_channel=True)
            prepared = prepare_pt2e(traced, XNNPACKQuantizer().set_global(settings))
            for one in calibration:
                prepared(one[None])
            network = convert_pt2e(prepared)
        program = torch.export.export(network, (example,), strict=True)
        edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        return bytes(edge.to_executorch().buffer)


TOOLS: dict[str, Callable[[Deployed, np.ndarray, Path], None]] = {
    "litert": edge_quantizer,
    "executorch": xnnpack_quantizer,
}


def litert_times(fp32: Path, int8: Path, image: np.ndarray, seconds: float) -> dict[str, list[float]]:
    from softedge.export.litert.environment import work

    with tempfile.TemporaryDirectory() as folder:
        images, feed, times = (Path(folder) / name for name in ("images.npy", "feed.json", "times.json"))
        np.save(images, image)
        feed.write_text("{}")
        work("race", fp32, int8, images, feed, seconds, times)
        return json.loads(times.read_text())  # type: ignore[no-any-return]


def executorch_times(fp32: Path, int8: Path, image: np.ndarray, seconds: float) -> dict[str, list[float]]:
    """Its pool has as many threads as there are cores, which wait busily: their processor time is not the file's."""
    from executorch.extension.pybindings import portable_lib

    from softedge.export.executorch.format import load_model

    portable_lib._unsafe_reset_threadpool(1)
    runs: dict[str, Predictor] = {"fp32": load_model(fp32), "int8": load_model(int8)}
    samples: dict[str, list[float]] = {name: [] for name in runs}
    rng, end = np.random.default_rng(0), time.process_time() + seconds
    for run in runs.values():
        run(image)
    while time.process_time() < end:
        for name in rng.permutation(list(runs)):
            start = time.process_time()
            runs[name](image)
            samples[name].append(1e3 * (time.process_time() - start))
    return samples


TIMES = {"litert": litert_times, "executorch": executorch_times}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with train/ and test/ of class folders")
    parser.add_argument("--test", type=int, default=40, help="test images of each class")
    parser.add_argument("--calibration", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=8, help="of processor time for each comparison of times")
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), choices=FORMATS)
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
    if options.weights:
        deployed, name, photos = given(options)
        calibration, test = photos[: len(photos) // 2][: options.calibration], photos[len(photos) // 2 :]
        source = options.weights
    else:
        model = backbones.load_classifier(options.classifier)
        deployed, name, source = Deployed(model, model.spec), model.backbone.settings.name, options.classifier
        images, *_ = load(options.data / "train", 100, deployed.spec)
        test, *_ = load(options.data / "test", options.test, deployed.spec)
        calibration = images[np.random.default_rng(0).permutation(len(images))[: options.calibration]]
    about = {"backbone": name, "size": deployed.spec.size, "sha256": sha256(source), "n": len(test), **environment()}
    found = json.loads(options.out.read_text()) if options.out.exists() else {}
    for name in options.formats:
        found[name] = {"rows": rows(name, deployed, calibration, test, options.seconds)}
        write_json(options.out, {**found, "about": about})


def rows(name: str, deployed: Deployed, calibration: np.ndarray, test: np.ndarray, seconds: float) -> list[Any]:
    """fp32, the tool's int8, softedge's int8 and its integers alone, of one format."""
    format_ = open_format(name)
    expected = deployed.predict(test)
    made: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        strict = (f"softedge {format_.title} {format_.strict}",) if format_.strict else ()
        for tool in (f"{format_.title} fp32", FORMATS[name], f"softedge {format_.title} int8", *strict):
            path = Path(folder) / tool.replace(" ", "-") / f"model{format_.suffix}"
            path.parent.mkdir()
            if tool == FORMATS[name]:
                TOOLS[name](deployed, calibration, path)
            else:
                path = format_.convert(deployed, tool.split()[-1], calibration, path.parent).path
            paths[tool] = path
            precision = format_.strict if tool in strict else "int8"
            artifact = artifact_of(path, name, precision, deployed.spec, deployed.labels, deployed.output)
            measures = compare(expected, format_.load(artifact)(test), None, deployed.output)
            row = {"tool": tool, **{key: measures[key] for key in ("agreement", "sqnr_db")}}
            row |= {"size_bytes": artifact.size_bytes}
            if made:
                samples = TIMES[name](next(iter(paths.values())), path, test[:1], seconds)
                race = Race({each: np.maximum(values, 1e-6) for each, values in samples.items()})
                ratio = race.ratio("int8", "fp32")
                row |= {"time_over_fp32": round(ratio.median, 3), "low": ratio.low, "high": ratio.high}
            made.append(row)
            say(json.dumps(row))
    return made


if __name__ == "__main__":
    main()
