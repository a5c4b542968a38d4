"""Detection as a plug-in: its own command, and what the other commands do on a transfer folder.

Registered as ``registry.PLUGINS["detection"]``. Importing it is cheap: whatever is heavy is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softedge.detection.formats import FORMATS
from softedge.errors import GateFailed, UserError
from softedge.records import Result

if TYPE_CHECKING:
    import typer

    from softedge.detection.stages import Trained


class Detection:
    """What the core asks of a plug-in; ``run`` is a transfer folder (RUN/transfer/voc) in all of it."""

    name = "detection"

    def owns(self, folder: Path) -> bool:
        """Whether it is a transfer folder, or an exported detector."""
        return (folder / "detector.safetensors").is_file() or _holds_a_detector(folder / "contract.json")

    def export(
        self,
        run: str | Path,
        targets: Sequence[str] | None = None,
        precisions: Sequence[str] | None = None,
        set: Sequence[str] = (),
        force: bool = False,
    ) -> list[Result]:
        """Export the detector; without names, to the formats that can hold one."""
        from softedge.detection.stages import export as write

        with _opened(run, set, export={"precisions": precisions}) as trained:
            return write(trained, targets or FORMATS, trained.recipe.export.precisions, force)

    def check(
        self, run: str | Path, gates: Mapping[str, Any] | None = None, set: Sequence[str] = (), force: bool = False
    ) -> Result:
        """Compare every exported file with PyTorch by average precision."""
        from softedge.detection.stages import check as measure

        with _opened(run, set, check=dict(gates or {})) as trained:
            return measure(trained, force)

    def bench(
        self,
        run: str | Path,
        devices: Sequence[str] | None = None,
        preset: str | None = None,
        set: Sequence[str] = (),
        force: bool = False,
    ) -> list[Result]:
        """Latency and average precision of the exported files on the devices."""
        from softedge.detection.bench import bench as measure

        with _opened(run, set, bench={"devices": devices, "preset": preset}) as trained:
            return measure(trained, trained.recipe.bench.devices, trained.recipe.bench.preset, force)

    def gate(self, run: str | Path) -> None:
        """GateFailed when a file failed its check, naming each and the reason."""
        from softedge.run import Run

        checked = Run(run).result("check")
        if checked is not None and checked.details.get("failed"):
            raise GateFailed("; ".join(checked.details["failed"]))

    def verify(self, folder: Path) -> dict[str, Any]:
        """Replay the golden images of an exported detector."""
        from softedge.detection.replay import verify

        return verify(folder)

    def commands(self) -> typer.Typer:
        """The commands that stand beside those of the core."""
        from softedge.detection.commands import app

        return app


def _holds_a_detector(contract: Path) -> bool:
    from softedge.run import read_json

    try:
        return contract.is_file() and read_json(contract).get("kind") == "detector"
    except (UserError, AttributeError):  # damaged: whoever reads it next explains it
        return False


@contextmanager
def _opened(folder: str | Path, overrides: Sequence[str], **sections: dict[str, Any]) -> Iterator[Trained]:
    from softedge.detection.stages import Trained, around
    from softedge.stages.opening import reopened

    with reopened(around(folder), overrides, **sections) as (_, recipe):
        yield Trained(folder, recipe)
