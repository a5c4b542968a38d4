"""``softedge export``, ``check`` and ``bench`` when they are given a transfer folder: open it, do one stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softedge.records import Result

if TYPE_CHECKING:
    from softedge.detection.stages import Trained

TARGETS = ("onnx", "openvino")


def is_detector(folder: Any) -> bool:
    """Whether what a user gave is a transfer folder (RUN/transfer/voc) rather than a run."""
    return isinstance(folder, str | Path) and (Path(folder) / "detector.safetensors").is_file()


@contextmanager
def _opened(folder: str | Path, overrides: Sequence[str], **sections: dict[str, Any]) -> Iterator[Trained]:
    from softedge.detection.stages import Trained, around
    from softedge.stages.pipeline import reopen, replaced

    run, recipe = reopen(around(folder), overrides)
    with run.locked():
        yield Trained(folder, replaced(recipe, **sections))


def export(
    folder: str | Path,
    targets: Sequence[str] | None,
    precisions: Sequence[str] | None,
    overrides: Sequence[str] = (),
    force: bool = False,
) -> list[Result]:
    """Export the detector; without names, to the formats that can hold one."""
    from softedge.detection.stages import export as write

    with _opened(folder, overrides, export={"precisions": precisions}) as trained:
        return write(trained, targets or TARGETS, trained.recipe.export.precisions, force)


def check(folder: str | Path, gates: Mapping[str, Any], overrides: Sequence[str] = (), force: bool = False) -> Result:
    """Compare every exported file with PyTorch by average precision."""
    from softedge.detection.stages import check as measure

    with _opened(folder, overrides, check=dict(gates)) as trained:
        return measure(trained, force)


def bench(
    folder: str | Path,
    devices: Sequence[str] | None,
    preset: str | None,
    overrides: Sequence[str] = (),
    force: bool = False,
) -> list[Result]:
    """Latency and average precision of the exported files on the devices."""
    from softedge.detection.bench import bench as measure

    with _opened(folder, overrides, bench={"devices": devices, "preset": preset}) as trained:
        return measure(trained, trained.recipe.bench.devices, trained.recipe.bench.preset, force)
