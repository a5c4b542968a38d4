"""Which file each smaller copy was made from: copies keep the split of their originals.

``softedge data --shrink`` appends a line to this file for every copy, after the copy is complete.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from softedge.data.images import FileImages
from softedge.data.inventory import Inventory
from softedge.files import read_text

FILE = ".softedge-copies.jsonl"


@dataclass(frozen=True)
class Origin:
    """name: of the copy.  sha256: of the file it was made from.  side: what its shorter side was shrunk to, at most."""

    name: str
    sha256: str
    side: int


def read(root: Path) -> dict[str, Origin]:
    """Name -> where the copy came from; lines that cannot be read, as the last of a killed copy, are left out."""
    origins: dict[str, Origin] = {}
    try:
        lines = read_text(root / FILE, "utf-8", "replace").splitlines()
    except OSError:
        return origins
    for line in lines:
        try:
            values = json.loads(line)
            origin = Origin(str(values["name"]), str(values["sha256"]), int(values["side"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        origins[origin.name] = origin
    return origins


def line(origin: Origin) -> str:
    return json.dumps(asdict(origin)) + "\n"


def origins_of(inventory: Inventory) -> Mapping[str, str]:
    """Name -> sha256 of the original, for a folder of copies; else empty."""
    first = next(iter(inventory.splits.values()))
    if not isinstance(first, FileImages):
        return {}
    return {name: origin.sha256 for name, origin in read(first.root).items()}
