"""Names a user can type, and the code behind them. Imported on use, so that ``softedge --help`` stays fast.

Adding a method, format, device, task or plug-in is a new file or folder and one line here.  Other packages add theirs
by entry points of the groups ``softedge.methods``, ``softedge.formats`` and ``softedge.devices``.
"""

from __future__ import annotations

import importlib
import re
from collections import UserDict
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from softedge.errors import UserError, did_you_mean


class Table(UserDict[str, str]):
    """name -> "module:attribute", in the order of display: softedge's own, then those of installed packages by name.

    group: of the entry points.  They are read on first use; UserError when one of them claims a name that is taken.
    """

    def __init__(self, group: str, own: dict[str, str]):
        self.group, self.own = group, own  # not UserDict's own __init__: ``data`` is made on first use

    def package(self, name: str) -> str:
        """The distribution that a name comes from, with its version; "" for softedge's own."""
        return self._packages.get(name, "") if name in self else ""

    @cached_property
    def data(self) -> dict[str, str]:  # type: ignore[override]
        from importlib.metadata import entry_points

        merged, owners = dict(self.own), dict.fromkeys(self.own, "softedge itself")
        self._packages: dict[str, str] = {}
        for entry in sorted(entry_points(group=self.group), key=lambda entry: entry.name):
            package = entry.dist.name if entry.dist else "an unknown package"
            if merged.get(entry.name) == entry.value:  # the same package, found twice on the path
                continue
            if entry.name in merged:
                raise UserError(
                    f"the package {package} adds '{entry.name}' to {self.group}, but {owners[entry.name]} has that "
                    f"name already; uninstall it (pip uninstall {package}) or ask its authors for another name"
                )
            if not re.fullmatch(r"[a-z0-9_]+(-[a-z0-9_]+)*", entry.name):
                raise UserError(f"the package {package} adds '{entry.name}' to {self.group}: not a name one can type")
            merged[entry.name], owners[entry.name] = entry.value, package
            self._packages[entry.name] = f"{package} {entry.dist.version}" if entry.dist else package
        return merged


METHODS = Table(
    "softedge.methods",
    {
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
        "dino": "softedge.ssl.dino:DINO",
        "visual-words": "softedge.ssl.visual_words:VisualWords",
        "supervised": "softedge.ssl.supervised:Supervised",
    },
)

FORMATS = Table(
    "softedge.formats",
    {
        "onnx": "softedge.export.onnx.format:Onnx",
        "openvino": "softedge.export.openvino.format:OpenVino",
        "coreml": "softedge.export.coreml.format:CoreMl",
        "executorch": "softedge.export.executorch.format:ExecuTorch",
        "litert": "softedge.export.litert.format:LiteRt",
        "ncnn": "softedge.export.ncnn.format:Ncnn",
    },
)

DEFAULT_FORMATS = tuple(FORMATS.own)[:3]

DEVICES = Table(
    "softedge.devices",
    {
        "local": "softedge.bench.local.device:Local",
        "ssh": "softedge.bench.ssh.device:Ssh",
        "adb": "softedge.bench.android.device:AdbDevice",
        "browser": "softedge.bench.browser.device:Browser",
        "macos": "softedge.bench.macos.device:MacOs",
        "emulated": "softedge.bench.emulated.device:Emulated",
    },
)

TASKS = {
    "voc": "softedge.detection.tasks:VOC",
    "coco": "softedge.detection.tasks:COCO",
}

# What stands beside the core: a plug-in owns folders of its own, and the commands on such a folder are its methods.
PLUGINS = {"detection": "softedge.detection.plugin:Detection"}

# Sections of a recipe that plug-ins bring: a class with a default for every key.
SECTIONS = {
    "transfer": "softedge.detection.settings:Transfer",
}


def plugins() -> list[Any]:
    """Every plug-in. Importing one costs little: what it needs is imported by the method that needs it."""
    return [lookup(PLUGINS, name, "plug-in")() for name in PLUGINS]


def owner(folder: Any) -> Any | None:
    """The plug-in that a folder belongs to; None for a run."""
    if not isinstance(folder, str | Path):
        return None
    return next((plugin for plugin in plugins() if plugin.owns(Path(folder))), None)


def lookup(table: Mapping[str, str], name: str, kind: str) -> Any:
    """Import and return the object registered as ``name``; UserError with a suggestion when there is none."""
    if name not in table:
        raise UserError(f"unknown {kind} '{name}'{did_you_mean(name, tuple(table))}")
    module, attribute = table[name].split(":")
    if not isinstance(table, Table) or name in table.own:
        return getattr(importlib.import_module(module), attribute)
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # somebody else's module can fail in any way
        raise UserError(f"{kind} '{name}' of another package cannot be imported from {table[name]}: {error}") from error


def formats() -> Iterator[Any]:
    """The classes of all formats in the order of display; those of other packages that cannot be imported left out."""
    for name in FORMATS:
        try:
            yield lookup(FORMATS, name, "format")
        except UserError:
            continue
