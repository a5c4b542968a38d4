"""softedge: from unlabelled images to a checked, timed classifier for phones and IoT boards.

The functions are those of the commands: ``softedge.deploy(data="photos/", out="runs/mine")``.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from softedge.files import compiler_caches

__version__ = "0.1.0"

# OpenVINO and NNCF report usage to Google Analytics unless each user opts out; both do without this package where it
# cannot be imported. Said before the first import of either, in every process that works for softedge.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime 1.32: to Microsoft, on by default

# Before the first import of torch, in every process: what it compiles belongs into the cache, not into TMPDIR.
for _name, _folder in compiler_caches().items():
    os.environ.setdefault(_name, _folder)

if TYPE_CHECKING:
    from softedge.stages.backbone import backbone
    from softedge.stages.baselines import baselines
    from softedge.stages.bench import bench
    from softedge.stages.bring_in import bring_in
    from softedge.stages.check import check
    from softedge.stages.data import inspect, shrink
    from softedge.stages.deploy import deploy
    from softedge.stages.distill import distill
    from softedge.stages.export import export
    from softedge.stages.export_file import export_file
    from softedge.stages.finetune import finetune
    from softedge.stages.gate import gate
    from softedge.stages.knn import knn
    from softedge.stages.label_issues import label_issues
    from softedge.stages.label_next import label_next
    from softedge.stages.labels import labels
    from softedge.stages.linear import linear
    from softedge.stages.map import map
    from softedge.stages.plan import plan
    from softedge.stages.pretrain import pretrain
    from softedge.stages.probe import probe
    from softedge.stages.quantize import quantize
    from softedge.stages.report import report
    from softedge.stages.scratch import scratch
    from softedge.stages.verify import verify

_ELSEWHERE = {  # not in the module of softedge.stages that has the function's own name
    "inspect": "softedge.stages.data",
    "shrink": "softedge.stages.data",
    "transfer": "softedge.detection.start",  # a plug-in's: a name to import by, no import
}

__all__ = [
    "backbone",
    "baselines",
    "bench",
    "bring_in",
    "check",
    "deploy",
    "distill",
    "export",
    "export_file",
    "finetune",
    "gate",
    "inspect",
    "knn",
    "label_issues",
    "label_next",
    "labels",
    "linear",
    "map",
    "plan",
    "pretrain",
    "probe",
    "quantize",
    "report",
    "scratch",
    "shrink",
    "transfer",
    "verify",
]


def _command(name: str) -> Any:
    return getattr(importlib.import_module(_ELSEWHERE.get(name, f"softedge.stages.{name}")), name)


def __getattr__(name: str) -> Any:
    """Import a command's module on first use: ``import softedge`` alone stays fast."""
    if name in __all__:
        return _command(name)
    raise AttributeError(f"module 'softedge' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


class _CallablePackage(ModuleType):
    """``softedge.export`` is a package and a command: importing the package must not take the command away."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return _command(self.__name__.rpartition(".")[2])(*args, **options)


class _Softedge(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        if name in __all__ and isinstance(value, ModuleType):  # what the import of a subpackage does
            value.__class__ = _CallablePackage
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Softedge
