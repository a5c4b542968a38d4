"""What a transfer folder is: RUN/transfer/voc, with the trained network in it. Imports nothing."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = "detector.safetensors"


def is_transfer(folder: str | Path) -> bool:
    """Whether it is a transfer folder with a trained detector, rather than a run."""
    return (Path(folder) / WEIGHTS).is_file()


def around(folder: str | Path) -> Path:
    """The run that a transfer folder lies in: RUN/transfer/voc -> RUN."""
    return Path(folder).resolve().parents[1]
