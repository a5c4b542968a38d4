"""An Android phone on a cable: ``adb://SERIAL``, or ``adb:`` for the only one attached; ``threads=4``.

The phone needs nothing but USB debugging: no app, no root.  A folder below /data/local/tmp gets the runner of
``android_bundle``, the models and the images; the runner measures; outputs and samples come back; the folder is
removed, also after Ctrl-C, a time-out, or when the cable is pulled (then the runner removes it by itself).

Not yet verified on a phone: tested with the real adb program against a stand-in for the phone's side, the runner under
qemu.  An emulator's timings are never reported.
"""

from __future__ import annotations

import contextlib
import functools
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from softedge.bench import job, native
from softedge.bench.android import bundle as android_bundle
from softedge.bench.android import facts as android_facts
from softedge.bench.android.adb import LOST, explain, quoted
from softedge.bench.android.adb import Adb as Client
from softedge.bench.base import DeviceError, FolderDevice, Measurement, TimingPlan
from softedge.bench.board import kernels
from softedge.bench.ssh import wheels
from softedge.export import contract
from softedge.export.base import open_format
from softedge.export.finishing import finish_integers
from softedge.progress import say
from softedge.records import Artifact
from softedge.run import read_json

REMOTE = "/data/local/tmp"  # where Android lets the shell user put and run programs
OLDEST_API = 24  # Android 7: before it, adb reports no exit codes
MOST_MODELS = 32
EMULATED = "not run: this device is an emulator (ro.boot.qemu), which says nothing about a phone's speed"
# Until somebody has run it on one; then this goes, and the README says on which.
CAVEAT = "the adb device is tested against a double and under qemu but not yet verified on a phone"
_CLEAN_S = 20.0
_KILLED = 0x80 | 9  # how adb reports a program that SIGKILL ended


