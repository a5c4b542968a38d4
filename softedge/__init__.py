"""softedge: from unlabelled images to a checked, timed classifier for phones and IoT boards.

The functions are the commands: ``softedge.deploy(data="photos/", out="runs/mine")``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from softedge.stages.evaluations import backbone, finetune, knn, labels, linear, probe
    from softedge.stages.pipeline import bench, bring_in, check, deploy, export, gate, inspect, pretrain, report, verify

_WHERE = {
    "softedge.stages.pipeline": (
        *("bench", "bring_in", "check", "deploy", "export", "gate", "inspect", "pretrain", "report", "verify"),
    ),
    "softedge.stages.evaluations": ("backbone", "finetune", "knn", "labels", "linear", "probe"),
    "softedge.detection.transfer": ("transfer",),
}
_MODULES = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "backbone",
    "bench",
    "bring_in",
    "check",
    "deploy",
    "export",
    "finetune",
    "gate",
    "inspect",
    "knn",
    "labels",
    "linear",
    "pretrain",
    "probe",
    "report",
    "transfer",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import a command's module on first use: ``import softedge`` alone stays fast."""
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'softedge' has no attribute '{name}'")
