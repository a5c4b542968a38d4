"""What each 8-bit precision of ONNX and OpenVINO costs and saves, on a network with trained weights and real photos.

    python benchmarks/int8_precisions.py --weights w.pth --backbone tf_efficientnet_lite0 --images photos/ --out x.json

The first half of the photos, by name, calibrates; the second half is asked.  Agreement and noise are of the file read
back; ``--exact`` reads ONNX files without fusing, so that x86 without VNNI does not saturate: the noise of the rounding
alone.  Time is processor time of one image on one thread over that of the fp32 file of the same format, the median of
paired ratios.  The int8 files are as exported: how many of ONNX's first layers stay in float is chosen by that time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from softedge.data.decoding import decode, prepare
from softedge.eval.measures import compare
from softedge.export import given
from softedge.export.base import Format, open_format
from softedge.export.onnx.ranges import session
from softedge.export.openvino.core import core
from softedge.machine.provenance import environment
from softedge.records import Artifact
from softedge.run import write_json

FILES = {
    "onnx": ("fp32", "int8", "int8-strict", "w8a16", "w8a32"),
    "openvino": ("fp32", "int8", "w8a32"),
}
SECONDS = 20.0  # of one file's timing


def paired_times(predict: dict[str, Any], image: np.ndarray) -> dict[str, float]:
    """Median of time over fp32's in the same round, of this process."""
    times: dict[str, list[float]] = {name: [] for name in predict}
    end = time.process_time() + SECONDS * len(predict)
    while time.process_time() < end and len(times["fp32"]) < 200:
        for name, run in predict.items():
            begun = time.process_time()
            run(image)
            times[name].append(time.process_time() - begun)
    fp32 = np.array(times["fp32"])
    return {name: float(np.median(np.array(values) / fp32)) for name, values in times.items()}


def loaded(format_: Format, artifact: Artifact) -> Any:
    """The file on one thread."""
    if artifact.path.suffix == ".onnx":
        made = session(artifact.path.read_bytes(), threads=1)
        return lambda images: made.run(None, {"image": images})[0]
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    network = core().compile_model(core().read_model(artifact.path), "CPU", options)
    return lambda images: network(images)[0]


def unfused() -> None:
    """Make every ONNX session of this process run its nodes one by one."""
    import onnxruntime as ort

    made = ort.SessionOptions

    def options() -> ort.SessionOptions:
        plain = made()
        plain.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return plain

    ort.SessionOptions = options


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--only", nargs="*", default=[], help="files such as onnx-int8-strict, beside fp32")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, help="pixels, where it is not that of the network")
    for name in ("mean", "std", "interpolation"):
        parser.add_argument(f"--{name}")
    options = parser.parse_args()
    how = given.preprocessing(options.size, options.mean, options.std, options.interpolation, None)
    network, _ = given.read(options.weights, options.backbone, preprocessing=how)
    paths = sorted(path for path in options.images.rglob("*") if path.is_file())
    photos = np.stack([prepare(decode(path), network.spec) for path in paths])
    calibration, asked = photos[: len(photos) // 2], photos[len(photos) // 2 :]
    wanted = network.predict(asked)
    if options.exact:
        unfused()
    values = json.loads(options.out.read_text()) if options.out.exists() else {}
    values["about"] = {"n": len(asked), "calibration": len(calibration), "exact": options.exact, **environment()}
    for target, precisions in FILES.items():
        runs: dict[str, Any] = {}
        for precision in precisions:
            name = f"{target}-{precision}"
            if options.only and name not in options.only and precision != "fp32":
                continue
            with tempfile.TemporaryDirectory() as folder:
                format_ = open_format(target)
                artifact = format_.convert(network, precision, calibration, Path(folder))
                measures = compare(wanted, format_.load(artifact)(asked), None, network.output)
                runs[precision] = loaded(format_, artifact)
            keys = ("agreement", "sqnr_db", "max_abs_diff")
            values[name] = {**{key: measures[key] for key in keys}, "size_bytes": artifact.size_bytes}
            print(name, values[name], flush=True)
            write_json(options.out, values)
        if not options.exact:
            for precision, ratio in paired_times(runs, asked[:1]).items():
                values[f"{target}-{precision}"]["time_over_fp32"] = ratio
                print(target, precision, round(ratio, 2), flush=True)
            write_json(options.out, values)


if __name__ == "__main__":
    main()
