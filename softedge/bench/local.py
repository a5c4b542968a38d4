"""This machine as a device: ``local``, ``local:threads=2``, ``local:provider=XNNPACKExecutionProvider``.

``provider`` names onnxruntime's execution provider, ``device`` OpenVINO's device (GPU, NPU), ``precision`` the type
that OpenVINO computes in, ``python`` another interpreter with its own runtimes.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from softedge.bench import job
from softedge.bench.device import Device, DeviceError, Measurement, Plan
from softedge.errors import UserError
from softedge.records import Artifact


class Local(Device):
    """Runs the worker as a subprocess, so that load time and memory are those of the runtime alone."""

    known_options: tuple[str, ...] = (*job.OPTIONS, "python")

    def __init__(self, spec: str, address: str, options: Mapping[str, str]):
        super().__init__(spec, address, options)
        if address:
            raise UserError(f"device {spec}: local takes options only, for example local:threads=2")
        self.python = self.options.get("python", sys.executable)
        self.settings: Mapping[str, str] = self.options  # of the runtimes

    @functools.cache  # noqa: B019  (one device, one answer)
    def describe(self) -> dict[str, Any]:
        command = [self.python, str(Path(__file__).with_name("worker.py")), "describe"]
        try:
            told = subprocess.run(command, capture_output=True, timeout=60, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise DeviceError(f"{self.spec}: {self.python} does not run the worker ({_last_line(error)})") from error
        return dict(json.loads(told.stdout))

    def run(self, artifacts: Sequence[Artifact], plan: Plan) -> list[Measurement]:
        reasons = {artifact.name: self.why_not(artifact) for artifact in artifacts}
        runnable = [artifact for artifact in artifacts if not reasons[artifact.name]]
        measured = {a.name: Measurement(a.name, a.sha256, skipped=reasons[a.name]) for a in artifacts}
        if runnable:
            with tempfile.TemporaryDirectory(prefix="softedge-bench-") as folder:
                for measurement in self._work(Path(folder), runnable, plan.with_options(self.options)):
                    measured[measurement.artifact] = measurement
        return [measured[artifact.name] for artifact in artifacts]

    def why_not(self, artifact: Artifact) -> str:
        """Why this device cannot run an artifact; empty when it can."""
        return job.why_not(artifact)

    def _work(self, folder: Path, artifacts: Sequence[Artifact], plan: Plan) -> list[Measurement]:
        hashes = job.pack(folder, artifacts, plan, self.settings, temporary=True)
        with open(folder / "stderr.txt", "w+b") as errors:
            process = subprocess.Popen(
                [self.python, str(folder / "worker.py"), "run", str(folder)],
                stdin=subprocess.PIPE,  # closes with this process: the worker then ends itself
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the group
            )

            def explain(code: int) -> str:
                errors.seek(0)
                words = errors.read().decode(errors="replace").strip().splitlines()
                return f"the worker ended with exit code {code}: {words[-1][:300] if words else 'it said nothing'}"

            try:
                job.follow(process, plan, f"bench {self.spec}", explain)
            finally:
                end(process)
        return job.unpack(folder, artifacts, hashes, plan)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads its own group, with everything it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def _last_line(error: Exception) -> str:
    words = getattr(error, "stderr", None) or str(error).encode()
    return (words.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1][:300]
