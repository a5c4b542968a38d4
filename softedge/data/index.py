"""``data/index.json``: every image with its hash, split and label, so that a run always says what it was trained on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from softedge.data import keeping, late, near_pairs, sources
from softedge.data.examining import Examined, named
from softedge.data.images import Data, EncodedImages, FileImages, Images
from softedge.data.inventory import Inventory
from softedge.data.naming import NAMES
from softedge.errors import UserError, quoted
from softedge.machine.names import refuse_unnamable
from softedge.progress import CAUTION, plural, say
from softedge.records import InputSpec
from softedge.run import Run, read_json

BAD_SHOWN = 5
_USED = ("train", "test", "unlabelled")  # the others are set aside
_AGAIN = "bring it back, or make it again: softedge pretrain --out {} --force"
_COLUMNS = ("name", "sha256", "split", "label")


def load(run: Run, tell: bool = True) -> Data:
    """Read a prepared data set back, whatever became of its files since; UserError when it was not prepared.

    An image that is gone, damaged or another one by now is set aside, unless the run has a copy.  tell: say so.
    """
    path = run.folder("data") / "index.json"
    result = run.need("data", "deploy --out")
    try:
        index, root = read_json(path), result.details["root"]
    except (UserError, KeyError) as error:
        raise UserError(f"{path.parent} is damaged ({error}); {_AGAIN.format(quoted(run.root))}") from error
    try:
        data = _loaded(run, index, root)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise UserError(f"{path} is damaged ({what}); {_AGAIN.format(quoted(run.root))}") from error
    return late.without_lost(run.root, data, tell)


def _loaded(run: Run, index: dict[str, Any], root: str | None) -> Data:
    spec, classes = InputSpec.from_dict(index["spec"]), tuple(index["classes"])
    rows = [item for item in index["items"] if item["split"] in _USED]
    known = [(row["name"], row["sha256"], row["label"]) for row in rows]
    inventory: Inventory | None = None
    if root is None:
        try:
            inventory = sources.find(index["source"])
        except UserError:
            if index["source"] in NAMES:
                raise
            root = index["source"]  # shards that are gone
    everything = images_of(inventory, root, known, spec, index.get("white"))
    if isinstance(everything, EncodedImages):
        everything.kept = keeping.folder(run.folder("data"))
    if isinstance(everything, FileImages):
        refuse_unnamable(str(everything.source_file(i)) for i in range(len(rows)) if everything.copy(i) is None)
    of_split = {split: [i for i, row in enumerate(rows) if row["split"] == split] for split in _USED}
    return Data(
        source=index["source"],
        classes=classes,
        spec=spec,
        pretrain=everything.subset(of_split["train"] + of_split["unlabelled"]),
        train=everything.subset(of_split["train"]),
        test=everything.subset(of_split["test"]),
    )


def images_of(
    inventory: Inventory | None,
    root: str | None,
    known: Sequence[tuple[str, str, int]],
    spec: InputSpec,
    white: Mapping[str, float] | None,
) -> Images:
    """The images of an index: name, sha256 and label each."""
    names = [name for name, _, _ in known]
    labels = np.array([label for _, _, label in known], np.int64)
    if root is None:
        assert inventory is not None
        images = named(inventory, names, spec)
        images.labels = labels
    else:
        images = FileImages(Path(root), names, labels)
    if isinstance(images, EncodedImages):
        images.hashes, images.white = [sha256 for _, sha256, _ in known], white or None
    return images


def root_of(inventory: Inventory) -> str | None:
    """The folder that the images lie in; None when they are not single files."""
    first = next(iter(inventory.splits.values()))
    return str(first.root) if isinstance(first, FileImages) else None


def fingerprint(inventory: Inventory, hashes: Mapping[str, Sequence[str]]) -> str:
    """A hash that changes when images come, go, are renamed, relabelled or edited.  hashes: ``content_hashes``."""
    digest = hashlib.sha256(
        json.dumps([inventory.source if not inventory.in_files else "", inventory.classes]).encode()
    )
    for split, images in inventory.splits.items():
        digest.update(json.dumps([split, len(images)]).encode() + images.labels.tobytes())
        for name, content in zip(images.names, hashes[split]):
            digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()


def index_lines(examined: Examined, spec: InputSpec) -> Iterator[str]:
    """index.json, one image a line: it can be read, compared and searched with ordinary tools."""
    head = {
        "schema": 1,
        "source": examined.inventory.source,
        "classes": examined.inventory.classes,
        "spec": spec.to_dict(),
        "counts": examined.counts(),
        "white": examined.white,
        "bad": examined.bad,
    }
    yield json.dumps(head, indent=1)[:-2] + ',\n "items": ['
    for number, item in enumerate(examined.items):
        row = {key: getattr(item, key) for key in _COLUMNS}
        if item.rank:  # of a smaller copy, whose file is another
            row["original"] = item.rank
        yield ("," if number else "") + "\n  " + json.dumps(row)
    yield "\n ]\n}\n"


def summary(examined: Examined, spec: InputSpec) -> dict[str, Any]:
    """A summary of the data for the report and ``softedge data``."""
    return {
        "source": examined.inventory.source,
        "classes": list(examined.inventory.classes),
        "per_class": examined.per_class(),
        "test_split": _test_split(examined),
        "bad": examined.bad,
        "ignored": dict(examined.inventory.ignored),
        "notices": list(examined.inventory.notices),
        "contradictions": examined.contradictions,
        "near": near_pairs.counts(examined.near),
        "verified": True,
        "longer_side": examined.longer_side,
        "spec": spec.to_dict(),
    }


def _test_split(examined: Examined) -> str:
    if "test" in examined.inventory.splits:
        return "given"
    return "held out" if examined.counts()["n_test"] else "none"


def announce(examined: Examined, cautioned: bool = False) -> None:
    """Say what was set aside and why.  cautioned: the command has said the cautions among the notices."""
    for notice in examined.inventory.notices:
        if not (cautioned and notice.startswith(CAUTION)):
            say(f"data: {notice}")
    if examined.bad:
        shown = "; ".join(f"{b['name']} ({b['reason']})" for b in examined.bad[:BAD_SHOWN])
        more = f"; and {len(examined.bad) - BAD_SHOWN} more" if len(examined.bad) > BAD_SHOWN else ""
        aside = plural(len(examined.bad), "image cannot be read and is", "images cannot be read and are")
        say(f"data: {aside} set aside, of {len(examined.inventory)}: {shown}{more}")
    if duplicates := examined.counts()["n_duplicates"]:
        copies = plural(duplicates, "copy of a test image is", "copies of test images are")
        say(f"data: {copies} set aside")
    if examined.contradictions:
        shown = "; ".join(" and ".join(names[:2]) for names in examined.contradictions[:BAD_SHOWN])
        twice = len(examined.contradictions)
        pictures = plural(twice, "picture has two labels and is", "pictures have two labels and are")
        say(f"data: {pictures} set aside: {shown}")
    if examined.near:
        say(f"data: {near_pairs.sentence(near_pairs.counts(examined.near))}; all pairs in data/{near_pairs.FILE}")
