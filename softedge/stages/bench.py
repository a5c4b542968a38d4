"""``softedge bench``: every exported file on every device, latency and accuracy of the same file in the same run."""

from __future__ import annotations

import datetime
import functools
import shutil
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softedge import registry
from softedge.bench import answers
from softedge.bench.base import PRESETS, Device, DeviceError, Measurement, TimingPlan, open_devices
from softedge.bench.row import Session
from softedge.config import Recipe
from softedge.data import late
from softedge.data.images import Data, FileImages, Images
from softedge.errors import UserError, need_lists, quoted
from softedge.export import contract
from softedge.files import temporary_folder
from softedge.progress import say
from softedge.records import Artifact, InputSpec, Outcome, Result
from softedge.run import Run, differences, perform, sha256
from softedge.stages import gate
from softedge.stages.base import on_run

ENCODED_IMAGES = 16  # files for the end-to-end samples, used in turn


def bench(
    run: str | PathLike[str],
    devices: Sequence[str] | None = None,
    preset: str | None = None,
    set: Sequence[str] = (),
    force: bool = False,
) -> list[Result]:
    """Measure latency and accuracy of the exported files on devices."""
    need_lists(devices=devices, set=set)
    if plugin := registry.owner(run):
        done: list[Result] = plugin.bench(run=run, devices=devices, preset=preset, set=set, force=force)
        return done
    return on_run(measured_and_judged, run, set, force, bench={"devices": devices, "preset": preset})


def measured_and_judged(run: Run, recipe: Recipe, data: Data, force: bool = False) -> list[Result]:
    """The stage, and then the latency gate on the new numbers."""
    measured = stage(run, recipe, data, force)
    gate.stage(run, recipe, data)
    return measured


def stage(run: Run, recipe: Recipe, data: Data, force: bool = False) -> list[Result]:
    """Measure the run's exported files on the recipe's devices; one result ``bench/<artifact>@<device>`` each.

    A device that fails is reported in every row it should have filled, the others still run, and then DeviceError.
    """
    preset = recipe.bench.preset
    opened = open_devices(recipe.bench.devices)
    # A format that could not be made has a result with the reason, and no contract.
    run_exports = [name for name in run.results("export") if (run.folder(f"export/{name}") / contract.FILE).is_file()]
    if not run_exports:
        raise UserError(f"{run.root} has no exported files yet; run: softedge export {quoted(run.root)}")
    artifacts = [contract.read(run.folder(f"export/{name}")) for name in run_exports]
    images = Subjects(data, artifacts[0].spec, PRESETS[preset].accuracy_images, recipe.seed)
    _forget_unreached(run, opened)
    results: list[Result] = []
    failures: list[str] = []
    for device in opened:
        try:
            rows = Benchmark(run, recipe, device, preset, images, force).measure(artifacts)
            results += rows
            if not any(row.metrics for row in rows):
                raise DeviceError(f"{device.label} ran no file: {'; '.join(_reasons(rows))}")
        except DeviceError as error:
            failures.append(str(error))
            if device is not opened[-1]:  # the last one is reported by whoever catches this
                say(f"bench: {error}")
    if failures:
        raise DeviceError("; ".join(failures))
    return results


def _reasons(rows: Sequence[Result]) -> list[str]:
    """Why rows are empty, each reason once."""
    return list(dict.fromkeys(str(why) for row in rows for why in row.skipped.values()))


def _forget_unreached(run: Run, asked: Sequence[Device]) -> None:
    """Remove the rows of devices that failed before they answered and are not asked again: a mistyped address must not
    stay in every later report.  What a device did answer stays, also where it could not run a file.
    """
    now = {device.folder for device in asked}
    for name, result in run.results("bench").items():
        if name.partition("@")[2] not in now and not result.metrics and not result.details:
            shutil.rmtree(run.folder(f"bench/{name}"))


class Subjects:
    """The images of a benchmark: test images where there are any, prepared only when something has to be measured."""

    def __init__(self, data: Data, spec: InputSpec, at_most: int, seed: int):
        source: Images = data.test if len(data.test.every) else data.pretrain
        chosen = np.arange(len(source.every))
        if len(chosen) > at_most:
            chosen = np.sort(np.random.default_rng(seed).choice(len(chosen), at_most, replace=False))
        self.images, self.spec, self.data = source.subset(source.left(chosen)), spec, data
        self.asked = len(chosen)  # with those that have been set aside since
        self.labels: NDArray[np.int64] = self.images.labels

    def write(self, folder: Path) -> tuple[Path, tuple[Path, ...]]:
        """images.npy (uint8, as the model gets them) and some encoded files below ``folder``."""
        late.require(self.data, "test")
        np.save(folder / "images.npy", self.images.prepared(self.spec))
        return folder / "images.npy", tuple(
            self._encoded(folder, i) for i in range(min(ENCODED_IMAGES, len(self.images)))
        )

    def _encoded(self, folder: Path, index: int) -> Path:
        if isinstance(self.images, FileImages):
            suffix = self.images.path(index).suffix.lower()
            if suffix in (".jpg", ".jpeg", ".png"):
                copy = folder / f"photo-{index}{suffix}"
                copy.write_bytes(self.images.read_same(index))
                return copy
        from PIL import Image

        Image.fromarray(self.images.needed(index)).save(folder / f"photo-{index}.png")
        return folder / f"photo-{index}.png"


