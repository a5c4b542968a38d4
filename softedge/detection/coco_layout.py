"""Where the annotation files and pictures of a COCO data set are, as different tools leave them.

annotations/instances_train2017.json, instances_val2017.json beside train2017/, val2017/ or images/     COCO
train/_annotations.coco.json, valid/, test/, each with its pictures                                      Roboflow
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from softedge.detection.notices import Notices
from softedge.errors import UserError

_FOLDERS = {"train": ("train", "training"), "val": ("valid", "val", "validation"), "test": ("test", "testing")}


@dataclass(frozen=True)
class Split:
    """An annotation file, and the folders that its pictures are looked for in, in turn."""

    annotations: Path
    places: tuple[Path, ...]

    def picture(self, name: str) -> Path | None:
        """The file of this name, which a program on Windows may have written with backslashes."""
        names = (name, name.replace("\\", "/"))
        return next((path for place in self.places for one in names if (path := place / one).is_file()), None)


def find(folder: Path, test: Notices) -> tuple[Split, Split]:
    """The training and the test split; UserError where there is none, or more than one could be meant."""
    files = sorted(folder.glob("annotations/*.json")) + sorted(folder.glob("*.json"))
    inside = {kind: _inside(folder, names) for kind, names in _FOLDERS.items()}
    if not files and inside["train"] and (tested := inside["test"] or inside["val"]):
        if inside["test"] and inside["val"]:
            test.note(f"{inside['val'].parent.name}/ is used neither for training nor for the test")
        return _split(folder, inside["train"]), _split(folder, tested)
    train, val = _one(folder, files, ("train",)), _one(folder, files, ("val", "test"))
    unused = [path for path in files if "val" in val.stem and "test" in path.stem and "instances" in path.name]
    if unused:  # COCO's own test annotations list pictures without objects, and are called image_info_test
        test.note(f"{_names(unused)} is not used: {val.name} is the test split; give the other in its place to use it")
    return _split(folder, train), _split(folder, val)


def _inside(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The annotation file in a split's own folder."""
    for name in names:
        files = sorted((folder / name).glob("*.json"))
        if len(files) > 1:
            raise UserError(f"{folder / name} has several annotation files ({_names(files)}); keep the one to use")
        if files:
            return files[0]
    return None


def _one(folder: Path, files: list[Path], kinds: tuple[str, ...]) -> Path:
    instances = [path for path in files if "instances" in path.name] or files
    for kind in kinds:
        if matching := [path for path in instances if kind in path.stem]:
            if len(matching) > 1:
                raise UserError(f"{folder} has several {kind} annotations ({_names(matching)}); keep the one to use")
            return matching[0]
    raise UserError(
        f"{folder} is not in COCO format: expected annotations/instances_{kinds[0]}*.json, or "
        f"{kinds[0]}/_annotations.coco.json, found {_names(files) or 'no .json file'}"
    )


def _names(files: list[Path]) -> str:
    return ", ".join(path.name for path in files)


def _split(folder: Path, path: Path) -> Split:
    name = path.stem.split("_")[-1]
    places = (folder / name, folder / "images" / name, folder / "images", folder, path.parent, path.parent / "images")
    return Split(path, places)
