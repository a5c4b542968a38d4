"""What a trained detector keeps of its data: its test pictures and those that calibrate int8, with their annotations.

With them it can be exported, checked and timed when the photos are gone, and never on others in their place.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from softedge.data import decoding, keeping
from softedge.data.decoding import BadImage
from softedge.data.images import copy_name
from softedge.detection.scenes import Scene, Scenes
from softedge.errors import UserError
from softedge.run import read_json, sha256, write_text

FILE = "scenes.json"
CALIBRATION = 100  # pictures at most: detectors see whole photos, and their int8 ranges settle early (assumption)
_FOLDER = "pictures"
_SPLITS = ("calibration", "test")
_ARRAYS = {"boxes": np.float32, "labels": np.int64, "area": np.float32, "crowd": bool, "difficult": bool}


@dataclass(frozen=True)
class KeptScene(Scene):
    """sha256: of the picture's file at the training.  copy: where its copy is, if there was room for one."""

    sha256: str = ""
    copy: Path = Path()

    def read(self) -> bytes:
        """The file that was looked at before the training: its copy, else the source; ``BadImage`` when neither is."""
        data = b""
        for path in (self.copy, self.path):
            if path.is_file():
                data = decoding.read(path)
                if hashlib.sha256(data).hexdigest() == self.sha256:
                    return data
        raise BadImage("it was changed since the training" if data else "it is gone, and the run has no copy of it")


def keep(folder: Path, train: Scenes, test: Scenes, hashes: Mapping[Path, str], seed: int) -> dict[str, Any]:
    """Write ``scenes.json`` and copies of the pictures into a transfer folder; returns its hash and the counts.

    hashes: the sha256 of each picture's file.  The test pictures come first, as far as there is room.
    """
    drawn = np.random.default_rng(seed).permutation(len(train))[:CALIBRATION]
    chosen = {"calibration": [train.scenes[index] for index in drawn], "test": list(test.scenes)}
    order = np.random.default_rng(seed).permutation(len(test))  # those come first that ``check`` takes
    kept, room = 0, keeping.LIMIT_BYTES
    for scene in [*(test.scenes[index] for index in order), *chosen["calibration"]]:
        with contextlib.suppress(BadImage):
            data = scene.read()
            if len(data) > room:
                break
            keeping.put(data, _copy(folder, scene.path, hashes[scene.path]), scene.path)
            room -= len(data)
            kept += 1
    values = {
        "classes": list(test.classes),
        "masks": test.masks,
        **{name: [_row(scene, hashes[scene.path]) for scene in scenes] for name, scenes in chosen.items()},
    }
    write_text(folder / FILE, json.dumps(values))
    return {"sha256": sha256(folder / FILE), "kept": kept, **{name: len(scenes) for name, scenes in chosen.items()}}


def read(folder: Path, digest: str) -> tuple[Scenes, Scenes]:
    """(calibration, test) as ``keep`` wrote them; UserError when the list is gone or damaged.  digest: its sha256."""
    path = folder / FILE
    if not path.is_file() or sha256(path) != digest:
        state = "was changed or damaged" if path.is_file() else "is missing"
        raise UserError(f"{path} {state} since the training; bring it back, or run: softedge transfer --force")
    values = read_json(path)
    splits = [
        Scenes(tuple(values["classes"]), tuple(_scene(folder, row) for row in values[name]), masks=values["masks"])
        for name in _SPLITS
    ]
    return splits[0], splits[1]


def fingerprint(splits: Sequence[Scenes], hashes: Mapping[Path, str]) -> str:
    """A hash of the files of all pictures, in their order."""
    digest = hashlib.sha256()
    for scenes in splits:
        for scene in scenes.scenes:
            digest.update(f"{hashes[scene.path]}\n".encode())
    return digest.hexdigest()


def _copy(folder: Path, path: Path, digest: str) -> Path:
    return folder / _FOLDER / copy_name(digest, path.name)


def _row(scene: Scene, digest: str) -> dict[str, Any]:
    values = {key: getattr(scene, key) for key in ("id", "width", "height", "masks")}
    arrays = {key: getattr(scene, key).tolist() for key in _ARRAYS}
    return {"path": str(scene.path), "sha256": digest, **values, **arrays}


def _scene(folder: Path, row: dict[str, Any]) -> KeptScene:
    path = Path(row.pop("path"))
    arrays = {key: np.array(row.pop(key), dtype) for key, dtype in _ARRAYS.items()}
    arrays["boxes"] = arrays["boxes"].reshape(-1, 4)
    values: dict[str, Any] = {**row, **arrays, "masks": tuple(row["masks"])}
    return KeptScene(path=path, copy=_copy(folder, path, row["sha256"]), **values)
