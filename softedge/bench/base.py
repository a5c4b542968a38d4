"""What a device is: it describes itself, and it runs exported files and hands back raw samples and outputs.

No statistics here and none in any device: only ``bench/latency.py`` computes percentiles.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from softedge import registry
from softedge.errors import UserError, did_you_mean
from softedge.export.base import open_format
from softedge.files import temporary_folder
from softedge.records import Artifact, InputSpec


class DeviceError(UserError):
    """A device that cannot be reached, disappeared, hung, or lacks something: one line that says what to do."""


@dataclass(frozen=True)
class Preset:
    """When an artifact has been measured enough: after ``min_count`` samples and ``min_seconds`` of measured time."""

    min_count: int
    min_seconds: float
    accuracy_images: int  # at most so many test images are classified on the device


# Counts and durations follow MLPerf Mobile's single stream (1024 samples and 60 s for a submission).
PRESETS = {
    "quick": Preset(64, 4.0, 500),
    "standard": Preset(128, 10.0, 1000),
    "submission": Preset(1024, 60.0, 5000),
}


@dataclass(frozen=True)
class TimingPlan:
    """What to run on a device.

    The artifacts take turns in rounds.  In a round each one, in an order drawn from ``seed``, first runs once untimed
    (the others have just used the caches) and then runs timed, batch 1, for ``slice_ms`` and at least ``slice_count``
    images; until it has ``min_count`` samples and their sum is ``min_seconds``.  Sample i of an artifact is image
    i mod N, so real images are timed.  ``warmup`` runs precede the first round and are not reported.
    Whatever of the N images was not timed is run afterwards, so that ``outputs`` has all N.
    """

    preset: str
    min_count: int
    min_seconds: float
    images: Path  # .npy, uint8 (N, size, size, 3) RGB: resized and cropped, as the model gets them
    spec: InputSpec  # how ``encoded`` becomes such an image
    encoded: tuple[Path, ...] = ()  # JPEG or PNG files for the end-to-end samples (decode, resize, model)
    end_to_end_count: int = 32
    threads: int = 1
    warmup: int = 5
    slice_ms: float = 100.0
    slice_count: int = 4
    seed: int = 0
    time_limit_s: float = 1800.0  # for the whole run; past it the device counts as hung

    @classmethod
    def of(cls, preset: str, images: Path, spec: InputSpec, **more: Any) -> Self:
        """The plan of a preset by name."""
        if preset not in PRESETS:
            raise UserError(f"unknown preset '{preset}'{did_you_mean(preset, tuple(PRESETS))}")
        chosen = PRESETS[preset]
        return cls(preset, chosen.min_count, chosen.min_seconds, images, spec, **more)

    def with_options(self, options: Mapping[str, str]) -> Self:
        """The plan with what a device's address overrides (``local:threads=2``)."""
        return replace(self, threads=integer(options, "threads", self.threads))


@dataclass(frozen=True)
class Measurement:
    """One artifact on one device, raw: every sample in the order it was taken, none removed.

    ``skipped`` says why the artifact did not run at all (then everything else is empty); ``not_timed`` why it ran
    without being timed (emulation: numerics only).  Times are milliseconds.  The ``rounds`` of two artifacts of one run
    pair up: equal numbers were measured side by side.
    """

    artifact: str  # Artifact.name, "onnx-int8"
    sha256: str  # of the file that ran, as ``Artifact.sha256`` defines it, checked on the device
    skipped: str = ""
    not_timed: str = ""
    samples_ms: Sequence[float] = ()
    runs_per_sample: int = 1  # a sample is their mean: more than one where one is short against a step of the clock
    rounds: Sequence[int] = ()  # round of each sample, same length as samples_ms
    load_ms: float | None = None  # reading the file until ready to run, runtime import excluded
    first_ms: float | None = None  # the first inference after loading
    outputs: NDArray[np.float32] | None = None  # (N, classes), row i belongs to image i of the plan
    end_to_end_ms: Mapping[str, Sequence[float]] = field(default_factory=dict)  # "decode" "resize" "model" "total"
    end_to_end_skipped: str = ""  # why there are no end-to-end samples
    runtime: str = ""  # "onnxruntime 1.31.1"
    accelerator: str = ""  # execution provider, backend or compute unit that really ran
    threads: int | None = None  # as read back from the runtime where it reports it
    effective_precision: str = ""  # what the arithmetic was done in: "f32", "bf16", "int8 + f32"
    peak_memory_bytes: int | None = None  # of the process that ran this artifact alone
    details: Mapping[str, Any] = field(default_factory=dict)  # anything else worth a row in the report


