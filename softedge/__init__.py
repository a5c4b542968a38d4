"""softedge: from unlabelled images to a checked, timed classifier for phones and IoT boards.

The functions are the commands: ``softedge.deploy(data="photos/", out="runs/mine")``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from softedge.pipeline import bench, check, deploy, export, gate, inspect, knn, pretrain, probe, report, verify

__all__ = ["bench", "check", "deploy", "export", "gate", "inspect", "knn", "pretrain", "probe", "report", "verify"]


def __getattr__(name: str) -> Any:
    """Import the pipeline on first use: ``import softedge`` alone stays fast."""
    if name in __all__:
        return getattr(importlib.import_module("softedge.pipeline"), name)
    raise AttributeError(f"module 'softedge' has no attribute '{name}'")
