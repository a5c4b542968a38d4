"""The version of a stage that is kept in ``RUN/.previous`` when the stage is done again: days of training may be in it.

A mark lies beside it until its replacement is finished, so that after a kill it can be put back.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from softedge.errors import UserError
from softedge.files import fsync_folder, read_json, write_json
from softedge.progress import say

FOLDER = ".previous"
BEGUN = "begun.json"  # what unfinished work was begun with
RESULT = "result.json"
_REPLACED = "replaced.json"  # its replacement was begun and is not finished
_RETIRED = "retired.json"  # it was set aside for good, and not made again since
_RECORDS = (RESULT, BEGUN, _REPLACED, _RETIRED)
TRAINING = "pretrain"  # the stage that ``recipe.toml`` is about
HALF = (".pt", ".npz", ".safetensors")  # files from which a stage resumes


def folder(root: Path, stage: str) -> Path:
    """Where the previous version of a stage is kept, or would be."""
    return root / FOLDER / stage


def recipe(root: Path) -> Path:
    """Where the recipe of the training that is being redone is kept, to be put back with it after a kill."""
    return root / FOLDER / "recipe.toml"


def is_kept(root: Path, stage: str) -> bool:
    """Whether there is a finished one."""
    return (folder(root, stage) / RESULT).exists()


def set_aside(root: Path, stage: str, replaced: bool = False) -> bool:
    """Keep the one previous version of a stage that is redone. Returns whether it was.

    A finished version is never replaced by an unfinished one, nor files by a mere record that none could be made.
    replaced: its replacement begins now; ``restore`` puts it back if that is killed.
    """
    current, previous = root / stage, folder(root, stage)
    less = not (current / RESULT).exists() or (_files(previous) and not _files(current))
    if is_kept(root, stage) and less:
        shutil.rmtree(current)
        return False
    if previous.exists():
        shutil.rmtree(previous)
    previous.parent.mkdir(parents=True, exist_ok=True)
    if replaced:
        write_json(current / _REPLACED, {})
    else:
        (current / _REPLACED).unlink(missing_ok=True)
    os.replace(current, previous)
    return True


def retire(root: Path, stage: str) -> bool:
    """Set a stage aside for good: nobody misses its files. Returns whether this version is the one that is kept."""
    kept = set_aside(root, stage)
    write_json(folder(root, stage) / _RETIRED, {})
    return kept


def is_retired(root: Path, stage: str) -> bool:
    """Whether a stage was set aside for good, and not made again since."""
    return (folder(root, stage) / _RETIRED).exists()


def retired(root: Path, stage: str) -> list[str]:
    """The parts of a stage that were set aside for good, sorted: ``retired(root, "export")`` -> ["onnx-w8a32", ...]."""
    return sorted(mark.parent.name for mark in folder(root, stage).glob(f"*/{_RETIRED}"))


def _files(folder: Path) -> bool:
    return folder.is_dir() and any(path.name not in _RECORDS for path in folder.iterdir())


def put_back(root: Path, stage: str) -> None:
    """The version that ``set_aside`` kept, in place of the one that failed."""
    if (root / stage).exists():
        shutil.rmtree(root / stage)
    os.replace(folder(root, stage), root / stage)
    fsync_folder((root / stage).parent)
    for mark in (_REPLACED, _RETIRED):
        (root / stage / mark).unlink(missing_ok=True)


def finished(root: Path, stage: str) -> None:
    """The replacement is there: the version before it is kept, and never put back by itself."""
    for mark in (_REPLACED, _RETIRED):
        (folder(root, stage) / mark).unlink(missing_ok=True)


def restore(root: Path) -> None:
    """Put back what killed processes were replacing, unless half a training would be lost; under the run's lock."""
    for mark in sorted((root / FOLDER).rglob(_REPLACED)):
        stage = mark.parent.relative_to(root / FOLDER).as_posix()
        if (root / stage / RESULT).exists():  # killed in its last step
            mark.unlink()
        elif not half(root / stage):
            put_back(root, stage)
            if stage == TRAINING and (kept := recipe(root)).is_file():
                os.replace(kept, root / kept.name)
            say(f"{stage}: doing it again was interrupted; what was finished before is back")


def half(folder: Path) -> bool:
    """Whether a stage would resume from what is in its folder."""
    begun = folder / BEGUN
    if not begun.exists() or not any(path.suffix in HALF for path in folder.iterdir()):
        return False
    try:
        return bool(read_json(begun).get("resumable", True))
    except (UserError, AttributeError):  # damaged: nothing is thrown away
        return True