class Device(ABC):
    """A place where exported files run.  Use as a context manager; leaving it leaves no process or file behind.

    Subclasses are built by ``open_device`` as ``Class(spec, address, options)``: ``ssh://pi@board:22?python=python3``
    gives address ``pi@board:22`` and options ``{"python": "python3"}``.  Check both in ``__init__`` (cheap, nothing is
    connected), connect in ``__enter__``.
    """

    kind: ClassVar[str] = ""
    """How near it is to where the app will run, in the report's words (``report.devices.KINDS``).

    "this computer" for one that runs files on the machine that softedge runs on, so that its times are not shown as a
    phone's or a board's.  Empty: the report goes by the address, and takes one that it does not know for a device of
    its own.
    """
    programs: ClassVar[Mapping[str, str]] = {}
    """Addresses and the program of this machine that each needs, for ``softedge doctor``: {"ssh://...": "ssh"}."""
    known_options: tuple[str, ...] = ()
    silent_options: tuple[str, ...] = ()  # how to get there; they do not change what is measured

    def __init__(self, spec: str, address: str, options: Mapping[str, str]):
        self.spec, self.address, self.options = spec, address, dict(options)
        for option in options:
            if option not in self.known_options:
                raise UserError(f"device {spec}: unknown option '{option}'{did_you_mean(option, self.known_options)}")

    @property
    def label(self) -> str:
        """The address without the options that only say how to get there: what a result is filed under."""
        shown = ",".join(f"{key}={value}" for key, value in self.options.items() if key not in self.silent_options)
        if "://" in self.spec:
            return self.spec.partition("?")[0] + (f"?{shown}" if shown else "")
        rest = ",".join(filter(None, (self.address, shown)))
        return self.spec.partition(":")[0] + (f":{rest}" if rest else "")

    @property
    def folder(self) -> str:
        """The label as the name of a folder: ``ssh://pi@board:22`` -> ``ssh_pi_board_22``."""
        return re.sub(r"[^A-Za-z0-9.-]+", "_", self.label).strip("_")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def prepare(self, artifacts: Sequence[Artifact]) -> None:  # noqa: B027  (most devices have nothing to do)
        """Bring there what these files need, before ``describe`` and ``run``.  Called inside the context."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What the device reports about itself.

        Keys where known: cpu os machine isa (list) cores memory_bytes clocks_mhz governor temperature_c runtimes
        (name -> version) python.  The report calls the device by ``name`` before ``model``, ``board`` and ``cpu``;
        other keys are kept in report.json and not shown.  Values are JSON-serialisable.  Called inside the context.
        """

    @abstractmethod
    def run(self, artifacts: Sequence[Artifact], plan: TimingPlan) -> list[Measurement]:
        """One measurement per artifact, in that order.  DeviceError when the device itself fails."""


