"""Which of timm's architectures can be exported, in every format and precision: ok, or refused and why.

    python benchmarks/architectures.py --out architectures.json
    python benchmarks/architectures.py --out architectures.json --only resnet18 mobilenetv3_small_100
    python benchmarks/architectures.py --out architectures.json --table > table.md
    python benchmarks/architectures.py --out ncnn.json --formats ncnn
    python benchmarks/architectures.py --out litert.json --formats litert
    python benchmarks/architectures.py --out nearest.json --formats onnx openvino --nearest \
        --precisions int8 w8a16 w8a32 int8-strict

Random weights and few pixels: this is about operators and shapes, not about accuracy.  A file is ok when it is written,
runs here, and its noise against PyTorch is what its precision must have (``LEAST_DB``); of 8-bit files the noise is
noted, which is far larger of random weights than of trained ones.  int8 is the first candidate, or with ``--nearest``
the one that an export would choose on the calibration images, all layers in integers.  What is in the file is not done
again.  Each network is a process of its own with a time limit, so that nothing takes the others down.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NETWORKS = {  # name -> pixels
    "mobilenetv1_100": 64,
    "mobilenetv2_100": 64,
    "mobilenetv3_small_100": 64,
    "mobilenetv3_large_100": 64,
    "tf_mobilenetv3_small_100": 64,
    "mobilenetv4_conv_small": 64,
    "efficientnet_b0": 64,
    "efficientnet_lite0": 64,
    "tf_efficientnet_lite0": 64,
    "tf_efficientnetv2_b0": 64,
    "mnasnet_100": 64,
    "fbnetc_100": 64,
    "ghostnet_100": 64,
    "lcnet_050": 64,
    "mixnet_s": 64,
    "resnet18": 64,
    "resnext50_32x4d": 64,
    "seresnet18": 64,
    "regnety_002": 64,
    "densenet121": 64,
    "convnext_atto": 64,
    "edgenext_xx_small": 64,
    "mobileone_s0": 64,
    "repvgg_a0": 64,
    "repvit_m0_9": 64,
    "fastvit_t8": 64,
    "efficientvit_b0": 64,
    "mobilevit_xxs": 64,
    "hardcorenas_a": 64,
    "starnet_s1": 64,
    "vit_tiny_patch16_224": 64,
    "deit_tiny_patch16_224": 64,
}
FORMATS = {
    "onnx": ("fp32", "fp16", "int8"),
    "openvino": ("fp32", "fp16", "int8"),
    "coreml": ("fp16", "int8"),
    "ncnn": ("fp32", "fp16", "int8"),
    "litert": ("fp32", "int8", "int8-strict"),
    "executorch": ("fp32", "int8"),
}  # without --precisions
LEAST_DB = {"fp32": 60.0, "fp16": 20.0}  # any other: -100
MINUTES = 15  # for one network


def files_of(formats: Sequence[str], precisions: Sequence[str]) -> list[tuple[str, str]]:
    """Format and precision of every file.  precisions: of those each format's own; empty: ``FORMATS``."""
    from softedge.export.base import open_format

    return [
        (target, precision)
        for target in formats
        for precision in precisions or FORMATS[target]
        if precision in open_format(target).precisions
    ]


