"""This machine as a device: ``local``, ``local:threads=2``, ``local:provider=XNNPACKExecutionProvider``.

``python`` names another interpreter with its own runtimes.  The other options are those of the formats' runtimes:
``provider`` is onnxruntime's execution provider, ``device`` OpenVINO's device (GPU, NPU), ``precision`` the type that
OpenVINO and ncnn compute in: f32 unless another one is asked for, which gets a row, an accuracy and an agreement with
the check of its own.  A runtime that only its format's own environment has (``softedge setup litert``) runs there.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from softedge import registry
from softedge.bench import job
from softedge.bench.base import FolderDevice, Measurement, TimingPlan, last_line
from softedge.errors import UserError
from softedge.export.base import open_format
from softedge.records import Artifact


class Local(FolderDevice):
    """Runs the worker as a subprocess, so that load time and memory are those of the runtime alone."""

    kind = "this computer"

    def __init__(self, spec: str, address: str, options: Mapping[str, str]):
        self.known_options = (*job.options(), "python")
        super().__init__(spec, address, options)
        if address:
            raise UserError(f"device {spec}: local takes options only, for example local:threads=2")
        self.python = self.options.get("python", sys.executable)
        # What check judges and the snippets compute in; a GPU or NPU that was asked for has its own.
        held = {"precision": "f32"} if self.options.get("device", "CPU") == "CPU" else {}
        self.settings: Mapping[str, str] = {**held, **self.options}  # of the runtimes

    @functools.cache  # noqa: B019  (one device, one answer)
    def describe(self) -> dict[str, Any]:
        runtimes = dict(self._own["runtimes"])
        for name, python in self._environments().items():
            packages = open_format(name).board_packages.values()
            there = job.describe([python], self.spec, 60.0, packages=packages)["runtimes"]
            runtimes |= {package: there[package] for package in packages if package in there}
        return self._own | {"runtimes": runtimes}

    @functools.cached_property
    def _own(self) -> dict[str, Any]:
        """What the worker says in the interpreter that was asked for."""
        return job.describe([self.python], self.spec, 60.0)

    def _environments(self) -> dict[str, str]:
        """Format -> the interpreter of its own environment, for those whose runtime is there alone."""
        found = {}
        for kind in registry.formats() if "python" not in self.options else ():
            own = open_format(kind.name).environment()
            lacking = set(kind.board_packages.values()) - self._own["runtimes"].keys()
            if own is not None and own.complete and own.python is not None and lacking:
                found[kind.name] = str(own.python)
        return found

    def work(self, folder: Path, artifacts: Sequence[Artifact], plan: TimingPlan) -> list[Measurement]:
        hashes = job.pack(folder, artifacts, plan, self.settings, pythons=self._environments(), temporary=True)
        command = [self.python, str(folder / "worker.py"), "run", str(folder)]
        job.follow(command, plan, f"bench {self.spec}", _explain)
        return job.unpack(folder, artifacts, hashes, plan)


def _explain(code: int, errors: bytes) -> str:
    return f"the worker ended with exit code {code}: {last_line(errors)}"