class Benchmark:
    """One device's part of the stage."""

    def __init__(self, run: Run, recipe: Recipe, device: Device, preset: str, images: Subjects, force: bool):
        self.run, self.recipe, self.device, self.preset = run, recipe, device, preset
        self.images, self.force = images, force
        self.threads = recipe.bench.threads

    def stage(self, artifact: Artifact) -> str:
        return f"bench/{artifact.name}@{self.device.folder}"

    def measure(self, artifacts: Sequence[Artifact]) -> list[Result]:
        """Results of all artifacts, in order.

        What was measured before is measured again where a file is new: latencies of one session can be compared.  A
        file that the device could not run before is tried alone first.
        """
        pending = [artifact for artifact in artifacts if not self._done(artifact)]
        finished = [artifact for artifact in artifacts if artifact not in pending]
        for artifact in finished:
            self._refuse_others(artifact)
        if finished and (new := [artifact.name for artifact in pending if not self._tried(artifact)]):
            say(self._again(new, artifacts))
            pending, finished = list(artifacts), []
        done = [self._perform(artifact, _unreachable, False) for artifact in finished]
        fresh: list[Result] = []
        if pending:
            try:
                fresh = self._measure(pending)
                if finished and (new := [a.name for a, row in zip(pending, fresh, strict=True) if row.metrics]):
                    say(self._again(new, artifacts))
                    done, fresh = [], self._measure(pending := list(artifacts))
            except DeviceError as error:
                for artifact in pending:
                    self._give_up(artifact, f"not run: {error}")
                raise
        by_stage = {result.stage: result for result in [*done, *fresh]}
        return [by_stage[self.stage(artifact)] for artifact in artifacts]

    def _again(self, new: Sequence[str], artifacts: Sequence[Artifact]) -> str:
        return (
            f"{self.device.label}: {', '.join(new)} {'is' if len(new) == 1 else 'are'} new there; all "
            f"{len(artifacts)} files are measured in one session, for latencies that can be compared"
        )

    def _measure(self, artifacts: Sequence[Artifact]) -> list[Result]:
        try:
            about, began, plan, measured = self._run(artifacts)
        except DeviceError:
            raise
        except UserError as error:  # something that this device needs could not be made or fetched
            raise DeviceError(f"{self.device.label}: {error}") from error
        names = [str(name) for name in self.images.images.names]
        stored = answers.read(self.run.folder("check"))
        checked = {a.name: stored[a.name][1] for a in artifacts if stored.get(a.name, ("",))[0] == a.sha256}
        session = Session(began, about, plan, measured, self.images.labels, names, checked)
        return [
            self._perform(artifact, functools.partial(self._row, session, artifact, measurement), True)
            for artifact, measurement in zip(artifacts, measured, strict=True)
        ]

    def _run(self, artifacts: Sequence[Artifact]) -> tuple[dict[str, Any], str, TimingPlan, tuple[Measurement, ...]]:
        """What the device says of itself, when it began, what it was asked, what it gave."""
        with temporary_folder("images") as folder, self.device as device:
            images, encoded = self.images.write(folder)
            plan = TimingPlan.of(
                self.preset,
                images,
                self.images.spec,
                encoded=encoded,
                threads=self.threads,
                seed=self.recipe.seed,
                time_limit_s=300 + len(artifacts) * (60 + 10 * PRESETS[self.preset].min_seconds),
            )
            device.prepare(artifacts)
            about = {**({"kind": device.kind} if device.kind else {}), **device.describe()}
            began = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            return about, began, plan, tuple(device.run(artifacts, plan))

    def _row(self, session: Session, artifact: Artifact, measurement: Measurement, folder: Path) -> Outcome:
        return late.recorded(session.row(artifact, measurement, folder), late.record(self.images.data))

    def _done(self, artifact: Artifact) -> bool:
        """Whether to leave it alone: this file was measured, not merely skipped, and is not asked for again."""
        before = self.run.result(self.stage(artifact))
        # Settings that changed are refused by perform, before anything is measured.
        measured = before is not None and bool(before.metrics) and before.inputs == self._inputs(artifact)
        return measured and not self.force

    def _tried(self, artifact: Artifact) -> bool:
        """Whether the device has been asked to run this file before."""
        before = self.run.result(self.stage(artifact))
        return before is not None and before.inputs == self._inputs(artifact)

    def _refuse_others(self, artifact: Artifact) -> None:
        """OtherSettings for a finished row that was measured with other settings."""
        before = self.run.result(self.stage(artifact))
        if before is not None and differences(before.recipe, self._settings()):
            self._perform(artifact, _unreachable, False)

    def _perform(self, artifact: Artifact, work: Callable[[Path], Outcome], force: bool) -> Result:
        recipe, inputs = self._settings(), self._inputs(artifact)
        return perform(self.run, self.stage(artifact), work, recipe=recipe, inputs=inputs, force=force)

    def _settings(self) -> dict[str, Any]:
        preset = PRESETS[self.preset]
        return {
            "device": self.device.label,
            "preset": self.preset,
            "min_count": preset.min_count,
            "min_seconds": preset.min_seconds,
            "threads": self.threads,
            "images": self.images.asked,
            "seed": self.recipe.seed,  # which of the images
        }

    def _inputs(self, artifact: Artifact) -> dict[str, str]:
        index = self.run.folder("data") / "index.json"
        return {"model": artifact.sha256, **({"data": sha256(index)} if index.exists() else {})}

    def _give_up(self, artifact: Artifact, reason: str) -> None:
        """Leave the reason where the numbers would be, unless an earlier measurement is there."""
        before = self.run.result(self.stage(artifact))
        if before is None or not before.metrics:
            self._perform(artifact, lambda folder: Outcome(skipped={"latency": reason, "top1": reason}), True)


def _unreachable(folder: Path) -> Outcome:
    raise AssertionError("a finished stage is not measured again")