class AdbDevice(FolderDevice):
    """Pushes the runner, runs it, pulls what it wrote."""

    programs: ClassVar[Mapping[str, str]] = {"adb://...": "adb"}
    formats = ("onnx", "executorch", "litert")
    called = "the runner for Android"
    known_options = ("threads",)

    def __init__(self, spec: str, address: str, options: Mapping[str, str]):
        super().__init__(spec, address, options)
        self.client: Client
        self.natives: dict[str, Path] = {}  # format -> the library that runs its files there

    def __enter__(self) -> Self:
        self.client = Client(self.spec, self.address)
        self.client.connect()
        try:
            self._check_phone()
        except BaseException:
            self.client.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()

    def _check_phone(self) -> None:
        self.known = android_facts.properties(self.client.shell("getprop").replace("\r", "").splitlines())
        abis = self.known.get("ro.product.cpu.abilist", self.known.get("ro.product.cpu.abi", ""))
        if "arm64-v8a" not in abis.split(","):
            raise DeviceError(
                f"{self.spec}: the runner is for 64-bit ARM, this device supports {abis or 'something unknown'}; "
                "use its browser: browser:"
            )
        level = self.known.get("ro.build.version.sdk", "")
        if level.isdigit() and int(level) < OLDEST_API:
            raise DeviceError(f"{self.spec}: Android 7 or newer is needed (API level {OLDEST_API}), this is {level}")

    @functools.cache  # noqa: B019  (one device, one answer)
    def describe(self) -> dict[str, Any]:
        facts = android_facts.describe(self.client.shell(android_facts.SCRIPT))
        runtimes = {"onnxruntime": android_bundle.ONNXRUNTIME}
        return {**facts, "serial": self.client.serial, "runtimes": runtimes, "caveat": CAVEAT}

    def why_not(self, artifact: Artifact) -> str:
        if reason := super().why_not(artifact):
            return reason
        return native.why_not(self.natives, open_format(artifact.target), *android_bundle.THERE, phone=True)

    def work(self, folder: Path, artifacts: Sequence[Artifact], plan: TimingPlan) -> list[Measurement]:
        measurements: list[Measurement] = []
        for start in range(0, len(artifacts), MOST_MODELS):
            part = folder / f"part-{start}"
            part.mkdir()
            measurements += self._part(part, artifacts[start : start + MOST_MODELS], plan)
        return measurements

    def _part(self, folder: Path, artifacts: Sequence[Artifact], plan: TimingPlan) -> list[Measurement]:
        bundle = android_bundle.bundle()
        with self._remote() as remote:
            count = self._pack(folder, artifacts, plan)
            natives = {name: path for name, path in self.natives.items() if name in {a.target for a in artifacts}}
            libraries = [*android_bundle.files(bundle), *android_bundle.native_files(natives)]
            self.client.push([*libraries, *sorted(folder.iterdir())], remote)
            around = {"before": self._conditions()}
            if caveat := _asleep(around):
                say(f"{self.spec}: {caveat}")
            self._follow(remote, plan)
            around["after"] = self._conditions()
            back = folder / "back"
            back.mkdir()
            # The shell lists, adb pulls by name: patterns are the phone's business.
            names = self.client.shell(f"cd {quoted(remote)} && ls").split()
            wanted = [n for n in names if n == "results.json" or n.startswith(("outputs-", "profile-"))]
            self.client.pull(wanted, remote, back)
            rows = _rows(back / "results.json", len(artifacts))
            return [
                self._measurement(artifact, index, row, back, count, plan, around)
                for index, (artifact, row) in enumerate(zip(artifacts, rows, strict=True))
            ]

    @contextlib.contextmanager
    def _remote(self) -> Iterator[str]:
        """A fresh folder on the phone; on the way out, its processes and files go, whatever happened."""
        remote = f"{REMOTE}/softedge-{secrets.token_hex(6)}"
        try:
            self.client.shell(f"mkdir -m 700 {quoted(remote)}")
            yield remote
        finally:
            # Only this runner's process: its children die with it.
            script = f"kill -9 $(cat {quoted(remote + '/pid')}) 2>/dev/null; rm -rf {quoted(remote)}"
            try:
                self.client.shell(script, _CLEAN_S)
            except DeviceError:
                say(f"{self.spec}: the phone cannot be reached for clean-up; the runner removes {remote} itself")

    def _pack(self, folder: Path, artifacts: Sequence[Artifact], plan: TimingPlan) -> int:
        """job.txt, images.bin and the models; returns how many images."""
        images = np.load(plan.images, mmap_mode="r")
        images.tofile(folder / "images.bin")
        for index, artifact in enumerate(artifacts):
            (folder / f"model-{index}.{artifact.target}").write_bytes(artifact.path.read_bytes())
        keys = ("threads", "warmup", "min_count", "min_seconds", "slice_ms", "slice_count", "seed")
        values = {key: getattr(plan, key) for key in keys}
        values |= {"models": len(artifacts), "images": len(images), "height": images.shape[1], "width": images.shape[2]}
        values |= {"limit_s": plan.time_limit_s, "timed": int(not self._emulated), "remove_when_orphaned": 1}
        (folder / "job.txt").write_text("".join(f"{key} {value}\n" for key, value in values.items()))
        return len(images)

    @property
    def _emulated(self) -> bool:
        return android_facts.emulated(self.known)

    def _follow(self, remote: str, plan: TimingPlan) -> None:
        # exec: the pid is the runner's.  What a vendor preloads into its own programs does not fit ours.
        script = (
            f"cd {quoted(remote)} && chmod 700 runner {android_bundle.LOADER} && echo $$ > pid && "
            f"unset LD_PRELOAD LD_LIBRARY_PATH && exec ./{android_bundle.LOADER} --library-path . ./runner"
        )

        def why(code: int, output: bytes) -> str:
            if not self.client.alive():
                return LOST
            if code == _KILLED:
                return "the phone killed the runner, as it does when it runs out of memory; close other apps, try again"
            return f"the runner ended with exit code {code}: {explain(output.decode(errors='replace'), 'it')}"

        job.follow(self.client.shell_command(script), plan, f"bench {self.spec}", why)

    def _conditions(self) -> dict[str, Any]:
        return android_facts.conditions(self.client.shell(android_facts.CONDITIONS))

    def _measurement(
        self,
        artifact: Artifact,
        index: int,
        row: Mapping[str, Any],
        back: Path,
        count: int,
        plan: TimingPlan,
        around: Mapping[str, Any],
    ) -> Measurement:
        if "failed" in row:
            return Measurement(artifact.name, artifact.sha256, skipped=f"failed: {row['failed']}")
        if row["sha256"] != artifact.sha256:
            raise DeviceError(f"{artifact.name} was corrupted in transfer to the phone (its hash differs); try again")
        outputs = np.fromfile(back / f"outputs-{index}.bin", "<f4")
        if outputs.size != count * row["columns"] or not np.isfinite(outputs).all():
            reason = f"failed: {outputs.size} outputs, expected {count} x {row['columns']} finite float32"
            return Measurement(artifact.name, artifact.sha256, skipped=reason)
        details: dict[str, Any] = dict(around)
        precision = ""
        for profile in back.glob(f"profile-{index}_*.json"):
            summary, providers = kernels.of_profile(json.loads(profile.read_text()))
            precision, details["kernels"] = summary["effective_precision"], summary["kernels"]
            details["providers"] = dict(providers)
        used = {str(core): times for core, times in enumerate(row["cores"]) if times}
        timed = not self._emulated
        return Measurement(
            artifact.name,
            artifact.sha256,
            not_timed="" if timed else EMULATED,
            samples_ms=row["samples_ms"],
            rounds=row["rounds"],
            load_ms=row["load_ms"] if timed else None,
            first_ms=row["first_ms"] if timed else None,
            outputs=_finished(artifact, outputs.reshape(count, -1).astype(np.float32)),
            end_to_end_skipped="the runner decodes no images: an app would use Android's own decoder",
            runtime=f"onnxruntime {row['version']}" if row["version"] else _sent(artifact),
            accelerator="CPUExecutionProvider" if row["version"] else "XNNPACK",
            threads=plan.threads,
            effective_precision=precision,
            peak_memory_bytes=int(row["peak_memory_bytes"]) if timed else None,
            details={
                **details,
                **({"samples_on_core": used} if used else {}),
                **({"caveat": caveat} if (caveat := _asleep(around)) else {}),
            },
        )


