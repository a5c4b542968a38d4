"""The answers of the checked files, by image: what a device's answers are compared with.

``check`` writes them, ``bench`` and the report read them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from softedge.errors import UserError
from softedge.files import read_json, write_json

FILE = "answers.json"  # in the folder of the check

Classes = dict[str, int]  # name of an image -> class


def write(folder: Path, names: Sequence[str], files: Mapping[str, tuple[str, Sequence[int]]]) -> None:
    """files: artifact -> hash of the file and one class per image."""
    entries = {name: {"sha256": digest, "classes": list(classes)} for name, (digest, classes) in files.items()}
    write_json(folder / FILE, {"names": list(names), "files": entries})


def read(folder: Path) -> dict[str, tuple[str, Classes]]:
    """artifact -> hash of the file and what it answered; empty after a check of an earlier version, or damaged."""
    try:
        stored = read_json(folder / FILE)
        names = [str(name) for name in stored["names"]]
        return {
            artifact: (str(entry["sha256"]), _by_name(names, entry["classes"]))
            for artifact, entry in stored["files"].items()
        }
    except (UserError, AttributeError, KeyError, TypeError, ValueError):
        return {}


def _by_name(names: Sequence[str], classes: Sequence[Any]) -> Classes:
    """Without names that several images have: nobody knows which of them was meant."""
    once = Counter(names)
    return {name: int(answer) for name, answer in zip(names, classes, strict=True) if once[name] == 1}


def agreement(checked: Classes, names: Sequence[str], found: Sequence[int]) -> tuple[float, int] | None:
    """The share of the same answers, and of how many images both know; None where they share none."""
    once = Counter(names)
    same = [
        checked[name] == answer
        for name, answer in zip(names, found, strict=True)
        if name in checked and once[name] == 1
    ]
    return (sum(same) / len(same), len(same)) if same else None
