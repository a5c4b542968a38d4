"""Near-duplicates of a run as pairs of pictures: leaks first, then two labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from softedge.errors import UserError
from softedge.files import read_table
from softedge.report.pictures import png
from softedge.run import Run

FILE = "data/near_copies.csv"
MOST = 12  # pairs that are shown
_SHOWN = ("leak", "two labels")  # pairs of one class on one side of the split do no harm
KINDS = {
    "leak": "of a training and a test image, the training image set aside",
    "two labels": "with two labels, both kept",
    "same": "of one class on one side of the split",
}
SPLITS = {"duplicate": "set aside", "test": "test image", "train": "training image", "unlabelled": "unlabelled image"}
_COLUMNS = ("kind", "name", "split", "label", "other_name", "other_split", "other_label")

Values = dict[str, Any]


def collect(run: Run) -> Values | None:
    """``pairs`` (the first ones, as in the table) and ``counts`` (kind -> pairs); None where there are none."""
    try:
        rows = read_table(run.root / FILE)
        counts = {kind: sum(row["kind"] == kind for row in rows) for kind in dict.fromkeys(row["kind"] for row in rows)}
        wanted = [row for kind in _SHOWN for row in rows if row["kind"] == kind][:MOST]
        pairs = [{**{key: row[key] for key in _COLUMNS}, "similarity": float(row["similarity"])} for row in wanted]
    except (UserError, ValueError, KeyError, TypeError):
        return None
    return {"counts": counts, "pairs": pairs} if counts else None


def pictures(run: Run, pairs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Name -> data URI; an image that is gone or lies in a shard has none."""
    import numpy as np

    from softedge.data.decoding import BadImage, decode
    from softedge.data.images import FileImages

    result = run.result("data")
    root = result.details.get("root") if result else None
    uris: dict[str, str] = {}
    for name in dict.fromkeys(pair[key] for pair in pairs for key in ("name", "other_name")):
        if not isinstance(root, str):
            break
        try:
            uris[name] = png(decode(FileImages(Path(root), [name], np.zeros(1, np.int64)).path(0), at_least=128))
        except BadImage:
            continue
    return uris
