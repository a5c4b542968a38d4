"""Stage "features": frozen features of all images of a run, from a backbone that no label has changed.

What reviewing the images works on. They are kept by content: each image is computed once, even if others come and go.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softedge import backbones, previous, registry
from softedge.backbones import Backbone
from softedge.config import Recipe
from softedge.data.images import Data, EncodedImages, Images
from softedge.errors import UserError
from softedge.eval.features import extract
from softedge.files import read_arrays
from softedge.progress import say, track
from softedge.records import InputSpec, Outcome
from softedge.run import Run, atomic_path, perform, sha256_of
from softedge.stages.base import BACKBONE, hashes

NAME = "features"
FILE = "features/features.npz"  # keys (K,): sha256 of contents; vectors (K, D) float32; source: of which network
_PART = 1024  # images between two files: what an interrupted start keeps
_BATCH = 64


@dataclass(frozen=True)
class Features:
    """float32 (N, D) of ``data.pretrain`` and of ``data.test``.  origin: of which network, in words."""

    pretrain: NDArray[np.float32]
    test: NDArray[np.float32]
    origin: str


def stage(run: Run, recipe: Recipe, data: Data, force: bool = False) -> Features:
    """The features of all images of the run, those that are missing computed."""
    run.need("pretrain", "pretrain")
    backbone, origin = unlabelled(run, recipe)
    keys = [*contents(data.pretrain), *contents(data.test)]
    source = {"network": origin, "spec": data.spec.to_dict()}
    of_weights = hashes(run, [BACKBONE])
    inputs = of_weights | {"images": hashlib.sha256("\n".join(keys).encode()).hexdigest()}
    identity = hashlib.sha256(f"{source}{of_weights}".encode()).hexdigest()

    def work(folder: Path) -> Outcome:
        known = _Known(identity)
        known.read(previous.folder(run.root, NAME))
        known.read(folder)
        for images in (data.pretrain, data.test):
            for number, keys_, vectors in _missing(backbone, images, data.spec, known):
                _write(folder / f"part-{number:06d}.npz", identity, keys_, vectors)
        kept = sorted(set(keys))
        _write(folder / Path(FILE).name, identity, kept, known.of(kept))
        for part in folder.glob("part-*.npz"):
            part.unlink()
        return Outcome({"n_images": len(kept)}, source)

    if not force and _damaged(run):
        say(f"features: {run.folder(NAME)} was changed or damaged since it was made; made again")
        (run.root / FILE).unlink(missing_ok=True)
        force = True
    perform(run, NAME, work, recipe=source, inputs=inputs, force=force, resumable=True, renew=True)
    known = _Known(identity)
    known.read(run.folder(NAME))
    vectors = known.of(keys)
    seen = f"{origin}, at {data.spec.size} pixels"  # fewer pixels make weaker features: two runs may disagree
    return Features(vectors[: len(data.pretrain)], vectors[len(data.pretrain) :], seen)


def _damaged(run: Run) -> bool:
    """Whether the record or the file of the finished stage is damaged, or another one than it left."""
    try:
        done = run.result(NAME)
        if done is None:
            return False
        sha256_of(run, FILE)
        if not done.arrays:  # a run of an earlier version, which recorded no hash
            read_arrays(run.root / FILE)
    except UserError:
        return True
    return False


def unlabelled(run: Run, recipe: Recipe) -> tuple[Backbone, str]:
    """A backbone that has not learnt from labels, and what it is in words: the run's, or the weights it started from.

    A network that was trained on a wrong label has memorised it.  UserError where there is no such backbone.
    """
    weights = Path(recipe.backbone.weights).name  # a report must not show where a file is stored
    done = run.result("pretrain")
    if recipe.ssl.epochs == 0 or (done is not None and done.details.get("kept") == "start"):
        return backbones.load(run.root / BACKBONE), f"{recipe.backbone.name} with its starting weights ({weights})"
    if not registry.lookup(registry.METHODS, recipe.ssl.method, "method").uses_labels:
        return backbones.load(run.root / BACKBONE), f"{recipe.backbone.name} pretrained with {recipe.ssl.method}"
    if weights == "random":
        raise UserError(
            f"{run.root} was pretrained on its labels from random weights, and has learnt the wrong ones, too; "
            "use a run that was pretrained without labels, or from starting weights"
        )
    return backbones.build(recipe.backbone), f"{recipe.backbone.name} with its starting weights ({weights})"


def contents(images: Images) -> list[str]:
    """What tells one picture from another: sha256 of the file, or of the pixels of an array."""
    if isinstance(images, EncodedImages) and images.hashes:
        return list(images.hashes)
    return [hashlib.sha256(images.decode(i).tobytes()).hexdigest() for i in range(len(images))]


class _Known:
    """Vectors by content, of one network with one preprocessing."""

    def __init__(self, identity: str):
        self.identity = identity
        self.vectors: dict[str, NDArray[np.float32]] = {}

    def read(self, folder: Path) -> None:
        """Take over what a folder holds; files of other networks and damaged ones are left out."""
        for path in [folder / Path(FILE).name, *sorted(folder.glob("part-*.npz"))]:
            try:
                file = read_arrays(path)
                if str(file["source"]) == self.identity:
                    self.vectors.update(zip(file["keys"].tolist(), file["vectors"], strict=True))
            except (UserError, ValueError, KeyError, TypeError):
                continue

    def of(self, keys: list[str]) -> NDArray[np.float32]:
        return np.stack([self.vectors[key] for key in keys])


def _missing(
    backbone: Backbone, images: Images, spec: InputSpec, known: _Known
) -> Iterator[tuple[int, list[str], NDArray[np.float32]]]:
    """Compute what is not known, part by part: a number, the contents, their vectors."""
    keys = contents(images)
    rows = {key: row for row, key in enumerate(keys) if key not in known.vectors}
    left = sorted(rows.values())
    for start in track(range(0, len(left), _PART), "features, parts"):
        part = np.array(left[start : start + _PART])
        vectors = extract(backbone, images.subset(part), spec, batch=_BATCH)
        new = [keys[row] for row in part]
        number = len(known.vectors)
        known.vectors.update(zip(new, vectors, strict=True))
        yield number, new, vectors


def _write(path: Path, identity: str, keys: list[str], vectors: NDArray[np.float32]) -> None:
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, source=np.array(identity), keys=np.array(keys), vectors=vectors)