class FolderDevice(Device):
    """A device that is sent a folder: says of each artifact whether it can run, and measures those that can.

    formats: the names of those it runs; empty: all that bring a runtime for any machine with Python.
    called: what a message calls a device with ``formats``.
    """

    formats: tuple[str, ...] = ()
    called: str = "this device"

    def why_not(self, artifact: Artifact) -> str:
        """Why this device cannot run an artifact; empty when it can."""
        if self.formats:
            if artifact.target in self.formats:
                return ""
            titles = " and ".join(", ".join(open_format(name).title for name in self.formats).rsplit(", ", 1))
            asked = f"softedge export --targets {','.join(self.formats)}"
            return f"not run: {self.called} runs {titles} files; export one with: {asked}"
        format_ = open_format(artifact.target)
        if format_.special_device:
            return f"not run: {format_.special_device}"
        return "" if format_.board_runtime() else f"not run: {format_.title} brings no runtime for devices"

    @abstractmethod
    def work(self, folder: Path, artifacts: Sequence[Artifact], plan: TimingPlan) -> list[Measurement]:
        """Measure artifacts that can run.  folder: empty, on this machine, removed afterwards."""

    def run(self, artifacts: Sequence[Artifact], plan: TimingPlan) -> list[Measurement]:
        reasons = {artifact.name: self.why_not(artifact) for artifact in artifacts}
        runnable = [artifact for artifact in artifacts if not reasons[artifact.name]]
        measured = {a.name: Measurement(a.name, a.sha256, skipped=reasons[a.name]) for a in artifacts}
        if runnable:
            with temporary_folder("bench") as folder:
                for measurement in self.work(folder, runnable, plan.with_options(self.options)):
                    measured[measurement.artifact] = measurement
        return [measured[artifact.name] for artifact in artifacts]


def last_line(output: bytes | str) -> str:
    """What a program said last, cut to a length that fits into one line of a message."""
    text = output.decode(errors="replace") if isinstance(output, bytes) else output
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def open_device(spec: str) -> Device:
    """The device of an address: ``local``, ``local:threads=2,provider=CPUExecutionProvider``, ``ssh://pi@board:2222``,
    ``ssh://pi@board?python=/opt/py/bin/python3``, ``adb://SERIAL``, ``browser:``, ``macos:``, ``emulated:arm64``.
    """
    name, _, rest = spec.strip().partition(":")
    if name not in registry.DEVICES and "@" in name:
        raise UserError(f"unknown device '{spec.strip()}'; did you mean 'ssh://{spec.strip()}'?")
    kind = registry.lookup(registry.DEVICES, name, "device")
    if rest.startswith("//"):
        address, _, tail = rest[2:].partition("?")
        pieces = re.split("[&,]", tail)
    else:
        pieces = rest.split(",")
        address = next((piece for piece in pieces if piece and "=" not in piece), "")
        pieces = [piece for piece in pieces if piece != address]
    options = {}
    for piece in filter(None, pieces):
        key, sign, value = piece.partition("=")
        if not sign or not value:
            raise UserError(f"device {spec}: '{piece}' is not an option; expected KEY=VALUE, for example threads=2")
        options[key] = value
    return kind(spec.strip().removesuffix(":"), address, options)


def open_devices(specs: Sequence[str]) -> list[Device]:
    """``open_device`` of each, once; UserError where there is none: nothing would be measured."""
    if not specs:
        raise UserError("bench.devices is empty, so nothing would be timed; name at least one device: --devices local")
    return [open_device(spec) for spec in dict.fromkeys(specs)]


def split_specs(text: str) -> tuple[str, ...]:
    """The devices of a ``--devices`` list; a comma also parts the options of one device:
    ``local:threads=2,provider=X,browser:`` -> (``local:threads=2,provider=X``, ``browser:``).
    """
    specs: list[str] = []
    for piece in filter(None, (p.strip() for p in text.split(","))):
        if specs and "=" in piece and ":" not in piece.split("=")[0]:
            specs[-1] += f",{piece}"
        else:
            specs.append(piece)
    return tuple(specs)


def integer(options: Mapping[str, str], key: str, default: int) -> int:
    """A positive whole number among a device's options."""
    value = options.get(key, str(default))
    if not value.isdigit() or int(value) < 1:
        raise UserError(f"device option {key}={value}: expected a whole number, at least 1")
    return int(value)
