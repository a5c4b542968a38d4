"""Stage "data": find the images, set the bad ones aside, split, measure, and write down what was decided.

``data/index.json`` lists every image with its hash, split and label, so that a run always says what it was trained on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from softedge.config import Recipe
from softedge.data import keeping, sources, stamps
from softedge.data.changes import since
from softedge.data.examining import Examined, examine, input_spec, named
from softedge.data.images import Data, EncodedImages, FileImages, Images
from softedge.data.inventory import Inventory
from softedge.data.keeping import keep
from softedge.data.stamps import content_hashes
from softedge.errors import UserError
from softedge.progress import say
from softedge.records import InputSpec, Outcome, Result
from softedge.run import Run, differences, perform, read_json, write_text

STAGE = "data"
_BAD_SHOWN = 5
_USED = ("train", "test", "unlabelled")  # the others are set aside
_COLUMNS = ("name", "sha256", "split", "label")
_UPDATE = "softedge deploy --update trains on"


def prepare(run: Run, recipe: Recipe, source: str, force: bool = False) -> Result:
    """Stage "data": writes data/index.json and data/result.json; skipped when it was done before.

    Images that came since are named, and the run goes on with those it knows. Images that are gone or have changed are
    refused until the model is trained; then they are named, too, and later stages use what the run kept.
    """
    settings = {**recipe.section("data")["data"], "source": sources.canonical(source), "seed": recipe.seed}
    settings.pop("workers")  # how fast, not what
    done = None if force else run.result(STAGE)
    trained = run.result("pretrain") is not None
    try:
        found = sources.find(source)
    except UserError as error:
        if done is None or not trained or differences(done.recipe, settings):
            raise
        say(f"data: {error}; the run goes on with what it kept")
        return done
    hashes = content_hashes(found, run.root / stamps.FILE)
    if done is not None and not differences(done.recipe, json.loads(json.dumps(settings))):
        changes = since(run.folder(STAGE) / "index.json", found, hashes)
        if (changes.gone or changes.changed) and not trained:
            raise UserError(f"the images of {run.root} are not those it was made with: {changes}; {_UPDATE} them")
        say(f"data: {changes} since this run was made; {_UPDATE} them" if changes else f"{STAGE}: done before, skipped")
        return done

    def work(folder: Path) -> Outcome:
        examined = examine(source, recipe)
        _tell(examined)
        spec = input_spec(examined, recipe)
        write_text(folder / "index.json", "".join(_index_lines(examined, spec)))
        tested = [item for item in examined.items if item.split == "test"]
        images = _images(found, _root(found), [(i.name, i.sha256, i.label) for i in tested], spec, examined.white)
        kept = keep(images, folder / keeping.FOLDER) if isinstance(images, EncodedImages) else 0
        details = {**summary(examined, spec), "root": _root(found), "kept": kept}
        return Outcome(metrics=dict(examined.counts()), details=details)

    return perform(run, STAGE, work, recipe=settings, inputs={"images": fingerprint(found, hashes)}, force=force)


def load(run: Run) -> Data:
    """Read a prepared data set back, whatever became of its files since; UserError when it was not prepared.

    An image that is gone or has changed is refused where its pixels are needed.
    """
    path = run.folder(STAGE) / "index.json"
    result = run.need(STAGE, "deploy --out")
    try:
        return _loaded(run, read_json(path), result.details["root"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error}); make it again with --force") from error


def _loaded(run: Run, index: dict[str, Any], root: str | None) -> Data:
    spec, classes = InputSpec.from_dict(index["spec"]), tuple(index["classes"])
    rows = [item for item in index["items"] if item["split"] in _USED]
    known = [(row["name"], row["sha256"], row["label"]) for row in rows]
    found: Inventory | None = None
    if root is None:
        try:
            found = sources.find(index["source"])
        except UserError:
            if index["source"] in sources.NAMES:
                raise
            root = index["source"]  # shards that are gone
    everything = _images(found, root, known, spec, index.get("white"))
    if isinstance(everything, EncodedImages):
        everything.kept = run.folder(STAGE) / keeping.FOLDER
    of_split = {split: [i for i, row in enumerate(rows) if row["split"] == split] for split in _USED}
    return Data(
        source=index["source"],
        classes=classes,
        spec=spec,
        pretrain=everything.subset(of_split["train"] + of_split["unlabelled"]),
        train=everything.subset(of_split["train"]),
        test=everything.subset(of_split["test"]),
    )


def _images(
    found: Inventory | None,
    root: str | None,
    known: Sequence[tuple[str, str, int]],
    spec: InputSpec,
    white: Mapping[str, float] | None,
) -> Images:
    """The images of an index: name, sha256 and label each."""
    names = [name for name, _, _ in known]
    labels = np.array([label for _, _, label in known], np.int64)
    if root is None:
        assert found is not None
        images = named(found, names, spec)
        images.labels = labels
    else:
        images = FileImages(Path(root), names, labels)
    if isinstance(images, EncodedImages):
        images.hashes, images.white = [sha256 for _, sha256, _ in known], white or None
    return images


def _root(found: Inventory) -> str | None:
    first = next(iter(found.splits.values()))
    return str(first.root) if isinstance(first, FileImages) else None


def fingerprint(found: Inventory, hashes: Mapping[str, Sequence[str]]) -> str:
    """A hash that changes when images come, go, are renamed, relabelled or edited.  hashes: ``content_hashes``."""
    digest = hashlib.sha256(json.dumps([found.source if not found.in_files else "", found.classes]).encode())
    for split, images in found.splits.items():
        digest.update(json.dumps([split, len(images)]).encode() + images.labels.tobytes())
        for name, content in zip(images.names, hashes[split]):
            digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()


def _index_lines(examined: Examined, spec: InputSpec) -> Iterator[str]:
    """index.json, one image a line: it can be read, compared and searched with ordinary tools."""
    head = {
        "schema": 1,
        "source": examined.found.source,
        "classes": examined.found.classes,
        "spec": spec.to_dict(),
        "counts": examined.counts(),
        "white": examined.white,
        "bad": examined.bad,
    }
    yield json.dumps(head, indent=1)[:-2] + ',\n "items": ['
    for number, item in enumerate(examined.items):
        yield ("," if number else "") + "\n  " + json.dumps({key: getattr(item, key) for key in _COLUMNS})
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
        "contradictions": examined.contradictions,
        "verified": True,
        "longer_side": examined.longer_side,
        "spec": spec.to_dict(),
    }


def _tell(examined: Examined) -> None:
    for notice in examined.found.notices:
        say(f"data: {notice}")
    if examined.bad:
        shown = "; ".join(f"{b['name']} ({b['reason']})" for b in examined.bad[:_BAD_SHOWN])
        more = f"; and {len(examined.bad) - _BAD_SHOWN} more" if len(examined.bad) > _BAD_SHOWN else ""
        say(
            f"data: {len(examined.bad)} of {len(examined.found)} images cannot be read and are set aside: {shown}{more}"
        )
    if duplicates := examined.counts()["n_duplicates"]:
        say(f"data: {duplicates} copies of test images are set aside")
    if examined.contradictions:
        shown = "; ".join(" and ".join(names[:2]) for names in examined.contradictions[:_BAD_SHOWN])
        say(f"data: {len(examined.contradictions)} pictures have two labels and are set aside: {shown}")
