"""The largest input, and network, that meets limits of time and size on a device: measured before anything is trained.

Neither time nor size depends on the values of the weights, so that an untrained network answers both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from softedge.bench.base import DeviceError, TimingPlan, open_device
from softedge.config import Recipe
from softedge.errors import UserError
from softedge.export import contract
from softedge.export.base import Uint8, open_format
from softedge.files import temporary_folder
from softedge.progress import say
from softedge.records import Artifact, InputSpec, disturbance
from softedge.stages.opening import replaced

_CLASSES = 10  # of the head: of no influence on time, of little on size
_IMAGES = 8  # random ones, to calibrate and to time on
_COUNT, _SECONDS = 32, 1.5  # samples and seconds a size is timed for, at least
_TRIES = 3  # timings of a size that other work disturbs, at most: the calmest counts


@dataclass(frozen=True)
class Limits:
    """max_ms: p90 of one image on the device, milliseconds.  max_mb: of the file, 1e6 bytes.  None: no limit."""

    max_ms: float | None = None
    max_mb: float | None = None
    device: str = "local"

    def __bool__(self) -> bool:
        return self.max_ms is not None or self.max_mb is not None

    def met(self, fit: Fit) -> bool:
        fast = self.max_ms is None or (fit.p90_ms is not None and fit.p90_ms <= self.max_ms)
        return fast and (self.max_mb is None or fit.megabytes <= self.max_mb)

    def text(self) -> str:
        asked = [f"{self.max_ms:g} ms on {self.device}"] if self.max_ms is not None else []
        return " and ".join([*asked, *([f"{self.max_mb:g} MB"] if self.max_mb is not None else [])])


@dataclass(frozen=True)
class Fit:
    """What a network measures at one input size.  p90_ms: None where no time was asked for.  met: all limits.

    p50_ms: says whether other work disturbed the time (``records.disturbance``).
    top1: before training, of ``images`` (``front``); None where it was not measured.
    """

    network: str
    size: int
    p90_ms: float | None
    megabytes: float
    met: bool = False
    top1: float | None = None
    images: int = 0
    p50_ms: float | None = None

    @property
    def disturbed(self) -> bool:
        """Whether its time may be one of other work, and is too long."""
        return not self.met and disturbance(self.p50_ms, self.p90_ms) is not None

    def may_meet(self, max_ms: float) -> bool:
        """Whether only other work may have brought its time above the limit."""
        return self.disturbed and (self.p50_ms or 0.0) <= max_ms < (self.p90_ms or 0.0)

    def text(self) -> str:
        time = f"{self.p90_ms:.2f} ms (p90) and " if self.p90_ms is not None else ""
        if self.p90_ms is not None and self.disturbed:
            time = f"{self.p90_ms:.2f} ms (p90, disturbed by other work: p50 {self.p50_ms:.2f} ms) and "
        accuracy = f", top-1 {self.top1:.3f}" if self.top1 is not None else ""
        return f"{time}{self.megabytes:.1f} MB at {self.size} pixels{accuracy}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def largest(recipe: Recipe, sizes: Sequence[int], limits: Limits, smaller: Sequence[str] = ()) -> tuple[Fit, ...]:
    """The largest of ``sizes`` at which the recipe's network meets the limits, and all that was measured to find it.

    smaller: networks to go on with, the larger first, where it meets them at no size.
    The one that meets them is the last of the result.  The file is of the recipe's first format, int8 where the recipe
    exports that.  More pixels are taken to need more time, of a network whose weights are the same at every size.
    Raises UserError that names the nearest where none meets them, and DeviceError where the device cannot run the file.
    """
    names, sizes = [recipe.backbone.name, *smaller], sorted(sizes)
    tried: list[Fit] = []

    def fit(name: str, size: int) -> Fit:
        for known in tried:
            if (known.network, known.size) == (name, size):
                return known
        tried.append(_tried(recipe, name, size, limits))
        return tried[-1]

    least = fit(names[-1], sizes[0])  # where this is too much, nothing else needs to be measured
    if not least.met:
        raise UserError(_too_much(names, limits, least))
    chosen = next((found for name in names if (found := _largest_of(name, sizes, limits, fit))), least)
    return (*(one for one in tried if one is not chosen), chosen)


def with_smaller(fits: Sequence[Fit], recipe: Recipe, sizes: Sequence[int], limits: Limits) -> tuple[Fit, ...]:
    """``fits``, the result of ``largest``, with every one of ``sizes`` below the last measured of its network."""
    *others, last = fits
    known = {fit.size for fit in fits if fit.network == last.network}
    missing = [size for size in sizes if size < last.size and size not in known]
    return (*others, *(_tried(recipe, last.network, size, limits) for size in missing), last)


def _tried(recipe: Recipe, name: str, size: int, limits: Limits) -> Fit:
    found = _measured(replaced(recipe, backbone={"name": name}), size, limits)
    say(f"size: {name} takes {found.text()}")
    return replace(found, met=limits.met(found))


def _largest_of(name: str, sizes: Sequence[int], limits: Limits, fit: Callable[[str, int], Fit]) -> Fit | None:
    """By halving; None where a network meets the limits at none of ``sizes``, which go up."""
    found = fit(name, sizes[-1])
    if found.met:
        return found
    if limits.max_mb is not None and found.megabytes > limits.max_mb:
        return None  # the weights are the same at every size
    met, low, high = None, 0, len(sizes) - 1
    while low < high:
        middle = (low + high) // 2
        found = fit(name, sizes[middle])
        if found.met:
            met, low = found, middle + 1
        else:
            high = middle
    return met


def _too_much(names: Sequence[str], limits: Limits, nearest: Fit) -> str:
    idle = ", or plan again when the device is idle" if limits.max_ms and nearest.may_meet(limits.max_ms) else ""
    if len(names) > 1:
        return (
            f"{', '.join(names[:-1])} and {names[-1]} do not meet {limits.text()} at any size: the nearest is "
            f"{nearest.network} with {nearest.text()}; allow more{idle}"
        )
    return (
        f"{names[0]} does not meet {limits.text()} at any size: the nearest is {nearest.text()}; allow "
        f"more, or name a smaller network with --set backbone.name=mobilenetv3_small_050{idle}"
    )


def disturbed(fits: Sequence[Fit], limits: Limits) -> list[str]:
    """A line where sizes were found too slow by times that other work disturbed, and what to do."""
    limit = limits.max_ms
    slow = [fit for fit in fits if limit is not None and fit.may_meet(limit)]
    if not slow:
        return []
    sizes = ", ".join(f"{fit.network} at {fit.size} pixels" for fit in slow)
    return [
        f"other work disturbed the times of {sizes} on {limits.device}: more pixels, or a larger network, may meet "
        f"{limit:g} ms; let the device idle and plan again"
    ]


def _measured(recipe: Recipe, size: int, limits: Limits) -> Fit:
    from softedge import backbones
    from softedge.export.deployed import Deployed

    format_ = open_format(recipe.export.targets[0], "one", recipe.export.safe).without_timing()
    if (why := format_.missing()) is not None:
        raise UserError(why)
    precision = "int8" if "int8" in recipe.export.precisions else recipe.export.precisions[0]
    backbone = backbones.build(recipe.backbone.model_copy(update={"weights": "random"}))
    labels = tuple(f"class {index}" for index in range(_CLASSES))
    spec = InputSpec(size, size, (0.5,) * 3, (0.5,) * 3)
    deployed = Deployed(backbones.Classifier(backbone, labels, spec).eval(), spec)
    deployed.shipped = False  # it is untrained
    images = np.random.default_rng(0).integers(0, 256, (_IMAGES, size, size, 3), dtype=np.uint8)
    with temporary_folder("size") as folder:
        artifact = format_.convert(deployed, precision, images, folder)
        answers = deployed.predict(images)
        contract.write(folder, artifact, contract.Golden(images, answers, answers))
        p50, p90 = None, None
        if limits.max_ms is not None:
            p50, p90 = _times(artifact, images, limits.device, limits.max_ms, folder, recipe.bench.threads)
        return Fit(recipe.backbone.name, size, p90, round(artifact.size_bytes / 1e6, 3), p50_ms=p50)


def _times(
    artifact: Artifact, images: Uint8, device: str, limit: float, folder: Path, threads: int
) -> tuple[float, float]:
    """p50 and p90 of an image on a device, milliseconds; again where it is above the limit and was disturbed."""
    found: list[tuple[float, float]] = []
    for _ in range(_TRIES):
        found.append(_timed(artifact, images, device, folder, threads))
        p50, p90 = found[-1]
        if p90 <= limit or p50 > limit or disturbance(p50, p90) is None:
            break
    return min(found, key=lambda pair: pair[1])


def _timed(artifact: Artifact, images: Uint8, device: str, folder: Path, threads: int) -> tuple[float, float]:
    np.save(folder / "images.npy", images)
    plan = TimingPlan.of("quick", folder / "images.npy", artifact.spec, threads=threads)
    with open_device(device) as opened:
        (measured,) = opened.run([artifact], replace(plan, min_count=_COUNT, min_seconds=_SECONDS))
    if why := measured.skipped or measured.not_timed:
        raise DeviceError(f"--max-ms: {device} gives no time for {artifact.name}: {why}")
    p50, p90 = np.percentile(np.asarray(measured.samples_ms), [50, 90])
    return float(p50), float(p90)
