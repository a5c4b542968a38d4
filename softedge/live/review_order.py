"""In which order images are reviewed: that of a table with their names, as softedge writes them, or of pairs."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from softedge.errors import UserError
from softedge.files import read_text

PAIR = ("name", "other_name")
SPLIT = ("split", "other_split")  # of the same images


@dataclass(frozen=True)
class Order:
    """title: the table's file name.  images: numbers of images.  pairs: two images, and why they are shown together.

    suggested: image -> the class that the table suggests.  tested: test images by its column of the split; where a run
    has held them out, no folder says so.  missing: names in the table that match no image here.
    """

    title: str = ""
    images: list[int] = field(default_factory=list)
    pairs: list[tuple[int, int, str]] = field(default_factory=list)
    suggested: dict[int, str] = field(default_factory=dict)
    tested: list[int] = field(default_factory=list)
    missing: int = 0

    def to_dict(self) -> dict[str, Any]:
        shown = {"title": self.title, "order": self.images, "pairs": self.pairs}
        return {**shown, "suggested": self.suggested, "tested": self.tested}


def read(path: Path, index: Mapping[str, int]) -> Order:
    """The order of a CSV file.  index: name -> number of an image.

    A column ``name`` is needed.  With ``other_name`` (``near_copies.csv``) its rows are pairs; a column ``suggested``
    (``wrong_labels.csv``) gives a class, ``split`` says which are test images. UserError for another file, or where
    none of the names is known.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"--order {path} cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if not rows or "name" not in rows[0]:
        raise UserError(
            f"--order {path} {'has no column name' if rows else 'is empty'}; give a table as softedge writes it, e.g. "
            "near_copies.csv"
        )
    pairs = "other_name" in rows[0]
    order, missing, seen, tested = Order(path.name), 0, set[int](), set[int]()
    for row in rows:
        at = [index.get(row[column] or "") for column in (PAIR if pairs else PAIR[:1])]
        splits = [row.get(column) for column in SPLIT]
        tested |= {image for image, split in zip(at, splits) if image is not None and split == "test"}
        if None in at:
            missing += 1
        elif pairs:
            order.pairs.append((int(at[0] or 0), int(at[1] or 0), row.get("kind") or ""))
        elif at[0] is not None and at[0] not in seen:
            seen.add(at[0])
            order.images.append(at[0])
            if row.get("suggested"):
                order.suggested[at[0]] = row["suggested"]
    if missing == len(rows):
        first = rows[0]["name"]
        raise UserError(f"--order {path} names no image of this folder (the first is '{first}'); give a table about it")
    return Order(order.title, order.images, order.pairs, order.suggested, sorted(tested), missing)
