"""Names a user can type, and the code behind them. Imported on use, so that ``softedge --help`` stays fast.

Adding a method, target, device or task is one new file and one line here.
"""

from __future__ import annotations

import importlib
from pathlib import Path
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
    "onnx": "softedge.export.onnx.format:Onnx",
    "openvino": "softedge.export.openvino.format:OpenVino",
    "coreml": "softedge.export.coreml.format:CoreMl",
    "executorch": "softedge.export.executorch.format:ExecuTorch",
    "litert": "softedge.export.litert.format:LiteRt",
}

DEVICES = {
    "local": "softedge.bench.local.device:Local",
    "ssh": "softedge.bench.ssh.device:Ssh",
    "adb": "softedge.bench.android.device:Adb",
    "browser": "softedge.bench.browser.device:Browser",
    "macos": "softedge.bench.macos.device:MacOs",
    "emulated": "softedge.bench.emulated.device:Emulated",
}

TASKS = {
    "voc": "softedge.detection.tasks:VOC",
    "coco": "softedge.detection.tasks:COCO",
}

# What stands beside the core: a plug-in owns folders of its own, and the commands on such a folder are its methods.
PLUGINS = {"detection": "softedge.detection.plugin:Detection"}

PRECISIONS = ("fp32", "fp16", "int8")


def plugins() -> list[Any]:
    """Every plug-in. Importing one costs little: what it needs is imported by the method that needs it."""
    return [load(PLUGINS, name, "plug-in")() for name in PLUGINS]


def owner(folder: Any) -> Any | None:
    """The plug-in that a folder belongs to; None for a run."""
    if not isinstance(folder, str | Path):
        return None
    return next((plugin for plugin in plugins() if plugin.owns(Path(folder))), None)


def load(table: dict[str, str], name: str, kind: str) -> Any:
    """Import and return the object registered as ``name``; UserError with a suggestion when there is none."""
    if name not in table:
        raise UserError(f"unknown {kind} '{name}'{did_you_mean(name, tuple(table))}")
    module, attribute = table[name].split(":")
    return getattr(importlib.import_module(module), attribute)
