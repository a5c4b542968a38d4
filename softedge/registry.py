"""Names a user can type, and the code behind them. Imported on use, so that ``softedge --help`` stays fast.

Adding a method, target, device or task is one new file and one line here.
"""

from __future__ import annotations

import importlib
from typing import Any

from softedge.errors import UserError, did_you_mean

METHODS = {
    "light-moco": "softedge.ssl.light_moco:LightMoCo",
    "moco-v2": "softedge.ssl.light_moco:MoCoV2",
    "simclr": "softedge.ssl.simclr:SimCLR",
    "simmoco": "softedge.ssl.simmoco:SimMoCo",
    "simco": "softedge.ssl.simco:SimCo",
    "byol": "softedge.ssl.byol:BYOL",
    "simsiam": "softedge.ssl.simsiam:SimSiam",
    "msf": "softedge.ssl.msf:MSF",
    "pcl-v2": "softedge.ssl.pcl:PCL",
    "seed": "softedge.ssl.seed:SEED",
    "supervised": "softedge.ssl.supervised:Supervised",
}

TARGETS = {
    "onnx": "softedge.export.onnx:Onnx",
    "openvino": "softedge.export.openvino:OpenVino",
    "coreml": "softedge.export.coreml:CoreMl",
    "executorch": "softedge.export.executorch:ExecuTorch",
    "litert": "softedge.export.litert:LiteRt",
}

DEVICES = {
    "local": "softedge.bench.local:Local",
    "ssh": "softedge.bench.ssh:Ssh",
    "adb": "softedge.bench.adb:Adb",
    "browser": "softedge.bench.browser:Browser",
    "macos": "softedge.bench.macos:MacOs",
    "emulated": "softedge.bench.emulated:Emulated",
}

TASKS = {
    "voc": "softedge.eval.detection_tasks:VOC",
    "coco": "softedge.eval.detection_tasks:COCO",
}

PRECISIONS = ("fp32", "fp16", "int8")


def load(table: dict[str, str], name: str, kind: str) -> Any:
    """Import and return the object registered as ``name``; UserError with a suggestion when there is none."""
    if name not in table:
        raise UserError(f"unknown {kind} '{name}'{did_you_mean(name, tuple(table))}")
    module, attribute = table[name].split(":")
    return getattr(importlib.import_module(module), attribute)