def measure(name: str, files: Sequence[tuple[str, str]], nearest: bool) -> dict[str, dict[str, Any]]:
    """Every file of one network: {file: {ok, why, size_bytes, sqnr_db, integers, seconds}}.

    nearest: int8 as an export chooses it, an ONNX file's integers among what a later format chooses from.
    """
    import numpy as np
    import timm
    import torch

    from softedge.eval.measures import compare
    from softedge.export.base import open_format
    from softedge.export.deployed import Deployed
    from softedge.records import InputSpec
    from softedge.stages.artifact import refuse_float

    torch.manual_seed(0)
    size = NETWORKS[name]
    try:
        net = timm.create_model(name, num_classes=10, img_size=size)
    except TypeError:
        net = timm.create_model(name, num_classes=10)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (32, size // 8, size // 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    network = Deployed(net, InputSpec(size, size, (0.5,) * 3, (0.25,) * 3), labels=tuple("abcdefghij"))
    settle(network, images)
    calibration, asked = images[:16], images[16:]
    wanted = network.predict(asked)
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as root:
        made: list[Any] = []
        for target, precision in files:
            row: dict[str, Any] = {}
            rows[f"{target}-{precision}"] = row
            folder = Path(root) / f"{target}-{precision}"
            folder.mkdir()
            begun = time.monotonic()
            try:
                format_ = open_format(target).without_timing()
                if nearest:
                    format_.others = [a for a in made if a.precision == precision == "int8"]
                    artifact = format_.convert(network, precision, calibration, folder)
                else:
                    artifact = first(format_, network, precision, calibration, folder)
                row["seconds"] = round(time.monotonic() - begun, 1)
                row["size_bytes"] = artifact.size_bytes
                if format_.bits(precision).is_int8:
                    refuse_float(artifact, network)
                few = 2 if target == "coreml" else len(asked)  # its interpreter takes a second an image
                measures = compare(wanted[:few], format_.load(artifact)(asked[:few]), None, network.output)
                row |= {"sqnr_db": measures["sqnr_db"], "max_abs_diff": measures["max_abs_diff"]}
                row["integers"] = format_.integer_operations(artifact)
                row["ok"] = bool(measures["sqnr_db"] >= LEAST_DB.get(precision, -100.0))
                if row["ok"]:
                    made += [artifact] if target == "onnx" else []
                else:
                    row["why"] = f"{measures['sqnr_db']:.0f} dB against PyTorch"
            except Exception as error:  # whatever it is, it is the result
                line = (str(error).strip().splitlines() or [""])[0][:200]
                row |= {"ok": False, "why": line or type(error).__name__, "kind": type(error).__name__}
    return rows


def first(format_: Any, network: Any, precision: str, calibration: Any, folder: Path) -> Any:
    """The file as an export writes it, of int8 the first candidate."""
    from softedge.export.contract import artifact_of

    candidates = format_.candidates(network, precision, calibration)
    if candidates is None:
        return format_.convert(network, precision, calibration, folder)
    path = candidates.write(next(iter(candidates.calibrations())), folder)
    return artifact_of(path, format_.name, precision, network.spec, network.labels, network.output)


def settle(network: Any, images: Any) -> None:
    """BatchNorm statistics of these images, and logits that spread: random weights alone give answers all alike."""
    import torch
    from torch import nn

    for name, parameter in network.named_parameters():
        if name.endswith(("gamma", "layer_scale")):  # and others scale them by 1e-6
            nn.init.constant_(parameter, 0.5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
            nn.init.uniform_(module.weight, 0.5, 1.5)  # residual branches begin at zero in some networks
    network.train()
    with torch.no_grad():
        network(torch.from_numpy(images))
        network.eval()
        x = network.normalised(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float())
        logits = network.model(x)
        head = network.model.get_classifier()
        for module in [head] if not isinstance(head, tuple) else head:
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.weight *= 3 / logits.std(0).mean().clamp_min(1e-3)


def table(values: dict[str, Any], files: Sequence[tuple[str, str]]) -> str:
    """Markdown: a row a network, the noise of 8-bit files in dB where they are ok; the reasons below."""
    lines = ["| network | " + " | ".join("-".join(file) for file in files) + " |", "|---" * (len(files) + 1) + "|"]
    reasons: dict[str, int] = {}
    for name, rows in values["networks"].items():
        cells = []
        for target, precision in files:
            row = rows.get(f"{target}-{precision}", {"ok": False, "why": rows.get("failed", "not run")})
            if row["ok"]:
                cells.append("ok" if precision in LEAST_DB else f"{row['sqnr_db']:.0f} dB")
            else:
                cells.append(f"no ({reasons.setdefault(row['why'], len(reasons) + 1)})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", *(f"{number}. {why}" for why, number in reasons.items())]
    return "\n".join(lines)


def send(pipe: Any, name: str, files: Sequence[tuple[str, str]], nearest: bool) -> None:
    pipe.send(measure(name, files, nearest))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--formats", nargs="*", choices=FORMATS, default=["onnx", "openvino", "coreml"])
    parser.add_argument("--precisions", nargs="*", default=[], help="of those each format's own; default: FORMATS")
    parser.add_argument("--nearest", action="store_true", help="int8 as an export chooses it, not the first candidate")
    parser.add_argument("--table", action="store_true", help="print what is in the file")
    options = parser.parse_args()
    from softedge.machine.provenance import environment
    from softedge.run import write_json

    files = files_of(options.formats, options.precisions)
    values = json.loads(options.out.read_text()) if options.out.exists() else {"networks": {}}
    if options.table:
        print(table(values, files))
        return
    import coremltools  # noqa: F401
    import nncf  # noqa: F401
    import onnxscript  # noqa: F401
    import openvino  # noqa: F401
    import timm  # noqa: F401

    if "executorch" in options.formats:
        importlib.import_module("executorch.exir")

    processes = multiprocessing.get_context("fork")  # what takes long to import is imported once
    for name in options.only or NETWORKS:
        if name in values["networks"] and not options.only:
            continue
        pipe, theirs = processes.Pipe(duplex=False)
        child = processes.Process(target=send, args=(theirs, name, files, options.nearest))
        child.start()
        theirs.close()
        rows, failed = None, f"more than {MINUTES} minutes"
        try:
            if pipe.poll(60 * MINUTES):
                rows = pipe.recv()
        except EOFError:
            child.join()
            failed = f"the process ended with exit code {child.exitcode}"
        child.kill()
        child.join()
        values["networks"][name] = rows if rows is not None else {"failed": failed}
        values["environment"] = environment()
        write_json(options.out, values)
        print(name, json.dumps({k: r.get("ok") for k, r in rows.items()} if rows else failed), flush=True)


if __name__ == "__main__":
    main()
