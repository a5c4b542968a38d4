"""Other processors by emulation, for numerics only, never for time: ``emulated:arm64``, ``emulated:avx2``.

An int8 file that is right here can be wrong elsewhere: on x86 without VNNI the u8 x s8 products saturate in 16 bits
(measured: 22% of the answers change), OpenVINO computes fp16 files in f16 on ARM.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from softedge.bench import job, native
from softedge.bench.base import DeviceError, FolderDevice, Measurement, TimingPlan, last_line
from softedge.bench.emulated import sysroot
from softedge.errors import UserError, did_you_mean
from softedge.export.base import open_format
from softedge.progress import track
from softedge.records import Artifact
from softedge.run import write_json

NOT_TIMED = "not run: this processor was emulated, which says nothing about its speed"
KINDS = {
    "arm64": f"{sysroot.CORE} (Armv8.2, dot product), emulated by qemu",
    "avx2": "Haswell (AVX2, no VNNI), emulated by qemu",
}


class Emulated(FolderDevice):
    """The worker's own artifact process, under qemu; no rounds, no clocks."""

    programs: ClassVar[Mapping[str, str]] = {"emulated:arm64": sysroot.QEMU}
    known_options = ("precision",)

    def __init__(self, spec: str, address: str, options: Mapping[str, str]):
        super().__init__(spec, address, options)
        if address not in KINDS:
            raise UserError(f"device {spec}: unknown processor '{address}'{did_you_mean(address, tuple(KINDS))}")
        self.command: list[str] = []
        self.tree: sysroot.Sysroot | None = None
        self.natives: dict[str, Path] = {}  # format -> the library that its runtime needs there
        self.environment = dict(os.environ)

    def __enter__(self) -> Self:
        if self.address == "arm64":
            self.tree = sysroot.arm64()
            self.command, self.environment = self.tree.command(), self.tree.environment()
            return self
        qemu = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
        if qemu is None:
            raise DeviceError(f"{self.spec} needs qemu-x86_64-static; on Debian: sudo apt-get install qemu-user-static")
        self.command = [qemu, "-cpu", "Haswell", sys.executable]
        return self

    def describe(self) -> dict[str, Any]:
        answer = job.describe(self.command, self.spec, 300.0, self.environment)
        for key in ("load_average", "clocks_mhz", "temperature_c", "governor", "board"):
            answer.pop(key, None)  # of the machine that emulates
        return {**answer, "cpu": KINDS[self.address], "emulated": True}

    def why_not(self, artifact: Artifact) -> str:
        if (reason := super().why_not(artifact)) or self.tree is None:
            return reason
        return native.why_not(self.natives, open_format(artifact.target), *self.tree.about())

    def work(self, folder: Path, artifacts: Sequence[Artifact], plan: TimingPlan) -> list[Measurement]:
        plan = dataclasses.replace(plan, warmup=0, threads=1, encoded=())
        hashes = job.pack(folder, artifacts, plan, self.options, self.natives, timed=False)
        begun, results = time.monotonic(), {}
        for index, artifact in enumerate(track(artifacts, f"bench {self.spec}")):
            left = plan.time_limit_s - (time.monotonic() - begun)
            results[artifact.name] = self._serve(folder, index, left)
        seconds = time.monotonic() - begun
        write_json(folder / "results.json", {"results": results, "before": {}, "after": {}, "seconds": seconds})
        return [
            measurement
            if measurement.skipped
            else dataclasses.replace(
                measurement, not_timed=NOT_TIMED, load_ms=None, first_ms=None, peak_memory_bytes=None
            )
            for measurement in job.unpack(folder, artifacts, hashes, plan)
        ]

    def _serve(self, folder: Path, index: int, limit_s: float) -> dict[str, Any]:
        """Load one artifact, classify all images; what the process answered."""
        process = subprocess.Popen(
            [*self.command, str(folder / "worker.py"), "serve", str(folder), str(index)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            start_new_session=True,
        )
        try:
            output, errors = process.communicate(b"finish\n", timeout=max(limit_s, 1))
        except subprocess.TimeoutExpired:
            raise DeviceError(f"{self.spec}: hung, no result within {limit_s:.0f} s; it was stopped") from None
        finally:
            job.end(process)
        answers: dict[str, Any] = {}
        for line in output.splitlines():
            answers |= json.loads(line)
        if "failed" in answers:
            return {"skipped": answers["failed"]}
        if "n_outputs" not in answers:
            return {"skipped": f"the emulated process ended with exit code {process.returncode}: {last_line(errors)}"}
        return answers
