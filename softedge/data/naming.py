"""What DATA is called: a known name or a path. Looked at before anything is imported for the work, or written."""

from __future__ import annotations

from pathlib import Path

from softedge.data import tar_files
from softedge.errors import UserError, did_you_mean
from softedge.files import expanded

NAMES = ("digits", "cifar10", "cifar100", "stl10", "imagenet")


def text_of(source: object) -> str:
    """A name or a path, which Python may give as a ``Path``; UserError for pixels and the like."""
    if not isinstance(source, str | Path):
        raise UserError(
            f"data is a {type(source).__name__}; images are read from files: give the path of their folder, or one of "
            f"{', '.join(NAMES)}"
        )
    return str(source)


def refuse_missing(source: str) -> None:
    """UserError for what is no known name, no folder and no tar file."""
    if source in NAMES:
        return
    if not source.strip():  # of a shell's variable that is not set; Path("") is the folder one is in
        raise UserError("the data set has an empty name; give a folder of images, or . for this one")
    path = expanded(source)
    if path.is_dir() or (path.is_file() and tar_files.shards_of(path.resolve())):
        return
    if path.exists():
        raise UserError(f"data '{source}' is a file; give the folder that holds the images, or a .tar file")
    raise UserError(f"data '{source}' does not exist{_near(source, path)}")


def _near(source: str, path: Path) -> str:
    """What the user may have meant: a data set name, or a folder that is beside."""
    beside: list[str] = []
    if path.parent.is_dir():
        beside = [str(p) for p in path.parent.iterdir() if p.is_dir() and not p.name.startswith(".")]
    suggestion = did_you_mean(source, [*NAMES, *beside])
    if "did you mean" in suggestion:
        return suggestion
    return f"; give a folder of images or a known name: {', '.join(NAMES)}"
