"""What each 8-bit precision of ONNX and OpenVINO costs and saves, on a network with trained weights and real photos.

    python benchmarks/int8_precisions.py --weights w.pth --backbone tf_efficientnet_lite0 --images photos/ --out x.json
    python benchmarks/int8_precisions.py ... --only onnx-int8 onnx-int8-strict   # these beside fp32
    python benchmarks/int8_precisions.py ... --calibration 16 --rounds 0         # of the first half; no times

The first half of the photos, by name, calibrates; the second half is asked.  Agreement and noise are of the file read
back; ``--exact`` reads ONNX files without fusing, so that x86 without VNNI does not saturate: the noise of the rounding
alone.  Time is processor time of one image on one thread over that of the fp32 file of the same format: the median of
paired ratios with a 95 % interval, the files of a format interleaved in a new order each round.  The int8 files are as
exported: how many of ONNX's first layers stay in float is chosen by that time.  ``--times`` takes the first candidate
of each, for calibrations and roundings cost no time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from architectures import first
from int8_tools import times

from softedge.data.decoding import decode, prepare
from softedge.eval.measures import compare
from softedge.export import given
from softedge.export.base import open_format
from softedge.export.calibration import spread
from softedge.machine.provenance import environment
from softedge.run import write_json

FILES = {
    "onnx": ("fp32", "int8", "int8-strict", "w8a16", "w8a32"),
    "openvino": ("fp32", "int8", "w8a32"),
}


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
    parser.add_argument("--times", action="store_true", help="the first candidate of each file, and its time alone")
    parser.add_argument("--calibration", type=int, help="so many photos of the first half, evenly spaced")
    parser.add_argument("--rounds", type=int, default=200)
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
    calibration = calibration[spread(len(calibration), options.calibration or len(calibration))]
    wanted = network.predict(asked)
    if options.exact:
        unfused()
    values = json.loads(options.out.read_text()) if options.out.exists() else {}
    values["about"] = {"n": len(asked), "calibration": len(calibration), "exact": options.exact, **environment()}
    for target, precisions in FILES.items():
        asked_for = [p for p in precisions if not options.only or f"{target}-{p}" in options.only]
        with tempfile.TemporaryDirectory() as root:
            files: dict[str, Path] = {}
            for precision in dict.fromkeys(("fp32", *asked_for)) if asked_for else ():
                name, folder = f"{target}-{precision}", Path(root) / precision
                folder.mkdir()
                format_ = open_format(target)
                make = partial(first, format_) if options.times else format_.convert
                artifact = make(network, precision, calibration, folder)
                files[precision] = artifact.path
                values[name] = {"size_bytes": artifact.size_bytes, "operations": format_.integer_operations(artifact)}
                values[name]["notes"] = dict(format_.notes(artifact))
                if not options.times:
                    measures = compare(wanted, format_.load(artifact)(asked), None, network.output)
                    values[name] |= {key: measures[key] for key in ("agreement", "sqnr_db", "max_abs_diff")}
                print(name, values[name], flush=True)
                write_json(options.out, values)
            if files and options.rounds and not options.exact:
                for precision, time in times(files, "fp32", asked[:1], options.rounds).items():
                    values[f"{target}-{precision}"] |= time
                    print(target, precision, time, flush=True)
                write_json(options.out, values)


if __name__ == "__main__":
    main()
