"""What the rest of softedge may ask of detection, and nothing else is called from outside: ``registry.PLUGINS``.

A transfer folder (RUN/transfer/voc) is owned by this plug-in: the commands of a run work on it, too. Nothing heavy is
imported before something is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softedge.detection.folder import around, is_transfer
from softedge.errors import GateFailed, UserError
from softedge.export.refused import by_reason
from softedge.records import Result
from softedge.run import Run

if TYPE_CHECKING:
    import typer

    from softedge.detection.trained import Trained


class Detection:
    """Detectors: ``softedge transfer``, and export, check, bench and verify of what it trained."""

    name = "detection"

    def owns(self, folder: Path) -> bool:
        """Whether it is a transfer folder or the folder of a detector's exported file."""
        if is_transfer(folder) or not (Path(folder) / "contract.json").is_file():
            return is_transfer(folder)
        from softedge.detection import contract

        return contract.is_detector(folder)

    def export(
        self,
        run: str | Path,
        targets: Sequence[str] | None = None,
        precisions: Sequence[str] | None = None,
        set: Sequence[str] = (),
        force: bool = False,
    ) -> list[Result]:
        """Export the detector; without names, to the formats that can hold one."""
        from softedge.detection import formats
        from softedge.detection.export import export

        targets = tuple(formats.FORMATS) if targets is None else targets
        formats.known_names(targets, formats.PRECISIONS if precisions is None else precisions)
        with _opened(run, set, export={"precisions": precisions}) as trained:
            return export(trained, targets, trained.recipe.export.precisions, force)

    def check(
        self, run: str | Path, gates: Mapping[str, Any] | None = None, set: Sequence[str] = (), force: bool = False
    ) -> Result:
        """Compare every exported file with PyTorch by average precision; gates: values of the recipe's [check]."""
        from softedge.detection.check import check

        with _opened(run, set, check=dict(gates or {})) as trained:
            return check(trained, force)

    def bench(
        self,
        run: str | Path,
        devices: Sequence[str] | None = None,
        preset: str | None = None,
        set: Sequence[str] = (),
        force: bool = False,
    ) -> list[Result]:
        """Latency and average precision of the exported files on the devices."""
        from softedge.detection.bench import bench

        with _opened(run, set, bench={"devices": devices, "preset": preset}) as trained:
            return bench(trained, trained.recipe.bench.devices, trained.recipe.bench.preset, force)

    def gate(self, run: str | Path) -> None:
        """GateFailed when a file failed its check, naming each and the reason."""
        checked = Run(run).result("check")
        if checked is not None and (failed := checked.details.get("failed", [])):
            raise GateFailed(*by_reason(failed))

    def verify(self, folder: str | Path) -> dict[str, Any]:
        """Replay the golden pictures of an export folder; GateFailed when detections do not come again."""
        from softedge.detection.replay import verify

        return verify(Path(folder))

    def commands(self) -> typer.Typer:
        from softedge.detection.commands import app

        return app


@contextmanager
def _opened(folder: str | Path, overrides: Sequence[str], **sections: dict[str, Any]) -> Iterator[Trained]:
    """The transfer folder, with the settings of the run around it; the run is locked."""
    from softedge.detection.trained import Trained
    from softedge.stages.opening import reopened

    if not is_transfer(folder):
        raise UserError(f"{folder} is an exported file of a detector; give its transfer folder, like RUN/transfer/voc")
    with reopened(around(folder), overrides, **sections) as (_, recipe):
        yield Trained(folder, recipe)
