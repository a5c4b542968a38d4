"""``data/index.json``: every image with its hash, split and label, so that a run always says what it was trained on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from softedge.data import sources
from softedge.data.examining import Examined, named
from softedge.data.images import Data, EncodedImages, FileImages, Images
from softedge.data.inventory import Inventory
from softedge.data.shards import TarImages
from softedge.errors import UserError
from softedge.progress import say
from softedge.records import InputSpec
from softedge.run import Run, read_json

BAD_SHOWN = 5  # on the terminal; index.json lists all


def load(run: Run) -> Data:
    """Read a prepared data set back. UserError when it was not prepared, or its images are gone."""
    result = run.need("data", "deploy --out")
    index = read_json(run.folder("data") / "index.json")
    spec, classes = InputSpec.from_dict(index["spec"]), tuple(index["classes"])
    rows = [item for item in index["items"] if item["split"] != "duplicate"]
    root = result.details["root"]
    everything: Images
    if root is None:
        everything = named(sources.find(index["source"]), [row["name"] for row in rows], spec)
    else:
        if not Path(root).is_dir():
            raise UserError(
                f"the images of {run.root} were in {root}, which is not there; bring them back, or start another run"
            )
        labels = np.array([row["label"] for row in rows], np.int64)
        everything = FileImages(Path(root), [row["name"] for row in rows], labels)
    if isinstance(everything, EncodedImages):
        everything.hashes = [row["sha256"] for row in rows]
    of_split = {
        split: [i for i, row in enumerate(rows) if row["split"] == split] for split in ("train", "test", "unlabelled")
    }
    return Data(
        source=index["source"],
        classes=classes,
        spec=spec,
        pretrain=everything.subset(of_split["train"] + of_split["unlabelled"]),
        train=everything.subset(of_split["train"]),
        test=everything.subset(of_split["test"]),
    )


def root_of(found: Inventory) -> str | None:
    """The folder that the images lie in; None when they are not single files."""
    first = next(iter(found.splits.values()))
    return str(first.root) if isinstance(first, FileImages) else None


def fingerprint(found: Inventory) -> str:
    """A hash that changes when files come, go, are renamed or change size: cheap enough to take at every start."""
    digest = hashlib.sha256(json.dumps([found.source if not found.in_files else "", found.classes]).encode())
    for split, images in found.splits.items():
        digest.update(json.dumps([split, len(images)]).encode() + images.labels.tobytes())
        if isinstance(images, FileImages):
            for index, name in enumerate(images.names):
                path = images.path(index)
                size = path.stat().st_size if path.exists() else -1
                digest.update(f"{name}\0{size}\n".encode(errors="surrogateescape"))
        elif isinstance(images, TarImages):
            digest.update("\n".join(images.names).encode(errors="surrogateescape") + images.places.tobytes())
    return digest.hexdigest()


def index_lines(examined: Examined, spec: InputSpec) -> Iterator[str]:
    """index.json, one image a line: it can be read, compared and searched with ordinary tools."""
    head = {
        "schema": 1,
        "source": examined.found.source,
        "classes": examined.found.classes,
        "spec": spec.to_dict(),
        "counts": examined.counts(),
        "bad": examined.bad,
    }
    yield json.dumps(head, indent=1)[:-2] + ',\n "items": ['
    for number, item in enumerate(examined.items):
        yield ("," if number else "") + "\n  " + json.dumps(vars(item))
    yield "\n ]\n}\n"


def summary(examined: Examined, spec: InputSpec) -> dict[str, Any]:
    """What a person wants to know about the data: for the report and for ``softedge data``."""
    return {
        "source": examined.found.source,
        "classes": list(examined.found.classes),
        "per_class": examined.per_class(),
        "test_split": "given" if "test" in examined.found.splits else "held out" if examined.found.classes else "none",
        "bad": examined.bad,
        "ignored": dict(examined.found.ignored),
        "notices": list(examined.found.notices),
        "verified": examined.verified,
        "longer_side": examined.longer_side,
        "spec": spec.to_dict(),
    }


def announce(examined: Examined) -> None:
    """Say what was set aside and why."""
    for notice in examined.found.notices:
        say(f"data: {notice}")
    if examined.bad:
        shown = "; ".join(f"{b['name']} ({b['reason']})" for b in examined.bad[:BAD_SHOWN])
        more = f"; and {len(examined.bad) - BAD_SHOWN} more" if len(examined.bad) > BAD_SHOWN else ""
        say(
            f"data: {len(examined.bad)} of {len(examined.found)} images cannot be read and are set aside: {shown}{more}"
        )
    if duplicates := examined.counts()["n_duplicates"]:
        say(f"data: {duplicates} training images are exact copies of test images and are set aside")
