"""Core ML on this Mac, per compute unit: ``macos:`` (all of them), ``macos:CPU_AND_NE``, ``macos:CPU_ONLY``.

Predictions go through coremltools, whose Python call is part of the time; Xcode's performance report (see
``imported.py``) leaves it out.  Not yet verified on a Mac.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping

from softedge.bench.base import FolderDevice
from softedge.bench.local.device import Local
from softedge.errors import UserError, did_you_mean
from softedge.records import Artifact

UNITS = ("ALL", "CPU_AND_NE", "CPU_AND_GPU", "CPU_ONLY")


class MacOs(Local):
    """The local worker with Core ML as its runtime; off macOS every artifact is skipped with the reason."""

    formats = ("coreml",)

    def __init__(self, spec: str, address: str, options: Mapping[str, str]):
        self.known_options = ("python",)
        FolderDevice.__init__(self, spec, address, options)
        units = address or "ALL"
        if units not in UNITS:
            raise UserError(f"device {spec}: unknown compute unit '{units}'{did_you_mean(units, UNITS)}")
        self.python = self.options.get("python", sys.executable)
        self.settings = {"units": units}

    def why_not(self, artifact: Artifact) -> str:
        if artifact.target not in self.formats:
            return "not run: macos: runs Core ML files; the others run on local"
        if platform.system() != "Darwin":
            return f"not run: Core ML runs on macOS, this is {platform.system()}"
        return ""