def _finished(artifact: Artifact, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """What other files answer, where a file in integers alone has given integers: as its contract says."""
    if not open_format(artifact.target).integers_alone(artifact):
        return outputs
    edge = contract.describe(artifact.path.parent)["output"]
    return finish_integers(outputs, edge["scale"], edge["zero_point"], artifact.output)


def _sent(artifact: Artifact) -> str:
    """The runtime of a format whose library does not report its version: the one that was sent."""
    packages = [*open_format(artifact.target).board_packages.values()]
    pins = wheels.pinned_for(packages, android_bundle.THERE[0])
    return ", ".join(f"{name} {version}" for name, (version, _) in pins.items())


def _asleep(around: Mapping[str, Any]) -> str:
    """A line when the screen was off before or after the measurement: Android then slows everything down."""
    screens = [conditions["screen"] for conditions in around.values() if conditions.get("screen", "awake") != "awake"]
    if not screens:
        return ""
    return f"the phone's screen is off ({screens[0]}): it measures slower than in use; unlock it and keep the screen on"


def _rows(path: Path, count: int) -> list[dict[str, Any]]:
    """What the runner wrote, one entry per model."""
    if not path.exists():
        raise DeviceError("the runner on the phone ended without results; run this again")
    rows = read_json(path)
    if not isinstance(rows, list) or len(rows) != count:
        raise DeviceError(f"{path.name} from the phone does not cover {count} models; run this again")
    return rows
